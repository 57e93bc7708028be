"""Ridge: what it must equal, recover, cover and refuse."""

import numpy as np
import pytest
import reference

from influence_jax.estimators import difference_in_means, ridge
from influence_jax.estimators.ridge_regression import _PENALTIES, _smoother
from influence_jax.estimators.self_influence import self_errors

NONE = np.full(9, -1)


def masks_of(members, examples, seed=0):
    return np.random.default_rng(seed).random((members, examples)) < 0.5


def noise(members, targets, seed=1):
    return np.random.default_rng(seed).normal(size=(members, targets))


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


@pytest.mark.parametrize('members', [8, 40], ids=['dual', 'primal'])
@pytest.mark.parametrize('penalty', [0.5, 5.0, 500.0])
def test_equals_the_loops(members, penalty):
    masks = masks_of(members, 9, seed=1)
    losses = 3 + noise(members, 9, seed=2) - np.roll(masks, 1, axis=1)
    estimate = ridge(masks, losses, target_examples=NONE, penalty=penalty)
    for target in range(9):
        values, errors = reference.ridge(masks, losses[:, target], -1, penalty=penalty)
        np.testing.assert_allclose(estimate.values[:, target], values, atol=1e-3, rtol=1e-3)
        np.testing.assert_allclose(estimate.standard_error[:, target], errors, rtol=2e-3)


def test_the_own_example_is_not_penalized():
    masks = masks_of(60, 9)
    losses = noise(60, 9) - 3 * masks
    estimate = ridge(masks, losses, penalty=20.0)
    of_own = self_errors(masks, losses, np.arange(9))
    for target in range(9):
        values, errors = reference.ridge(masks, losses[:, target], target, penalty=20.0)
        errors[target] = of_own.widening[target] * np.hypot(errors[target], of_own.unseen[target])
        np.testing.assert_allclose(estimate.values[:, target], values, atol=2e-4)
        # The errors of others neglect that the own column shares a little of theirs.
        np.testing.assert_allclose(estimate.standard_error[:, target], errors, rtol=0.01)
        np.testing.assert_allclose(
            estimate.standard_error[target, target], errors[target], rtol=1e-3
        )


def test_an_infinite_penalty_gives_the_difference_of_means():
    masks, losses = masks_of(100, 9), noise(100, 9)
    estimate = ridge(masks, losses, target_examples=NONE, penalty=1e7)
    plain = difference_in_means(masks, losses)
    np.testing.assert_allclose(estimate.values, plain.values, atol=1e-4)
    np.testing.assert_allclose(estimate.standard_error, plain.standard_error, rtol=0.03)


@pytest.mark.parametrize('members', [16, 60])
def test_the_penalty_is_that_of_the_least_score(members):
    masks = masks_of(members, 24)
    effects = np.random.default_rng(6).normal(size=(24, 2))
    losses = noise(members, 2) * 3 - masks @ effects
    squares = np.square(reference.centred_columns(masks)).sum()
    penalties = _PENALTIES * squares / min(members - 1, 24)

    def score(penalty):
        of_targets = [
            reference.ridge_cross_validation(masks, y, penalty) / y.var() for y in losses.T
        ]
        return sum(of_targets)

    expected = min(penalties, key=score)
    assert penalties[0] < expected < penalties[-1]
    found = _smoother(masks, losses, np.full(2, -1), None).penalty
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_many_weak_effects_are_recovered_unshrunken_with_less_noise():
    masks = masks_of(400, 300)
    truth = np.random.default_rng(7).normal(size=(300, 100))
    losses = 2 * noise(400, 100) - masks @ truth
    better, plain = ridge(masks, losses), difference_in_means(masks, losses)
    slope = (better.values * truth).sum() / (truth**2).sum()
    assert slope == pytest.approx(1, abs=0.02)
    assert (plain.values - truth).var() > 2 * (better.values - truth).var()
    z = (better.values - truth) / better.standard_error
    assert 0.97 < z.std() < 1.03


def test_null_data_is_covered_and_z_is_standard_normal():
    """Heavy-tailed losses, of which only the target's own inclusion lowers level and spread."""
    masks = masks_of(300, 200)
    losses = np.random.default_rng(2).gamma(1.5, size=(300, 200)) * np.where(masks, 0.1, 2)
    truth = np.diag(np.full(200, 1.5 * 1.9))
    estimate = ridge(masks, losses)
    z = off_diagonal(estimate.values - truth) / off_diagonal(estimate.standard_error)
    assert 0.97 < z.std() < 1.03
    assert 0.94 < (np.abs(z) < 1.96).mean() < 0.96
    own = np.diag(estimate.values - truth) / np.diag(estimate.standard_error)
    assert 0.85 < own.std() < 1.15


@pytest.mark.parametrize('penalty', [3.0, 30.0])
def test_weak_penalties_are_covered_too(penalty):
    """Leaks from other effects, most where members are few, are in the errors."""
    masks = masks_of(150, 250)
    truth = np.random.default_rng(8).normal(size=(250, 250)) * 0.3
    losses = noise(150, 250) - masks @ truth
    estimate = ridge(masks, losses, penalty=penalty)
    z = (estimate.values - truth) / estimate.standard_error
    assert 0.97 < z.std() < 1.03
    assert 0.94 < (np.abs(z) < 1.96).mean() < 0.96


def test_masks_of_another_rate_are_covered():
    masks = np.random.default_rng(9).random((400, 150)) < 0.8
    losses = noise(400, 150) - 2 * masks
    estimate = ridge(masks, losses)
    z = (estimate.values - 2 * np.eye(150)) / estimate.standard_error
    assert 0.97 < z.std() < 1.03


def test_it_converges_to_the_exact_expectation():
    """Ridge regression on 7 points, all 128 subsets: the exact values are known."""
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(7, 3)), rng.normal(size=7)
    every = np.array(reference.all_subsets(7), bool)
    losses = np.asarray(reference.ridge_losses(every, features, labels, penalty=1.0))
    exact = np.array([losses[~every[:, i]].mean(0) - losses[every[:, i]].mean(0) for i in range(7)])
    drawn = rng.integers(0, len(every), 20_000)
    estimate = ridge(every[drawn], losses[drawn])
    z = (estimate.values - exact) / estimate.standard_error
    assert np.abs(z).max() < 5
    assert estimate.standard_error.max() < 0.05 * np.abs(exact).max()


def test_permuting_examples_permutes_influence():
    masks = masks_of(150, 20)
    losses = noise(150, 20) - 2 * masks
    order = np.random.default_rng(4).permutation(20)
    first, second = ridge(masks, losses), ridge(masks[:, order], losses[:, order])
    np.testing.assert_allclose(second.values, first.values[order][:, order], atol=1e-4)


def test_examples_that_go_together_have_the_effect_of_both():
    masks = masks_of(300, 10)
    masks[:, 1] = masks[:, 0]
    losses = noise(300, 3) - 4 * masks[:, :1]
    for owns in ([0, 1, -1], [-1, -1, -1]):
        estimate = ridge(masks, losses, target_examples=np.array(owns))
        assert np.isfinite(estimate.standard_error).all()
        np.testing.assert_allclose(estimate.values[0], estimate.values[1], atol=1e-3)
        np.testing.assert_allclose(estimate.values[0], 4, atol=0.6)


def test_tiles_are_the_whole():
    masks = masks_of(100, 25)
    losses = noise(100, 25) - masks
    estimate = ridge(masks, losses)
    for columns, block in ridge.tiles(masks, losses, tile=10):
        np.testing.assert_allclose(block.values, estimate.values[:, columns], atol=1e-5)
        np.testing.assert_allclose(
            block.standard_error, estimate.standard_error[:, columns], rtol=1e-4
        )


def test_members_that_are_missing_are_left_out():
    masks = masks_of(100, 10)
    losses = noise(100, 10) - masks
    some = losses.copy()
    some[::7] = np.nan
    kept = np.isfinite(some[:, 0])
    expected = ridge(masks[kept], losses[kept])
    np.testing.assert_array_equal(ridge(masks, some).values, expected.values)


def test_a_constant_loss_has_no_influence():
    estimate = ridge(masks_of(50, 6), np.ones((50, 6)))
    np.testing.assert_array_equal(estimate.values, 0)
    np.testing.assert_array_equal(estimate.standard_error, 0)


def test_losses_that_the_own_inclusion_explains_fully_yield_no_discoveries():
    masks = masks_of(300, 200)
    estimate = ridge(masks, -1.0 * masks, penalty=2000.0)
    np.testing.assert_allclose(np.diag(estimate.values), 1, atol=1e-5)
    values, errors = off_diagonal(estimate.values), off_diagonal(estimate.standard_error)
    assert np.abs(values).max() < 1e-5
    assert (np.abs(values) <= 6 * errors).all()


@pytest.mark.parametrize('penalty', [0.0, -1.0, float('nan'), float('inf')])
def test_penalties_that_are_not_positive_are_refused_in_one_line(penalty):
    with pytest.raises(ValueError, match='must be positive and finite') as error:
        ridge(masks_of(20, 4), noise(20, 4), penalty=penalty)
    assert '\n' not in str(error.value)


def test_an_empty_tile_is_refused():
    with pytest.raises(ValueError, match='tile=0 must be at least 1'):
        ridge.tiles(masks_of(20, 4), noise(20, 4), tile=0)
