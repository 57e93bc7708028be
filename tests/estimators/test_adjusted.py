"""The adjusted estimate: what it must equal, recover, cover and refuse."""

import numpy as np
import pytest
import reference

from influence_jax.estimators import adjusted, difference_in_means, summarize
from influence_jax.estimators.regression_adjusted import Fitting


def masks_of(members, examples, seed=0):
    return np.random.default_rng(seed).random((members, examples)) < 0.5


def noise(members, targets, seed=1):
    return np.random.default_rng(seed).normal(size=(members, targets))


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


def regressors_of(masks, losses, own):
    centered = losses - losses.mean(0)
    scale = np.abs(centered).max(0)
    return Fitting(masks, losses, own)(centered / scale, own, slice(0, len(own)), scale).examples


def test_equals_the_loops_for_the_regressors_it_chose():
    masks = masks_of(200, 12)
    losses = noise(200, 12) - 2 * masks - 1.5 * np.roll(masks, 1, axis=1)
    estimate = adjusted(masks, losses)
    chosen = regressors_of(masks, losses, np.arange(12))
    counts = (chosen >= 0).sum(axis=1)
    assert (counts >= 2).all()
    for target in range(12):
        regressors = chosen[target, : counts[target]].tolist()
        assert {target, (target - 1) % 12} <= set(regressors)
        values, errors = reference.adjusted_given(masks, losses[:, target], regressors)
        np.testing.assert_allclose(estimate.values[:, target] / errors, values / errors, atol=2e-3)
        np.testing.assert_allclose(estimate.standard_error[:, target], errors, rtol=1e-3)


def test_planted_influence_is_recovered_with_less_noise():
    masks = masks_of(400, 30)
    losses = noise(400, 30) - 3 * masks - 2 * np.roll(masks, 1, axis=1)
    better, plain = adjusted(masks, losses), difference_in_means(masks, losses)
    truth = 3 * np.eye(30) + 2 * np.roll(np.eye(30), -1, axis=0)
    z = (better.values - truth) / better.standard_error
    assert np.abs(z).max() < 5
    noise_of = [off_diagonal(e.values - truth).var() for e in (better, plain)]
    # The variance of a loss is 1 of noise + 9/4 + 4/4 of inclusion.
    assert 3 < noise_of[1] / noise_of[0] < 6


def test_null_data_is_covered_and_z_is_standard_normal():
    """Heavy-tailed losses, of which only the target's own inclusion lowers level and spread."""
    masks = masks_of(300, 200)
    losses = np.random.default_rng(2).gamma(1.5, size=(300, 200)) * np.where(masks, 0.1, 2)
    truth = np.diag(np.full(200, 1.5 * 1.9))
    estimate = adjusted(masks, losses)
    z = off_diagonal(estimate.values - truth) / off_diagonal(estimate.standard_error)
    assert 0.97 < z.std() < 1.03
    assert 0.94 < (np.abs(z) < 1.96).mean() < 0.96
    own = np.diag(estimate.values - truth) / np.diag(estimate.standard_error)
    assert 0.85 < own.std() < 1.15


def test_without_influence_next_to_nothing_is_regressed_out():
    masks, losses = masks_of(200, 40), noise(200, 40)
    counts = (regressors_of(masks, losses, np.full(40, -1)) >= 0).sum(axis=1)
    assert (counts == 0).mean() > 0.9
    none = np.flatnonzero(counts == 0)
    estimate = adjusted(masks, losses, target_examples=np.full(40, -1))
    plain = difference_in_means(masks, losses, target_examples=np.full(40, -1))
    np.testing.assert_allclose(estimate.values[:, none], plain.values[:, none], atol=1e-6)
    np.testing.assert_allclose(
        estimate.standard_error[:, none], plain.standard_error[:, none], rtol=1e-5
    )


def test_it_converges_to_the_exact_expectation():
    """Ridge regression on 7 points, all 128 subsets: the exact values are known."""
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(7, 3)), rng.normal(size=7)
    every = np.array(reference.all_subsets(7), bool)
    losses = np.asarray(reference.ridge_losses(every, features, labels, penalty=1.0))
    exact = np.array([losses[~every[:, i]].mean(0) - losses[every[:, i]].mean(0) for i in range(7)])
    drawn = rng.integers(0, len(every), 20_000)
    estimate = adjusted(every[drawn], losses[drawn])
    z = (estimate.values - exact) / estimate.standard_error
    assert np.abs(z).max() < 5
    assert estimate.standard_error.max() < 0.05 * np.abs(exact).max()


def test_permuting_examples_permutes_influence():
    masks = masks_of(150, 20)
    losses = noise(150, 20) - 2 * masks
    order = np.random.default_rng(4).permutation(20)
    first, second = adjusted(masks, losses), adjusted(masks[:, order], losses[:, order])
    np.testing.assert_allclose(second.values, first.values[order][:, order], atol=1e-4)


@pytest.mark.parametrize('differing', [0, 6], ids=['equal', 'nearly equal'])
def test_examples_that_go_together_each_have_their_effect(differing):
    """As by difference of means, and with its coverage: they cannot be told apart."""
    generator = np.random.default_rng(0)
    masks = np.repeat(generator.random((256, 12)) < 0.5, 5, axis=1)
    for column in range(0, 60, 2):
        masks[generator.permutation(256)[:differing], column] ^= True
    group = np.arange(60) // 5
    losses = generator.normal(size=(256, 60)) - 3 * masks
    estimate, plain = adjusted(masks, losses), difference_in_means(masks, losses)
    same = group[:, None] == group[None, :]
    expected = np.array([[3 * between(masks[:, i], of) for of in masks.T] for i in range(60)])
    z = (estimate.values - expected)[same] / estimate.standard_error[same]
    assert np.abs(z).max() < 4.5
    assert np.mean(np.abs(z) < 1.97) > 0.9
    # What differs is the noise that other groups add to the difference of means.
    off = (estimate.values - plain.values)[same] / plain.standard_error[same]
    assert np.abs(off).max() < 1
    pairs = summarize(masks, losses, estimator=adjusted).pairs
    right = group[pairs.examples] == group[pairs.targets]
    # A false pair of groups is 25 false pairs at once.
    assert right.sum() >= 0.95 * (same.sum() - 60) and right.mean() > 0.8


def test_one_of_two_versions_is_as_good_as_without_the_other():
    """Columns that are each other's complement: influence of opposite sign."""
    masks = masks_of(256, 40)
    masks[:, 1] = ~masks[:, 0]
    losses = noise(256, 40) - 3 * masks[:, [0]] * (np.arange(40) >= 20) - 1.5 * masks
    estimate = adjusted(masks, losses)
    np.testing.assert_allclose(estimate.values[:2, 20:].mean(axis=1), [3, -3], atol=0.15)
    assert estimate.standard_error[:2, 20:].max() < 0.3


def between(column, of_target):
    """Difference, over the members without and with an example, of another's share."""
    return of_target[column].mean() - of_target[~column].mean()


def test_regressors_are_looked_for_in_what_the_own_example_leaves():
    """A strong own effect hides weaker ones from a screen of raw differences."""
    masks = masks_of(128, 300)
    losses = noise(128, 300) - 8 * masks - 1.2 * np.roll(masks, 1, axis=1)
    chosen = regressors_of(masks, losses, np.arange(300))
    assert (chosen[:, 0] == np.arange(300)).all()
    found = (chosen == ((np.arange(300) - 1) % 300)[:, None]).any(axis=1)
    assert found.mean() > 0.9


def test_tiles_are_the_whole():
    masks = masks_of(100, 25)
    losses = noise(100, 25) - masks
    estimate = adjusted(masks, losses)
    for columns, block in adjusted.tiles(masks, losses, tile=10):
        np.testing.assert_allclose(block.values, estimate.values[:, columns], atol=1e-5)


def test_members_that_are_missing_are_left_out():
    masks = masks_of(100, 10)
    losses = noise(100, 10) - masks
    some = losses.copy()
    some[::7] = np.nan
    kept = np.isfinite(some[:, 0])
    expected = adjusted(masks[kept], losses[kept])
    np.testing.assert_array_equal(adjusted(masks, some).values, expected.values)


def test_too_few_members_are_refused_in_one_line():
    with pytest.raises(ValueError, match='20 complete members are too few to regress') as error:
        adjusted(masks_of(20, 4), noise(20, 4))
    assert '\n' not in str(error.value)
