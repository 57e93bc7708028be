"""LASSO: what it must equal, recover, cover and refuse."""

import jax.numpy as jnp
import numpy as np
import pytest
import reference

from influence_jax.estimators import difference_in_means, lasso, lasso_coefficients
from influence_jax.estimators.lasso_regression import _descend, _largest_eigenvalue
from influence_jax.estimators.self_influence import self_errors


def masks_of(members, examples, seed=0):
    return np.random.default_rng(seed).random((members, examples)) < 0.5


def noise(members, targets, seed=1):
    return np.random.default_rng(seed).normal(size=(members, targets))


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


@pytest.mark.parametrize('members', [20, 60])
def test_descent_equals_coordinate_descent(members):
    columns = reference.centred_columns(masks_of(members, 30))
    columns /= np.linalg.norm(columns, axis=0)
    losses = noise(members, 3) + columns[:, :3] * [4, -5, 0]
    penalties = np.tile([0.5, 1.0, 2.0], (30, 1))
    penalties[0, 0] = 0  # as that of a target's own example
    floats = jnp.asarray(columns, jnp.float32)
    found = _descend(
        floats,
        jnp.asarray(losses, jnp.float32),
        jnp.asarray(penalties, jnp.float32),
        jnp.zeros((30, 3)),
        jnp.full(3, 0.01),
        _largest_eigenvalue(floats),
    )
    for target in range(3):
        expected = reference.lasso_by_coordinate_descent(
            columns, losses[:, target], penalties[:, target]
        )
        np.testing.assert_allclose(found[:, target], expected, atol=5e-3)
        assert (expected == 0).sum() > 2


def test_the_largest_eigenvalue_is_not_undercut():
    columns = masks_of(40, 70) - 0.5
    exact = np.linalg.norm(columns, 2) ** 2
    assert exact < _largest_eigenvalue(jnp.asarray(columns, jnp.float32)) < 1.1 * exact


def test_values_are_the_loops_for_its_coefficients():
    masks = masks_of(100, 25)
    losses = 2 + noise(100, 25) - 2 * masks - 1.5 * np.roll(masks, 1, axis=1)
    estimate, coefficients = lasso(masks, losses), -lasso_coefficients(masks, losses)
    of_own = self_errors(masks, losses, np.arange(25))
    assert ((coefficients != 0).sum(axis=0) >= 2).all()
    assert (coefficients == 0).mean() > 0.3
    for target in range(25):
        values, errors = reference.debiased(masks, losses[:, target], coefficients[:, target])
        np.testing.assert_allclose(estimate.values[:, target], values, atol=1e-4)
        errors[target] = of_own.widening[target] * np.hypot(errors[target], of_own.unseen[target])
        np.testing.assert_allclose(estimate.standard_error[:, target], errors, rtol=1e-3)


def test_planted_influence_is_recovered_with_less_noise_from_fewer_members_than_examples():
    masks = masks_of(200, 300)
    truth = 3 * np.eye(300) + 2 * np.roll(np.eye(300), -1, axis=0)
    losses = noise(200, 300) - masks @ truth
    better, plain = lasso(masks, losses), difference_in_means(masks, losses)
    z = (better.values - truth) / better.standard_error
    assert 0.97 < z.std() < 1.03
    assert 0.94 < (np.abs(z) < 1.96).mean() < 0.96
    # The variance of a loss is 1 of noise + 9/4 + 4/4 of inclusion.
    noise_of = [off_diagonal(e.values - truth).var() for e in (better, plain)]
    assert 3 < noise_of[1] / noise_of[0] < 5
    # Shrunken coefficients are debiased, and what has none is not shrunken either.
    for strength in (3, 2):
        assert better.values[truth == strength].mean() == pytest.approx(strength, abs=0.05)


def test_effects_too_weak_for_a_coefficient_are_not_shrunken():
    masks = masks_of(300, 200)
    weak = np.random.default_rng(5).choice([-1, 0, 1], (200, 200), p=[0.05, 0.9, 0.05])
    truth = 0.1 * weak + 3 * np.roll(np.eye(200), 1, axis=0)
    estimate = lasso(masks, noise(300, 200) - masks @ truth)
    slope = (estimate.values * weak).sum() / (0.1 * np.square(weak).sum())
    # Of 4,000 effects of 0.1 with errors of 0.12: known to within 0.02.
    assert slope == pytest.approx(1, abs=0.06)


def test_null_data_is_covered_and_z_is_standard_normal():
    """Heavy-tailed losses, of which only the target's own inclusion lowers level and spread."""
    masks = masks_of(300, 200)
    losses = np.random.default_rng(2).gamma(1.5, size=(300, 200)) * np.where(masks, 0.1, 2)
    truth = np.diag(np.full(200, 1.5 * 1.9))
    estimate = lasso(masks, losses)
    z = off_diagonal(estimate.values - truth) / off_diagonal(estimate.standard_error)
    assert 0.97 < z.std() < 1.03
    assert 0.94 < (np.abs(z) < 1.96).mean() < 0.96
    own = np.diag(estimate.values - truth) / np.diag(estimate.standard_error)
    assert 0.85 < own.std() < 1.15


def test_without_influence_next_to_nothing_is_kept():
    masks, losses = masks_of(200, 40), noise(200, 40)
    nobody = np.full(40, -1)
    coefficients = lasso_coefficients(masks, losses, target_examples=nobody)
    none = np.flatnonzero((coefficients == 0).all(axis=0))
    assert len(none) > 10
    assert np.median((coefficients != 0).sum(axis=0)) <= 2
    estimate = lasso(masks, losses, target_examples=nobody)
    plain = difference_in_means(masks, losses, target_examples=nobody)
    np.testing.assert_allclose(estimate.values[:, none], plain.values[:, none], atol=1e-5)
    np.testing.assert_allclose(
        estimate.standard_error[:, none], plain.standard_error[:, none], rtol=1e-4
    )


def test_the_own_coefficient_is_neither_shrunken_nor_left_out():
    masks = masks_of(100, 25)
    losses = noise(100, 25) - 0.05 * masks
    own = np.diag(lasso_coefficients(masks, losses))
    assert (own != 0).all()
    np.testing.assert_allclose(own, np.diag(lasso(masks, losses).values), atol=0.02)


def test_coefficients_predict_new_masks():
    rng = np.random.default_rng(6)
    truth = np.where(rng.random((150, 30)) < 0.03, rng.normal(2, 1, (150, 30)), 0)
    masks, fresh = masks_of(120, 150), masks_of(500, 150, seed=7)
    losses = noise(120, 30) - masks @ truth
    coefficients = lasso_coefficients(masks, losses)
    assert coefficients.dtype == np.float32
    predicted = losses.mean(axis=0) - (fresh - masks.mean(axis=0)) @ coefficients
    wrong = np.square(predicted + fresh @ truth).mean()
    assert wrong < 0.35 * (fresh @ truth).var(axis=0).mean()


def test_it_converges_to_the_exact_expectation():
    """Ridge regression on 7 points, all 128 subsets: the exact values are known."""
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(7, 3)), rng.normal(size=7)
    every = np.array(reference.all_subsets(7), bool)
    losses = np.asarray(reference.ridge_losses(every, features, labels, penalty=1.0))
    exact = np.array([losses[~every[:, i]].mean(0) - losses[every[:, i]].mean(0) for i in range(7)])
    drawn = rng.integers(0, len(every), 20_000)
    estimate = lasso(every[drawn], losses[drawn])
    z = (estimate.values - exact) / estimate.standard_error
    assert np.abs(z).max() < 5
    assert estimate.standard_error.max() < 0.05 * np.abs(exact).max()


def test_permuting_examples_permutes_influence():
    masks = masks_of(100, 25)
    losses = noise(100, 25) - 2 * masks
    order = np.random.default_rng(4).permutation(25)
    first, second = lasso(masks, losses), lasso(masks[:, order], losses[:, order])
    np.testing.assert_allclose(
        second.values, first.values[order][:, order], atol=0.05 * first.standard_error.min()
    )


def test_examples_that_go_together_have_the_effect_of_both():
    masks = masks_of(300, 10)
    masks[:, 1] = masks[:, 0]
    losses = noise(300, 2) - 4 * masks[:, :1]
    estimate, coefficients = lasso(masks, losses), lasso_coefficients(masks, losses)
    assert np.isfinite(estimate.values).all() and np.isfinite(estimate.standard_error).all()
    np.testing.assert_array_equal(estimate.values[0], estimate.values[1])
    np.testing.assert_allclose(estimate.values[0], 4, atol=0.5)
    np.testing.assert_allclose(coefficients[:2].sum(axis=0), 4, atol=1)


def test_tiles_are_the_whole():
    masks = masks_of(100, 25)
    losses = noise(100, 25) - masks
    estimate = lasso(masks, losses)
    for columns, block in lasso.tiles(masks, losses, tile=10):
        tolerance = 0.05 * estimate.standard_error[:, columns].min()
        np.testing.assert_allclose(block.values, estimate.values[:, columns], atol=tolerance)


def test_members_that_are_missing_are_left_out():
    masks = masks_of(100, 10)
    losses = noise(100, 10) - masks
    some = losses.copy()
    some[::7] = np.nan
    kept = np.isfinite(some[:, 0])
    expected = lasso(masks[kept], losses[kept])
    np.testing.assert_array_equal(lasso(masks, some).values, expected.values)


def test_a_constant_loss_has_no_influence():
    estimate = lasso(masks_of(100, 25), np.ones((100, 25)))
    np.testing.assert_array_equal(estimate.values, 0)
    np.testing.assert_array_equal(estimate.standard_error, 0)


def test_losses_that_the_own_inclusion_explains_fully_keep_nothing_else():
    masks = masks_of(100, 25)
    coefficients = lasso_coefficients(masks, -1.0 * masks)
    np.testing.assert_allclose(coefficients, np.eye(25), atol=1e-5)
    assert (off_diagonal(coefficients) == 0).all()


def test_an_empty_tile_is_refused():
    with pytest.raises(ValueError, match='tile=0 must be at least 1'):
        lasso.tiles(masks_of(20, 4), noise(20, 4), tile=0)
