import jax
import numpy as np
import pytest
import scipy.stats

from influence_jax.analysis import overview
from influence_jax.estimators import difference_in_means, largest_of_noise, summarize

KEY = jax.random.key(0)
FAMILY = (4, 11, 17)  # near-duplicates of one another


def ensemble(members=500, examples=60):
    """Every example teaches itself, except that three near-duplicates teach one another too."""
    generator = np.random.default_rng(0)
    masks = generator.random((members, examples)) < 0.5
    losses = generator.normal(size=(members, examples)) - 3 * masks
    for a in FAMILY:
        for b in FAMILY:
            if a != b:
                losses[:, a] -= 2.5 * masks[:, b]
    return masks, losses.astype(np.float32)


@pytest.fixture(scope='module')
def seen():
    return overview(*ensemble(), key=KEY)


def test_parts_are_pieces_of_the_whole_matrix(seen):
    values, errors = difference_in_means(*ensemble())
    np.testing.assert_allclose(
        seen.matrix_block, values[np.ix_(seen.block_examples, seen.block_targets)], atol=1e-6
    )
    np.testing.assert_allclose(seen.distributions, values[:, seen.chosen], atol=1e-6)
    np.testing.assert_allclose(seen.distribution_standard_errors, errors[:, seen.chosen], rtol=1e-5)
    summary = summarize(*ensemble())
    for name in ('margin', 'top_values', 'quantiles', 'z_histogram'):
        np.testing.assert_array_equal(getattr(seen.summary, name), getattr(summary, name))
    np.testing.assert_array_equal(seen.target_examples, np.arange(60))


def test_near_duplicates_come_first_and_stand_together(seen):
    assert set(seen.lowest_margin[:3].tolist()) == set(FAMILY)
    assert set(seen.block_examples[:3].tolist()) == set(FAMILY)
    np.testing.assert_array_equal(seen.block_examples, seen.block_targets)
    assert np.all(seen.matrix_block[:3, :3] > 1.5)
    assert len(seen.block_examples) == len(set(seen.block_examples.tolist())) == 48


def test_noise_over_noise_is_no_low_margin():
    masks, losses = ensemble()
    losses[:, 30] = np.random.default_rng(1).normal(size=500)  # learnt by nobody
    seen = overview(masks, losses, key=KEY)
    assert seen.summary.margin[30] < seen.summary.margin[list(FAMILY)].max() + 0.5
    assert set(seen.lowest_margin[:3].tolist()) == set(FAMILY)


def test_most_memorized_and_chosen(seen):
    own = seen.summary.self_influence
    assert len(seen.most_memorized) == 48
    np.testing.assert_array_equal(own[seen.most_memorized], np.sort(own)[::-1][:48])
    np.testing.assert_array_equal(seen.chosen[:2], seen.lowest_margin[:2])
    assert set(seen.most_memorized[:2].tolist()) <= set(seen.chosen.tolist())
    assert 4 <= len(seen.chosen) == len(set(seen.chosen.tolist())) <= 6


def test_convergence_belongs_to_the_same_members(seen):
    assert seen.convergence.members[-1] == 250
    assert seen.summary.members_used == 500


def test_targets_that_are_no_examples():
    masks, losses = ensemble()
    seen = overview(masks, losses[:, :20], key=KEY)
    np.testing.assert_array_equal(seen.target_examples, -1)
    assert seen.most_memorized.size == 0
    np.testing.assert_array_equal(np.sort(seen.block_targets), np.arange(20))
    assert seen.matrix_block.shape == (len(seen.block_examples), 20)
    values = difference_in_means(masks, losses[:, :20]).values
    np.testing.assert_allclose(
        seen.matrix_block, values[np.ix_(seen.block_examples, seen.block_targets)], atol=1e-6
    )


def test_a_member_missing_in_one_column_is_left_out_of_all():
    masks, losses = ensemble(members=60)
    losses[5, 59] = np.nan
    kept = np.delete(np.arange(60), 5)
    seen, expected = (
        overview(*pair, key=KEY) for pair in ((masks, losses), (masks[kept], losses[kept]))
    )
    assert seen.summary.members_used == 59
    np.testing.assert_array_equal(seen.distributions, expected.distributions)
    np.testing.assert_array_equal(seen.matrix_block, expected.matrix_block)


def test_two_examples_are_enough():
    masks, losses = ensemble(members=20, examples=60)
    seen = overview(masks[:, :2], losses[:, :2], key=KEY)
    assert seen.matrix_block.shape == (2, 2)


def test_threshold_is_exceeded_once_in_a_matrix_of_noise():
    generator = np.random.default_rng(0)
    threshold = largest_of_noise(members=40, examples=100, targets=100)
    assert threshold > scipy.stats.norm.isf(1e-4)
    exceeded = 0
    for _ in range(60):
        masks = generator.random((40, 100)) < 0.5
        estimate = difference_in_means(masks, generator.normal(size=(40, 100)))
        exceeded += np.sum(estimate.values > threshold * estimate.standard_error)
    assert 0.5 < exceeded / 60 < 2
