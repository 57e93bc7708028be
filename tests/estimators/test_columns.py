"""Summaries of columns that come from anywhere: a matrix, a file, an attribution method."""

import jax
import numpy as np
import pytest

from influence_jax import analysis
from influence_jax.analysis import duplicates
from influence_jax.estimators import (
    Columns,
    Method,
    adjusted,
    difference_in_means,
    ridge,
    summarize,
)
from influence_jax.estimators.columns import entry_reader
from influence_jax.estimators.ensemble import problem
from influence_jax.types import Influence

EXAMPLES, TARGETS = 14, 11


def matrix(seed=0):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(EXAMPLES, TARGETS))
    values[np.arange(TARGETS), np.arange(TARGETS)] += 30
    values[1, 0] = values[0, 1] = 28
    return values, np.ones_like(values)


def test_a_matrix_has_the_numbers_of_its_columns():
    values, _ = matrix()
    own = np.arange(TARGETS)
    found = summarize(Columns.of_matrix(values), target_examples=own, tile=4, top_k=3)
    np.testing.assert_allclose(found.self_influence, values[own, own], rtol=1e-6)
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.standard_deviation, values.std(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(found.top_examples, np.argsort(-values, axis=0)[:3].T)
    np.testing.assert_allclose(found.margin, analysis.top1_margin(values), rtol=1e-5)
    np.testing.assert_allclose(
        found.quantiles, np.quantile(values, found.quantile_levels, axis=0).T, rtol=1e-4
    )


def test_without_standard_errors_nothing_is_significant():
    values, _ = matrix()
    found = summarize(Columns.of_matrix(values), target_examples=np.arange(TARGETS))
    for name in (
        'self_standard_error',
        'top_standard_errors',
        'bottom_standard_errors',
        'other_standard_error',
        'other_cross_fitted',
        'null_standard_error',
        'effective_members',
        'floored_margin',
        'z_margin',
    ):
        assert np.isnan(getattr(found, name)).all(), name
    assert not found.top_stands_out.any() and not found.other_stands_out.any()
    assert found.pairs.tests == len(found.pairs.values) == found.z_histogram.sum() == 0
    assert found.members_used == 0


def test_standard_errors_alone_are_enough_for_significance():
    values, errors = matrix()
    found = summarize(Columns.of_matrix(values, errors), target_examples=np.arange(TARGETS))
    listed = set(zip(found.pairs.examples.tolist(), found.pairs.targets.tolist(), strict=True))
    assert {(1, 0), (0, 1)} <= listed
    assert found.pairs.tests == EXAMPLES * TARGETS - TARGETS == found.z_histogram.sum()
    assert found.other_stands_out[[0, 1]].all() and not found.other_stands_out[5:].any()
    # With few members behind them, errors are less certain: Student's t is wider.
    few = summarize(
        Columns.of_matrix(values / 6, errors, members=4), target_examples=np.arange(TARGETS)
    )
    many = summarize(Columns.of_matrix(values / 6, errors), target_examples=np.arange(TARGETS))
    assert len(few.pairs.values) < len(many.pairs.values)


def test_columns_with_their_members_are_as_the_estimate_itself():
    generator = np.random.default_rng(1)
    masks = generator.random((60, TARGETS)) < 0.5
    losses = (generator.normal(size=(60, TARGETS)) - 3 * masks).astype(np.float32)
    losses -= 2 * np.roll(masks, 1, axis=1)
    values, errors = ridge(masks, losses)

    def read(targets):
        return Influence(values[:, targets], errors[:, targets])

    method = Method('mine', 'mine', 'a value')
    source = Columns(TARGETS, TARGETS, read, method, masks=masks, losses=losses)
    found, expected = summarize(source), summarize(masks, losses, estimator=ridge)
    for name, value in expected._asdict().items():
        if name not in ('estimator', 'pairs'):
            np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
    for part, of in zip(found.pairs, expected.pairs, strict=True):
        np.testing.assert_array_equal(part, of)
    assert found.estimator is method and len(found.pairs.values)


@pytest.mark.parametrize('tile', [1, 2, 3, None])
def test_a_matrix_in_memory_of_any_layout_is_the_same(tile):
    values = matrix()[0].astype(np.float32)
    fields = np.zeros(values.shape[0], [('name', 'i1'), ('values', 'f4', values.shape[1])])
    fields['values'] = values
    expected = summarize(Columns.of_matrix(values))
    for form in (np.asfortranarray(values), fields['values'], values.astype('>f4')):
        found = summarize(Columns.of_matrix(form), tile=tile)
        for name in ('top_examples', 'top_values', 'quantiles', 'z_histogram'):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    one = summarize(Columns.of_matrix(np.asfortranarray(values)[:, 2:3]))
    np.testing.assert_array_equal(one.top_values[0], expected.top_values[2])


def test_columns_are_those_asked_for_in_any_order():
    source = Columns.of_matrix(np.tile(np.arange(12.0), (3, 1)))
    for targets in ([3, 9, 5], [3, 3, 5], [7], [5, 6, 7], [7, 6, 5]):
        np.testing.assert_array_equal(source.column(np.array(targets)).values[0], targets)


def test_a_mapped_file_is_read_by_blocks(tmp_path):
    values, _ = matrix()
    np.save(tmp_path / 'scores.npy', values.astype(np.float32))
    mapped = np.load(tmp_path / 'scores.npy', mmap_mode='r')
    source = Columns.of_matrix(mapped, name='scores', unit='points')
    assert (source.examples, source.targets, source.unit) == (EXAMPLES, TARGETS, 'points')
    found, expected = summarize(source, tile=3), summarize(Columns.of_matrix(values))
    np.testing.assert_allclose(found.top_values, expected.top_values, rtol=1e-6)
    np.testing.assert_allclose(source.column(np.array([7, 2])).values, values[:, [7, 2]], rtol=1e-6)


def test_overview_and_candidate_pairs_take_any_columns():
    values = matrix()[0][:TARGETS]
    overview = analysis.overview(Columns.of_matrix(values), key=jax.random.key(0))
    assert overview.convergence is None
    assert {0, 1} <= set(overview.block_examples.tolist())
    np.testing.assert_allclose(overview.distributions, values[:, overview.chosen], rtol=1e-6)
    errors = np.ones_like(values)
    pairs = duplicates.candidate_pairs(summarize(Columns.of_matrix(values, errors)))
    assert pairs.examples[0].tolist() == [0, 1]


def test_candidate_pairs_without_errors_go_by_the_ratio_alone():
    values = matrix()[0][:TARGETS]
    pairs = duplicates.candidate_pairs(summarize(Columns.of_matrix(values)))
    assert pairs.examples[0].tolist() == [0, 1]
    assert pairs.scores[0] == pytest.approx(
        np.mean([28 / values[0, 0], 28 / values[1, 1]]), rel=1e-5
    )
    assert np.isnan(pairs.z).all()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: Columns.of_matrix(np.ones(3)), r'\[3\]'),
        (lambda: Columns.of_matrix(np.ones((3, 2)), np.ones((2, 3))), r'standard_error \[2, 3\]'),
        (lambda: summarize(Columns.of_matrix(np.ones((3, 2))), np.ones((4, 2))), 'losses'),
        (lambda: summarize(np.ones((4, 2), bool)), 'losses are missing'),
        (lambda: summarize(Columns.of_matrix(np.full((3, 2), np.nan))), 'NaN or infinite'),
        (lambda: summarize(Columns.of_matrix(np.ones((3, 2))), tile=0), 'tile=0'),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refused:
        call()
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize('estimator', [difference_in_means, adjusted])
def test_an_entry_reader_gives_the_entries_of_the_estimate(estimator):
    rng = np.random.default_rng(0)
    masks = rng.random((64, 9)) < 0.5
    losses = rng.normal(3, 0.2, (64, 9)).astype(np.float32) - 2 * masks
    of = problem(masks, losses, None)
    whole = estimator(masks, losses)
    read = entry_reader(estimator, of)
    for targets, examples in (([4], range(9)), ([7, 2], [0, 7, 5])):
        found = read(np.array(targets), np.array(examples))
        for part, expected in zip(found, whole, strict=True):
            assert part.shape == (len(examples), len(targets))
            np.testing.assert_allclose(
                part, expected[np.ix_(examples, targets)], rtol=1e-4, atol=1e-6
            )


def test_an_entry_reader_refuses_what_depends_on_all_targets():
    masks = np.random.default_rng(0).random((64, 9)) < 0.5
    of = problem(masks, masks.astype(np.float32), None)
    with pytest.raises(ValueError, match='ridge'):
        entry_reader(ridge, of)
