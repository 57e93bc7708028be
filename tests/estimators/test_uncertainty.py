"""Intervals, p-values and false discoveries, against known answers and on null data."""

import numpy as np
import pytest
import reference
import scipy.stats

from influence_jax.estimators import (
    BUILT_IN,
    benjamini_hochberg,
    difference_in_means,
    floored_margin,
    intervals,
    lasso,
    p_values,
    selected_intervals,
    shrunk,
    summarize,
    z_margin,
    z_scores,
)
from influence_jax.estimators.ensemble import average_repeats


def ensemble(members=400, examples=60, seed=0):
    generator = np.random.default_rng(seed)
    masks = generator.random((members, examples)) < 0.5
    return masks, generator.gamma(1.5, size=(members, examples))


def test_p_values_are_those_of_students_t():
    z = np.array([0.0, 1.5, -4.0, np.nan])
    expected = [2 * scipy.stats.t(18).cdf(-abs(x)) for x in z]
    np.testing.assert_allclose(p_values(z, members=20), expected)


def test_z_of_no_error_is_infinite_and_of_nothing_undefined():
    np.testing.assert_array_equal(
        z_scores(np.array([1.0, -1, 0]), np.zeros(3)), [np.inf, -np.inf, np.nan]
    )


def test_a_posterior_of_null_data_is_near_zero_and_its_intervals_hold_zero():
    masks, losses = ensemble(examples=150)
    none = np.full(150, -1)
    found = shrunk(masks, losses, target_examples=none)
    low, high = intervals(found, members=400)
    assert ((low <= 0) & (high >= 0)).mean() > 0.94
    plain = difference_in_means(masks, losses, target_examples=none)
    assert found.values.std() < 0.5 * plain.values.std()


@pytest.mark.parametrize('estimator', [one for one in BUILT_IN if one is not shrunk])
def test_intervals_cover_and_z_is_standard_normal_on_null_data(estimator):
    masks, losses = ensemble(examples=150)
    none = np.full(150, -1)
    found = estimator(masks, losses, target_examples=none)
    low, high = intervals(found, members=400)
    assert 0.94 < ((low <= 0) & (high >= 0)).mean() < 0.96
    assert 0.97 < z_scores(*found).std() < 1.03


def test_wider_intervals_for_more_confidence():
    found = difference_in_means(*ensemble())
    low, high = intervals(found, members=400, level=0.95)
    lower, higher = intervals(found, members=400, level=0.99)
    assert (lower < low).all() and (higher > high).all()


def test_intervals_of_all_that_was_tested_are_the_usual_ones_and_of_few_are_wider():
    values, errors = np.array([1.0, -2]), np.array([0.5, 0.1])
    usual = values - scipy.stats.t(48).ppf(0.975) * errors
    low, _ = selected_intervals(values, errors, members=50, selected=7, candidates=7)
    np.testing.assert_allclose(low, usual)
    low, high = selected_intervals(values, errors, members=50, selected=1, candidates=100)
    np.testing.assert_allclose(high - low, 2 * scipy.stats.t(48).ppf(1 - 0.00025) * errors)


def test_benjamini_hochberg_equals_the_loops():
    generator = np.random.default_rng(0)
    p = np.concatenate([generator.random(300), generator.random(40) * 1e-3])
    generator.shuffle(p)
    np.testing.assert_array_equal(
        benjamini_hochberg(p, level=0.1), reference.benjamini_hochberg(p, 0.1)
    )
    smallest = np.sort(p)[:60]
    found = benjamini_hochberg(smallest, level=0.1, tests=340)
    assert found.sum() == benjamini_hochberg(p, level=0.1).sum()


@pytest.mark.parametrize('estimator', BUILT_IN)
def test_false_discoveries_stay_below_their_level(estimator):
    """Each target is influenced by itself and by the next five; all else is null."""
    shares, powers = [], []
    for seed in range(4):
        masks, losses = ensemble(members=500, examples=50, seed=seed)
        true = np.zeros((50, 50), bool)
        for step in range(6):
            example = (np.arange(50) + step) % 50
            losses = losses - 0.8 * masks[:, example]
            true[example, np.arange(50)] = True
        pairs = summarize(masks, losses, estimator=estimator, false_discoveries=0.1).pairs
        assert (pairs.examples != pairs.targets).all()
        assert (np.diff(pairs.p_values) >= 0).all()
        right = true[pairs.examples, pairs.targets]
        shares.append(1 - right.mean())
        powers.append(right.sum() / (true.sum() - 50))
    assert np.mean(shares) < 0.14
    assert np.mean(powers) > 0.5


@pytest.mark.parametrize('estimator', BUILT_IN)
def test_pairs_are_those_of_the_whole_matrix(estimator):
    masks, losses = ensemble(members=300, examples=40)
    losses = losses - masks - np.roll(masks, 1, axis=1)
    whole = estimator(masks, losses)
    p = p_values(z_scores(*whole), members=300)
    np.fill_diagonal(p, np.nan)
    expected = benjamini_hochberg(p, tests=40 * 39 + 40) & ~np.eye(40, dtype=bool)
    pairs = summarize(masks, losses, estimator=estimator).pairs
    assert pairs.tests == 40 * 39 and pairs.complete
    found = np.zeros((40, 40), bool)
    found[pairs.examples, pairs.targets] = True
    # The diagonal is no test of its own: one test more or less decides of few pairs.
    assert (found != expected).sum() <= 2
    np.testing.assert_allclose(
        pairs.values, whole.values[pairs.examples, pairs.targets], rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        pairs.standard_errors, whole.standard_error[pairs.examples, pairs.targets], rtol=1e-3
    )
    sparse = pairs.matrix(examples=40, targets=40).toarray()
    np.testing.assert_array_equal(sparse != 0, found)


@pytest.mark.parametrize('estimator', BUILT_IN)
def test_a_summary_is_that_of_the_whole_matrix(estimator):
    masks, losses = ensemble(members=200, examples=30)
    losses = losses - masks - np.roll(masks, 1, axis=1)
    whole = estimator(masks, losses)
    found = summarize(masks, losses, estimator=estimator, top_k=5, tile=7)
    assert found.estimator is estimator
    # LASSO is iterated to a tolerance, by blocks.
    close = {'rtol': 1e-3, 'atol': 5e-4 if estimator is lasso else 2e-5}
    np.testing.assert_allclose(found.self_influence, np.diag(whole.values), **close)
    np.testing.assert_allclose(found.self_standard_error, np.diag(whole.standard_error), **close)
    top = reference.top_influencers(whole.values, 5)
    np.testing.assert_array_equal(found.top_examples, top)
    np.testing.assert_allclose(
        found.top_z, z_scores(*whole)[top, np.arange(30)[:, None]], rtol=5e-3, atol=1e-3
    )
    np.testing.assert_array_equal(
        found.bottom_examples, reference.top_influencers(-whole.values, 5)
    )
    np.testing.assert_allclose(found.mean, whole.values.mean(axis=0), atol=5e-5)
    np.testing.assert_allclose(found.standard_deviation, whole.values.std(axis=0), rtol=1e-3)
    np.testing.assert_allclose(
        found.quantiles, np.quantile(whole.values, found.quantile_levels, axis=0).T, **close
    )


def test_floored_and_z_margins():
    largest, second = np.array([3.0, 3, -1]), np.array([0.1, 2, -2])
    np.testing.assert_allclose(floored_margin(largest, second, 0.5), [6, 1.5, np.nan])
    np.testing.assert_allclose(
        z_margin(largest, second, np.full(3, 0.3), np.full(3, 0.4)), [5.8, 2, 2]
    )
    with pytest.raises(ValueError, match='must be positive'):
        floored_margin(largest, second, 0.0)


def test_repeats_of_a_mask_are_averaged_and_chance_is_not_taken_for_one():
    generator = np.random.default_rng(0)
    masks = generator.random((30, 50)) < 0.5
    losses = generator.normal(size=(3, 30, 4))
    order = generator.permutation(90)
    some = difference_in_means(np.tile(masks, (3, 1))[order], losses.reshape(90, 4)[order])
    averaged = difference_in_means(masks, losses.mean(axis=0))
    np.testing.assert_allclose(some.values, averaged.values, atol=1e-6)
    np.testing.assert_allclose(some.standard_error, averaged.standard_error, rtol=1e-5)
    groups = np.repeat(generator.random((200, 5)) < 0.5, 20, axis=1)  # 5 draws of 100 examples
    assert len(average_repeats(groups, np.zeros((200, 1)))[0]) == 200
    few = generator.random((200, 5)) < 0.5  # 32 subsets among 200 members
    assert len(average_repeats(few, np.zeros((200, 1)))[0]) == 200


@pytest.mark.parametrize('level', [0.0, 1.0, -0.1])
def test_levels_outside_of_0_to_1_are_refused(level):
    with pytest.raises(ValueError, match='strictly between 0 and 1'):
        intervals(difference_in_means(*ensemble()), members=400, level=level)
    with pytest.raises(ValueError, match='strictly between 0 and 1'):
        benjamini_hochberg(np.array([0.1]), level=level)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match='fewer than the 2 p-values'):
        benjamini_hochberg(np.array([0.1, 0.2]), tests=1)
    few = {'members': 20, 'selected': 3, 'candidates': 2}
    with pytest.raises(ValueError, match='selected=3'):
        selected_intervals(np.zeros(3), np.ones(3), **few)
    with pytest.raises(ValueError, match='level=0'):
        selected_intervals(np.zeros(3), np.ones(3), members=20, selected=3, candidates=9, level=0)
    with pytest.raises(ValueError, match='use at least 3'):
        p_values(np.array([1.0]), members=2)
