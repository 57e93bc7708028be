import subprocess
import sys

import numpy as np
import pytest
import reference
import scipy.stats

from influence_jax.estimators import difference_in_means, summarize


def draw(members=120, examples=15, targets=15, *, seed=0):
    """Losses to which each target's own example and one other matter."""
    generator = np.random.default_rng(seed)
    masks = generator.random((members, examples)) < 0.5
    losses = generator.normal(size=(members, targets)).astype(np.float32)
    for t in range(targets):
        losses[:, t] -= 2.0 * masks[:, t % examples] + 1.0 * masks[:, (t + 3) % examples]
    return masks, losses


def assert_same(a, b):
    assert a.estimator is b.estimator
    compared = [field for field in a._fields if field not in ('estimator', 'pairs')]
    np.testing.assert_array_equal(a.pairs.examples, b.pairs.examples)
    for name in compared:
        left, right = getattr(a, name), getattr(b, name)
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    'target_examples',
    [None, np.array([3, -1, 0, 14, 14, 2, -1, 7, 8, 9, 10, 11, 12, 13, 1])],
    ids=['targets_are_examples', 'some_are'],
)
def test_equals_the_loops_over_the_whole_matrix(target_examples):
    masks, losses = draw()
    own = np.arange(15) if target_examples is None else target_examples
    summary = summarize(masks, losses, top_k=4, target_examples=target_examples)
    values, errors = reference.difference_in_means(masks, losses, own)
    targets = np.arange(15)

    def close(actual, expected):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)

    top = reference.top_influencers(values, 4)
    other = reference.strongest_other(values, own)
    close(summary.self_influence, reference.self_influence(values, own))
    close(summary.self_standard_error, reference.self_influence(errors, own))
    close(summary.margin, reference.top1_margin(values))
    np.testing.assert_array_equal(summary.top_examples, top)
    close(summary.top_values, values[top, targets[:, None]])
    close(summary.top_standard_errors, errors[top, targets[:, None]])
    np.testing.assert_array_equal(summary.strongest_other, other)
    close(summary.other_value, values[other, targets])
    close(summary.other_standard_error, errors[other, targets])
    close(summary.mean, values.mean(axis=0))
    close(summary.standard_deviation, values.std(axis=0))
    close(summary.quantiles, np.quantile(values, summary.quantile_levels, axis=0).T)
    bottom = reference.top_influencers(-values, 4)
    np.testing.assert_array_equal(summary.bottom_examples, bottom)
    close(summary.bottom_values, values[bottom, targets[:, None]])
    close(summary.bottom_standard_errors, errors[bottom, targets[:, None]])
    close(summary.skewness, scipy.stats.skew(values, axis=0))
    close(summary.kurtosis, scipy.stats.kurtosis(values, axis=0))
    close(
        summary.z_margin,
        (values[top[:, 0], targets] - values[top[:, 1], targets])
        / np.hypot(errors[top[:, 0], targets], errors[top[:, 1], targets]),
    )
    z = reference.off_diagonal(values / summary.null_standard_error, own)
    counts, _ = np.histogram(z.clip(-7.99, 7.99), summary.z_edges)
    assert np.abs(summary.z_histogram - counts).sum() <= 4  # some lie next to an edge
    assert summary.z_histogram.sum() == 15 * 15 - np.sum(own >= 0)
    assert summary.members_used == 120


def test_agrees_with_the_full_matrix_on_more_examples_than_one_tile():
    masks, losses = draw(60, 70, 90)
    summary = summarize(masks, losses, tile=32, top_k=5)
    values = difference_in_means(masks, losses).values
    assert np.isnan(summary.self_influence).all()
    assert np.isnan(summary.self_standard_error).all()
    np.testing.assert_allclose(summary.margin, reference.top1_margin(values), rtol=1e-4)
    np.testing.assert_array_equal(summary.strongest_other, values.argmax(axis=0))
    assert summary.z_histogram.sum() == 70 * 90


@pytest.mark.parametrize('tile', [1, 4, 15, 100])
def test_does_not_depend_on_the_tile(tile):
    masks, losses = draw()
    losses[:, 12] *= 40
    assert_same(summarize(masks, losses, tile=tile), summarize(masks, losses))


def test_permuting_examples_permutes_them_in_the_summary():
    masks, losses = draw()
    order = np.random.default_rng(1).permutation(15)
    straight = summarize(masks, losses)
    permuted = summarize(masks[:, order], losses[:, order])
    for name in ('self_influence', 'margin', 'other_value', 'quantiles', 'top_values'):
        np.testing.assert_allclose(
            getattr(permuted, name), getattr(straight, name)[order], rtol=1e-4, atol=1e-6
        )
    np.testing.assert_array_equal(order[permuted.top_examples], straight.top_examples[order])
    np.testing.assert_array_equal(order[permuted.strongest_other], straight.strongest_other[order])
    np.testing.assert_array_equal(permuted.z_histogram, straight.z_histogram)


def test_finds_the_planted_influences():
    masks, losses = draw(800, 20, 20)
    summary = summarize(masks, losses)
    targets = np.arange(20)
    np.testing.assert_array_equal(summary.top_examples[:, 0], targets)
    np.testing.assert_array_equal(summary.strongest_other, (targets + 3) % 20)
    assert np.all(np.abs(summary.self_influence - 2) < 4 * summary.self_standard_error)
    assert np.all(np.abs(summary.other_value - 1) < 4 * summary.other_standard_error)


def test_an_entry_stands_out_where_it_is_a_significant_pair_or_far_above_zero():
    generator = np.random.default_rng(0)
    masks = generator.random((400, 40)) < 0.5
    held = masks.astype(np.float32)
    losses = generator.normal(size=(400, 40)).astype(np.float32) - held
    for shift, effect in ((1, 0.5), (2, -0.5), (3, -0.6), (4, -0.6)):
        losses += effect * np.roll(held, shift, axis=1)
    summary = summarize(masks, losses)
    examples, targets = (grid.ravel() for grid in np.indices((40, 40)))
    found = set(zip(summary.pairs.examples.tolist(), summary.pairs.targets.tolist(), strict=True))
    listed = np.nonzero(summary.top_stands_out)
    top = set(zip(summary.top_examples[listed].tolist(), listed[0].tolist(), strict=True))
    assert {(t, t) for t in range(40)} <= top - found
    # A harmful one is never among the largest, and some helpful ones are not far enough above.
    sign = np.sign(summary.pairs.values)
    beyond = [pair in top for pair in zip(*summary.pairs[:2], strict=True)]
    assert (sign < 0).any() and (sign[~np.array(beyond)] > 0).any()
    entries = zip(examples.tolist(), targets.tolist(), strict=True)
    expected = [entry in found | top for entry in entries]
    np.testing.assert_array_equal(summary.stands_out(examples, targets), expected)
    assert summary.stands_out(np.empty(0, int), np.empty(0, int)).shape == (0,)


def test_more_asked_for_than_there_is():
    summary = summarize(*draw(), top_k=100)
    assert summary.top_examples.shape == (15, 15)
    for row in summary.top_examples:
        assert sorted(row) == list(range(15))
    assert np.all(np.diff(summary.top_values, axis=1) <= 0)


def test_top_of_one_keeps_margin_and_other():
    masks, losses = draw()
    one, many = summarize(masks, losses, top_k=1), summarize(masks, losses)
    assert one.top_values.shape == (15, 1)
    np.testing.assert_array_equal(one.margin, many.margin)
    np.testing.assert_array_equal(one.other_value, many.other_value)


def test_members_with_nan_are_left_out():
    masks, losses = draw()
    kept = np.delete(np.arange(120), [4, 60])
    losses[4], losses[60, 2] = np.nan, np.inf
    summary = summarize(masks, losses)
    assert summary.members_used == 118
    assert_same(summary, summarize(masks[kept], losses[kept]))


def test_constant_losses():
    masks, _ = draw()
    summary = summarize(masks, np.full((120, 15), 0.3, np.float32))
    np.testing.assert_array_equal(summary.self_influence, 0)
    assert np.isnan(summary.margin).all()
    assert summary.z_histogram.sum() == 15 * 14


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'top_k': 0}, 'top_k=0 must be at least 1'),
        ({'tile': 0}, 'tile=0 must be at least 1'),
        ({'false_discoveries': 0.0}, 'level=0.0 of false discoveries must lie strictly'),
        ({'quantile_levels': (0.5, 1.5)}, 'quantile_levels must lie in 0 .. 1'),
        ({'target_examples': np.arange(14)}, 'must be 15 integers'),
        ({'target_examples': np.arange(15) / 2}, 'must be 15 integers'),
        ({'target_examples': np.arange(15) + 1}, r'must lie in -1 \.\. 14, not 1 \.\. 15'),
        ({'target_examples': np.arange(15) - 2}, r'must lie in -1 \.\. 14, not -2 \.\. 12'),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        summarize(*draw(), **arguments)


def test_one_example_is_refused():
    with pytest.raises(ValueError, match='at least 2'):
        summarize(*draw(examples=1))


def test_never_holds_the_matrix():
    """In a process of its own: the run-time check of annotations keeps something of each call."""
    code = """
import tracemalloc
import numpy as np
import scipy.stats  # imported where it is needed first: what that takes is no matrix
from influence_jax.estimators import summarize

rng = np.random.default_rng(0)
masks = rng.random((32, 2500)) < 0.5
masks[:4] = [[False], [False], [True], [True]]  # nobody always in or always out
losses = rng.normal(size=(32, 2500)).astype(np.float32)
summarize(masks, losses[:, :100], tile=50)
tracemalloc.start()
summarize(masks, losses, tile=50)
print(tracemalloc.get_traced_memory()[1])
"""
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 2500 * 2500 * 4 / 2
