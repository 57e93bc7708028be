"""Posteriors with and without scores: planted truths, coverage, useless scores, tiles, refusals."""

import numpy as np
import pytest
import scipy

from influence_jax.estimators import (
    Columns,
    adjusted,
    assisted,
    credible_intervals,
    joint_margin,
    odds,
    prior,
    shrunk,
    summarize,
    with_scores,
)

N = 120
HAZE = 0.12


@pytest.fixture(scope='module')
def planted():
    """Masks, losses, true influences and scores: few entries of a column are large.

    Losses have pair interactions of examples, and the own example takes away half of what others
    do. True influences are means over all subsets.
    """
    return plant(members=160)


def plant(*, members, seed=0, interactions=True, noise=1.5):
    generator = np.random.default_rng(seed)
    masks = generator.random((members, N)) < 0.5
    effects = generator.normal(size=(N, N)) * HAZE
    strong = generator.random((N, N)) < 0.03
    effects += strong * np.abs(generator.standard_t(4, size=(N, N))) * 0.5
    np.fill_diagonal(effects, 0)
    inside = masks.astype(float)
    losses = 2 - inside @ effects
    truth = effects.copy()
    if interactions:
        losses = 2 - (inside @ effects) * (1 - 0.5 * inside)  # half where the target is inside
        truth = 0.75 * effects + np.diag(-0.5 * 0.5 * effects.sum(axis=0))
        for target in range(N):
            a, b = generator.choice(np.setdiff1d(np.arange(N), [target]), 2, replace=False)
            losses[:, target] -= 0.4 * inside[:, a] * inside[:, b]
            truth[[a, b], target] += 0.2
    losses -= inside
    truth += np.eye(N)
    losses += noise * generator.normal(size=losses.shape)
    scores = 7 * (effects + 0.15 * generator.normal(size=effects.shape))
    return masks, losses, truth, scores


def off_diagonal(matrix):
    return np.asarray(matrix)[~np.eye(len(matrix), dtype=bool)]


def error(estimate, truth):
    return np.sqrt(np.square(off_diagonal(estimate - truth)).mean())


def test_each_knows_more_than_the_one_before(planted):
    masks, losses, truth, scores = planted
    of_members = error(adjusted(masks, losses).values, truth)
    of_prior = error(shrunk(masks, losses).values, truth)
    of_both = error(assisted(masks, losses, scores).values, truth)
    assert of_prior < 0.5 * of_members
    assert of_both < 0.8 * of_prior


def test_scores_choose_weak_influencers_that_the_members_alone_do_not_show(planted):
    masks, losses, truth, scores = planted
    weak = (off_diagonal(truth) > 0.15) & (off_diagonal(truth) < 0.3)
    alone = off_diagonal(shrunk(masks, losses).values)[weak].mean()
    together = off_diagonal(assisted(masks, losses, scores).values)[weak].mean()
    assert together > 1.5 * alone


@pytest.mark.slow
@pytest.mark.parametrize('members', [100, 200])
@pytest.mark.parametrize('helped', [False, True], ids=['shrunk', 'assisted'])
def test_credible_intervals_cover_planted_truths_with_interactions(members, helped):
    covered = []
    for seed in range(3):
        masks, losses, truth, scores = plant(members=members, seed=seed)
        ((_, of),) = credible_intervals(masks, losses, scores if helped else None)
        covered.append(off_diagonal((of.low <= truth) & (truth <= of.high)))
    assert 0.93 < np.mean(covered) < 0.97


def test_intervals_of_large_estimates_cover_too(planted):
    masks, losses, truth, scores = planted
    ((_, of),) = credible_intervals(masks, losses, scores)
    large = off_diagonal(of.values) > 0.3
    held = off_diagonal((of.low <= truth) & (truth <= of.high))[large]
    assert large.sum() > 100
    assert held.mean() > 0.88


def test_wider_intervals_for_more_confidence_and_values_as_estimated(planted):
    masks, losses, _, scores = planted
    ((_, usual),) = credible_intervals(masks, losses, scores)
    ((_, wider),) = credible_intervals(masks, losses, scores, level=0.99)
    assert (wider.low <= usual.low + 1e-6).all() and (wider.high >= usual.high - 1e-6).all()
    np.testing.assert_array_equal(usual.values, assisted(masks, losses, scores).values)
    with pytest.raises(ValueError, match=r'level=95'):
        credible_intervals(masks, losses, level=95)


@pytest.mark.parametrize('members', [40, 160])
def test_permuted_scores_are_no_worse_than_none(members):
    worse = []
    for seed in range(3):
        masks, losses, truth, scores = plant(members=members, seed=seed)
        permuted = np.random.default_rng(seed).permutation(scores)
        alone = error(shrunk(masks, losses).values, truth)
        worse.append(error(assisted(masks, losses, permuted).values, truth) / alone)
    assert np.mean(worse) < 1.01
    assert np.median(worse) == 1  # what says nothing is left out


def test_a_useless_score_beside_a_useful_one_takes_little_away(planted):
    masks, losses, truth, scores = planted
    useless = np.random.default_rng(5).normal(size=scores.shape)
    alone = error(assisted(masks, losses, scores).values, truth)
    both = error(assisted(masks, losses, {'good': scores, 'useless': useless}).values, truth)
    assert both < 1.03 * alone


def test_two_scores_say_more_than_one(planted):
    masks, losses, truth, scores = planted
    other = scores + 7 * 0.15 * np.random.default_rng(6).normal(size=scores.shape)
    third = 7 * truth + 7 * 0.15 * np.random.default_rng(7).normal(size=scores.shape)
    assert error(
        assisted(masks, losses, {'one': other, 'two': third}).values, truth
    ) < 0.95 * error(assisted(masks, losses, other).values, truth)


def test_the_unit_of_scores_does_not_matter_and_influence_has_that_of_the_losses(planted):
    masks, losses, _, scores = planted
    usual = assisted(masks, losses, scores)
    scaled = assisted(masks, losses, 1e4 * scores + 3)
    np.testing.assert_allclose(scaled.values, usual.values, rtol=1e-3, atol=1e-4)
    larger = assisted(masks, 100 * losses, scores)
    np.testing.assert_allclose(larger.values / 100, usual.values, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        larger.standard_error / 100, usual.standard_error, rtol=1e-3, atol=1e-4
    )


def test_self_influence_is_that_of_the_ensemble(planted):
    masks, losses, _, scores = planted
    np.testing.assert_allclose(
        np.diag(shrunk(masks, losses).values), np.diag(adjusted(masks, losses).values), rtol=1e-5
    )
    changed = scores + np.diag(np.full(N, 1e3))
    np.testing.assert_array_equal(
        assisted(masks, losses, changed).values, assisted(masks, losses, scores).values
    )


def test_tiles_are_the_whole_and_single_columns_those_of_it(planted):
    masks, losses, _, scores = planted
    estimator = with_scores(scores)
    whole = estimator(masks, losses)
    for columns, block in estimator.tiles(masks, losses, tile=50):
        np.testing.assert_allclose(block.values, whole.values[:, columns], rtol=1e-3, atol=1e-4)
    some = Columns.of_estimate(estimator, masks, losses).column(np.array([70, 3]))
    np.testing.assert_array_equal(some.values, whole.values[:, [70, 3]])


def test_the_same_arguments_give_the_same_numbers(planted):
    masks, losses, _, scores = planted
    for one, other in zip(
        assisted(masks, losses, scores), assisted(masks, losses, scores), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_examples_in_another_order_have_the_same_influence(planted):
    masks, losses, _, scores = planted
    order = np.random.default_rng(0).permutation(N)
    usual = assisted(masks, losses, scores, target_examples=np.arange(N))
    moved = assisted(masks[:, order], losses, scores[order], target_examples=np.argsort(order))
    np.testing.assert_allclose(moved.values, usual.values[order], rtol=1e-2, atol=2e-3)


def test_columns_are_scores_too_and_summaries_and_reports_take_the_estimator(planted):
    masks, losses, _, scores = planted
    estimator = with_scores({'cosine': Columns.of_matrix(scores, name='cosine')})
    np.testing.assert_array_equal(
        estimator(masks, losses).values, assisted(masks, losses, scores.astype(np.float32)).values
    )
    found = summarize(masks, losses, estimator=estimator, tile=50)
    assert found.estimator.name == 'assisted' and 'cosine' in found.estimator.description
    np.testing.assert_allclose(
        found.self_influence, np.diag(estimator(masks, losses).values), rtol=1e-3
    )


def test_targets_that_are_no_examples_have_no_own_entry(planted):
    masks, losses, truth, scores = planted
    none = np.full(20, -1)
    found = assisted(masks, losses[:, :20], scores[:, :20], target_examples=none)
    assert found.values.shape == (N, 20) and np.isfinite(found.values).all()
    own = found.values[np.arange(20), np.arange(20)]
    assert abs(own.mean() - truth[:20, :20].diagonal().mean()) < 0.3


def test_a_constant_target_has_no_influences(planted):
    masks, losses, _, scores = planted
    losses = losses.copy()
    losses[:, 7] = 2.5
    found = assisted(masks, losses, scores)
    assert (found.values[:, 7] == 0).all() and np.isfinite(found.standard_error).all()


def test_few_members_are_enough():
    masks, losses, truth, scores = plant(members=24)
    assert error(assisted(masks, losses, scores).values, truth) < error(0 * truth, truth)
    with pytest.raises(ValueError, match='23'):
        assisted(masks[1:], losses[1:], scores)


def test_refusals_name_what_is_wrong(planted):
    masks, losses, _, scores = planted
    with pytest.raises(ValueError, match=r"'mine' are \[119 120\].*\[120 120\]"):
        assisted(masks, losses, {'mine': scores[1:]})
    broken = scores.copy()
    broken[5, 17] = np.nan
    with pytest.raises(ValueError, match=r"'mine' of example 5 for target 17 are nan"):
        assisted(masks, losses, {'mine': broken})
    with pytest.raises(ValueError, match='empty'):
        with_scores({})


def test_normal_z_is_as_far_out_as_students_t():
    import scipy.stats

    t = np.array([-6.0, -2, 0.5, 3, 9])
    expected = np.sign(t) * scipy.stats.norm.isf(scipy.stats.t(22).sf(np.abs(t)))
    np.testing.assert_allclose(prior.normal_z(t, freedom=22), expected, rtol=2e-3)


def test_the_mixture_is_found_and_its_quantiles_are_those_of_draws():
    generator = np.random.default_rng(0)
    count = 200_000
    large = generator.random(count) < 0.05
    true = np.where(large, 4 * generator.normal(size=count), 0)
    halves = true + np.sqrt(2) * generator.normal(size=(2, count))
    z = halves.mean(axis=0)
    histogram = odds.Histogram(np.zeros(count))
    for some in (slice(0, 1000), slice(1000, count)):
        histogram.add(histogram.counts(np.zeros(some.stop - some.start), z[some], halves[:, some]))
    found = histogram.odds()
    assert abs(found.weights[0, 0] - 0.95) < 0.02
    near = np.abs(z - 3) < 0.1
    at = np.zeros(1), np.array([3.0])
    mean, deviation = found.moments(*at)
    assert abs(mean[0] - true[near].mean()) < 0.1
    assert abs(deviation[0] - true[near].std()) < 0.1
    assert abs(found.quantile(*at, 0.975)[0] - np.quantile(true[near], 0.975)) < 0.2


@pytest.mark.parametrize('count', [2_359_833, 2_359_834, 2_400_000])
def test_far_out_entries_have_a_posterior_where_almost_all_are_noise(count):
    """Weights of wide slabs fall to the least that float64 can say, and were 0 in products."""
    means, z = np.linspace(-1, 1, 2001), np.sinh(odds._CELLS)
    cells = (np.diff(scipy.special.ndtr(z)) * count).round().astype(int)
    cells[np.searchsorted(z, 6.0)] += 1
    histogram = odds.Histogram(means)
    bins = len(histogram.edges) + 1
    of_bins = np.tile(cells, (bins, 1))
    squares = np.full(bins, 2.0 * count)
    histogram.add(odds.Counts(of_bins, of_bins.sum(axis=1), np.ones(bins), squares))
    assert np.isfinite(histogram.odds().tabulated().table).all()


def test_moments_read_off_a_table_are_those_of_the_mixture():
    generator = np.random.default_rng(0)
    # Bins of a spike alone, of few and of many wide slabs; the widest is in one of them alone.
    weights = np.array([[1, 0, 0, 0], [0.989999, 1e-6, 0.01, 0], [0.5, 0.2, 0.2, 0.1]])
    variances = np.tile([0.2, 2.0, 64.0, 65536.0], (3, 1))
    exact = odds.Odds(
        np.array([-0.1, 0.3]), weights / weights.sum(axis=1, keepdims=True), variances
    )
    means = generator.normal(size=(300, 400)).astype(np.float32)
    z = generator.choice([1, 5, 50, 3000], size=means.shape) * generator.normal(size=means.shape)
    means[0, :3], z[0, :2] = (-0.1, 0.3, 0), (0, 1e-20)
    table = exact.tabulated()
    at = table.edges.astype(np.float64)  # between which bins are, as the table has them
    mean, deviation = exact._replace(edges=at).moments(means, z)
    assert np.isfinite(mean).all() and np.isfinite(deviation).all()
    found = table.moments(means, z)
    np.testing.assert_allclose(found[0], mean, atol=2e-5 * deviation.max(), rtol=2e-5)
    np.testing.assert_allclose(found[1], deviation, rtol=2e-5)


def test_a_joint_margin_is_the_mean_of_ranks():
    first, second = np.array([9.0, 1, 4, np.inf]), np.array([2.0, 1, np.nan, 7])
    np.testing.assert_allclose(joint_margin(first), [0.75, 0.25, 0.5, 1])
    np.testing.assert_allclose(joint_margin(first, second), [0.625, 0.25, 0.75, 0.875])
    with pytest.raises(ValueError, match=r'\[3, 4\]'):
        joint_margin(first, second[1:])
