"""The judge on planted truths: scores, ceilings and everything else come out as they must."""

import jax
import numpy as np
import pytest
import scipy.stats

from influence_jax.analysis import judge
from influence_jax.analysis.judge.ceiling import ceilings
from influence_jax.estimators import Columns, adjusted, difference_in_means, ridge, summarize
from influence_jax.estimators.estimator import Method

KEY = jax.random.key(0)
N = 80


def planted(*, noise=1.0, interactions=0.0, members=300, masks=40, repeats=6, seed=0):
    """Losses linear in the mask but for a known part of their variance, which pairs make."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(N, N)) / np.sqrt(N)
    pairs = generator.normal(size=(N // 2, N)) / np.sqrt(N // 2)
    first, second = generator.permutation(N).reshape(2, -1)

    def losses(subsets):
        x = 2.0 * subsets - 1
        linear, joint = x @ weights, (x[:, first] * x[:, second]) @ pairs
        clean = -(np.sqrt(1 - interactions) * linear + np.sqrt(interactions) * joint)
        return (clean + noise * generator.normal(size=clean.shape)).astype(np.float32)

    estimating = generator.random((members, N)) < 0.5
    judging = np.repeat(generator.random((masks, N)) < 0.5, repeats, axis=0)
    held_out = judge.held_out_members(judging, losses(judging))
    return weights.astype(np.float32), judge.Split(estimating, losses(estimating), held_out)


def drawn(masks, targets=N, resamples=100):
    return judge.Resamples.draw(KEY, masks=masks, groups=np.arange(targets), resamples=resamples)


@pytest.mark.parametrize(('noise', 'interactions'), [(1.0, 0.0), (2.0, 0.0), (1.0, 0.6)])
def test_true_coefficients_reach_the_ceilings_that_were_planted(noise, interactions):
    weights, split = planted(noise=noise, interactions=interactions)
    own, resamples = np.arange(N), drawn(len(split.held_out.masks))
    predicted = judge.predictions(Columns.of_matrix(weights), split.held_out.masks)
    left_out = split.held_out.without(own)
    lds = judge.rank_agreement(predicted, split.held_out.mean, left_out, resamples).mean
    found = ceilings(split.held_out, *split[:2], own, resamples=resamples, key=KEY)
    reachable = np.sqrt(1 / (1 + noise**2 / split.held_out.repeats))
    assert found.any.value == pytest.approx(reachable, abs=0.04)
    assert found.linear.value == pytest.approx(reachable * np.sqrt(1 - interactions), abs=0.08)
    assert found.linear_share.value == pytest.approx(1 - interactions, abs=0.15)
    low, high = lds.over(found.linear).interval()[1:]
    assert low < 1.02
    assert high > 0.93
    assert lds.over(found.any).value == pytest.approx(np.sqrt(1 - interactions), abs=0.08)
    wrong = judge.predictions(Columns.of_matrix(-weights), split.held_out.masks)
    assert judge.rank_agreement(
        wrong, split.held_out.mean, left_out, resamples
    ).mean.value == pytest.approx(-lds.value)


def test_agreement_is_spearmans_over_the_masks_that_count():
    generator = np.random.default_rng(0)
    first = generator.integers(0, 5, (20, 7)).astype(float)  # with ties
    second, counted = generator.normal(size=(20, 7)), generator.random((20, 7)) < 0.6
    resamples = drawn(20, 7)
    found = judge.rank_agreement(first, second, counted, resamples)
    for target, value in enumerate(found.per_target):
        some = counted[:, target]
        expected = scipy.stats.spearmanr(first[some, target], second[some, target])[0]
        assert value == pytest.approx(expected, abs=1e-6)
    # A resample is the same with masks and targets written as often as they were drawn.
    each = []
    for target in range(7):
        times = resamples.masks[3].astype(int) * counted[:, target]
        each.append(
            scipy.stats.spearmanr(
                np.repeat(first[:, target], times), np.repeat(second[:, target], times)
            )[0]
        )
    expected = np.average(each, weights=resamples.targets[3])
    assert found.mean.draws[3] == pytest.approx(expected, abs=1e-6)


def test_constant_predictions_count_as_zero_and_constant_measurements_not_at_all():
    generator = np.random.default_rng(0)
    masks = np.array([generator.permutation(N) < N // 2 for _ in range(12)])  # of equal size
    scores = generator.normal(size=(N, 3)).astype(np.float32)
    scores[:, 1] = 0.1  # every sum the same, rounding aside
    measured = -(masks @ scores.astype(np.float64))
    measured[:, 1] = generator.normal(size=12)
    measured[:, 2] = 5
    predicted = judge.predictions(Columns.of_matrix(scores), masks)
    assert np.ptp(predicted[:, 1]) == 0
    found = judge.rank_agreement(predicted, measured, np.ones((12, 3), bool), drawn(12, 3))
    assert (found.constant, found.targets) == (1, 2)
    np.testing.assert_allclose(found.per_target, [1, 0, np.nan], atol=1e-6)
    assert found.mean.value == pytest.approx(0.5)


def test_intervals_of_pure_noise_cover_zero():
    covered = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        first, second = generator.normal(size=(2, 24, 30))
        resamples = judge.Resamples.draw(
            jax.random.key(seed), masks=24, groups=np.arange(30), resamples=100
        )
        found = judge.rank_agreement(first, second, np.ones((24, 30), bool), resamples).mean
        covered += found.interval().low <= 0 <= found.interval().high
    assert covered >= 17


def test_degree_one_weight_has_no_bias():
    generator = np.random.default_rng(1)
    coefficients = generator.normal(size=12)
    own = np.array([0, -1])
    found = []
    for _ in range(300):
        masks = generator.random((30, 12)) < 0.3
        x = (masks - 0.3) / np.sqrt(0.21)
        losses = x @ coefficients + 2 * x[:, 3] * x[:, 4] + generator.normal(size=30) + 0.5
        found.append(judge.degree_one_weight(masks, np.stack([losses, losses], axis=1), own))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(300)
    squares = coefficients**2
    expected = [squares[1:].sum(), squares.sum()]
    assert (np.abs(mean - expected) < 4 * error).all()


def test_members_that_share_a_mask_are_repeats():
    generator = np.random.default_rng(0)
    masks = np.repeat(generator.random((10, 40)) < 0.5, 3, axis=0)
    losses = generator.normal(size=(30, 5)).astype(np.float32)
    losses[4] = np.nan  # one diverged: its mask has a repeat less, and is left out
    found = judge.held_out_members(masks, losses)
    assert found.measured.shape == (9, 3, 5)
    np.testing.assert_array_equal(found.masks, masks[[0, *range(6, 30, 3)]])
    np.testing.assert_array_equal(found.measured[1], losses[6:9])
    without = found.without(np.array([2, -1, 0, 1, 3]))
    np.testing.assert_array_equal(without[:, 0], ~found.masks[:, 2])
    assert without[:, 1].all()
    with pytest.raises(ValueError, match='8'):
        judge.held_out_members(masks[:21], losses[:21])


def test_the_last_masks_are_held_out_and_no_member_of_theirs_estimates():
    generator = np.random.default_rng(0)
    masks = np.repeat(generator.random((40, N)) < 0.5, 2, axis=0)
    losses = generator.normal(size=(80, 5)).astype(np.float32)
    split = judge.hold_out_last(masks, losses)
    np.testing.assert_array_equal(split.held_out.masks, masks[60::2])
    np.testing.assert_array_equal(split.masks, masks[:60])
    again = judge.split_by(masks[30:], losses[30:], split.held_out)
    np.testing.assert_array_equal(again.masks, masks[30:60])
    with pytest.raises(ValueError, match='16'):
        judge.hold_out_last(masks[:20], losses[:20])
    with pytest.raises(ValueError, match='none is left'):
        judge.split_by(masks[60:], losses[60:], split.held_out)


def test_an_ensemble_is_worth_its_own_size():
    weights, split = planted(members=128, noise=0.5)
    of = judge.Judge(split, np.arange(N), KEY, resamples=50)
    assert list(of.curve.members) == [16, 32, 64, 128]
    half = judge.estimate(split.masks[:64], split.losses[:64], np.arange(N))
    row = of(half)
    assert row.worth.members == pytest.approx(64, rel=0.3)
    assert row.worth.low < row.worth.members < row.worth.high
    assert str(of(Columns.of_matrix(weights)).worth) == 'more than 128'
    noise = np.random.default_rng(5).normal(size=(N, N)).astype(np.float32)
    assert str(of(Columns.of_matrix(noise)).worth) == 'fewer than 16'
    # Far below any ensemble in agreement, too, while the truth reaches the reliability's ceiling.
    assert of(Columns.of_matrix(weights)).ensemble.over_reliability == pytest.approx(1, abs=0.1)
    assert of(Columns.of_matrix(noise)).ensemble.spearman == pytest.approx(0, abs=0.05)
    assert row.ensemble is None  # an estimate from the same members


def test_masks_without_repeats_have_no_ceiling_but_a_score():
    weights, split = planted(repeats=1, members=30)
    of = judge.Judge(split, np.arange(N), KEY, resamples=50)
    row = of(Columns.of_matrix(weights))
    assert of.ceilings is None
    assert (row.over_any, row.over_linear) == (None, None)
    assert row.lds.mean.value > 0.5


def test_small_ensembles_say_nothing_of_examples_that_they_cannot_estimate():
    _, split = planted(members=16)
    masks = split.masks.copy()
    masks[:, 3] = True
    columns = judge.estimate(masks, split.losses, np.arange(N))
    values = columns.column(np.arange(N)).values
    assert not values[3].any()
    known = np.delete(np.arange(N), 3)
    direct = difference_in_means(masks[:, known], split.losses[:, known])
    np.testing.assert_allclose(values[np.ix_(known, known)], direct.values, rtol=1e-5, atol=1e-6)


def test_near_duplicates_are_found_by_low_margins():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), [2] * 20 + [1] * 40)
    same = groups[:, None] == groups
    scores = (same + 0.02 * generator.random((80, 80))).astype(np.float32)

    def judged(values):
        summary = summarize(Columns.of_matrix(values), target_examples=np.arange(80), top_k=2)
        return judge.near_duplicate_scores(summary, groups, np.arange(80), key=KEY)

    found = judged(scores)
    assert found.auroc.value == found.average_precision.value == found.twin_first == 1
    noise = judged(generator.random((80, 80)).astype(np.float32))
    assert noise.auroc.low < 0.5 < noise.auroc.high
    assert noise.twin_first < 0.2
    summary = summarize(Columns.of_matrix(scores), target_examples=np.arange(80), top_k=2)
    assert judge.near_duplicate_scores(summary, np.arange(80), np.arange(80), key=KEY) is None


def test_wrong_labels_are_found_by_self_influence():
    wrong = np.arange(100) < 10
    values = np.where(wrong, 1.0, 0.0) + np.linspace(0, 0.5, 100)
    found = judge.mislabel_scores(values, wrong, key=KEY)
    assert found.auroc.value == 1
    assert found.found == (1, 1)
    half = np.where(np.arange(100) < 5, 1.0, np.linspace(0.5, 0, 100))
    assert judge.mislabel_scores(-half, wrong, key=KEY).found == (0, 0)
    assert judge.mislabel_scores(half, wrong, key=KEY).found[0] == 1
    assert judge.mislabel_scores(values, np.zeros(100, bool), key=KEY) is None


def test_wrong_labels_are_found_by_high_margins_too():
    _, split = planted(members=20, repeats=2)
    wrong = np.arange(N) % 10 == 3
    values = np.full((N, N), 0.1, np.float32)
    values[np.diag_indices(N)] = 1 + wrong  # all others are alike: the margin is that of the self
    of = judge.Judge(split, np.arange(N), KEY, mislabelled=wrong, resamples=10)
    row = of(Columns.of_matrix(values))
    assert row.mislabels.auroc.value == row.mislabels_by_margin.auroc.value == 1
    assert row.mislabels.found == (1, 1)
    assert row.near_duplicates is None


def test_leaving_out_what_matters_raises_the_loss():
    generator = np.random.default_rng(0)
    weights = np.zeros((N, 3))
    weights[10:14, 0] = weights[20:24, 2] = 1
    weights[0, 0] = weights[2, 2] = 50  # themselves

    def train(masks):
        assert not masks[: len(masks) // 2, 0].any()  # a target's own example is always out
        assert not masks[len(masks) // 2 :, 2].any()
        return -(masks @ weights) + 0.1 * generator.normal(size=(len(masks), 3))

    scores = {'good': weights[:, [0, 2]], 'bad': -weights[:, [0, 2]]}
    found = judge.leave_out(
        scores, np.array([0, 2]), np.array([0, 2]), train, count=4, repeats=5, key=KEY
    )
    for one in found:
        assert one.methods['good'].value == pytest.approx(4, abs=0.3)
        assert one.methods['good'].standard_error < 0.2
        assert abs(one.methods['bad'].value) < 0.3
        assert one.random.value < 2
    with pytest.raises(ValueError, match='count'):
        judge.leave_out(
            scores, np.array([0, 2]), np.array([0, 2]), train, count=N, repeats=5, key=KEY
        )


def test_models_that_diverge_are_left_out_and_counted():
    def train(masks, lost):
        losses = np.repeat(N - masks.sum(axis=1, dtype=np.float64)[:, None], 3, axis=1)
        losses[lost] = np.inf
        return losses

    def rises(lost):
        (found,) = judge.leave_out(
            {'one': np.ones((N, 1))},
            np.array([0]),
            np.array([-1]),
            lambda masks: train(masks, lost),
            count=4,
            repeats=3,
            key=KEY,
        )
        return found.methods['one'], found.random

    one, random = rises([4])  # of the three that lack the strongest examples
    assert (one.value, one.diverged) == (4, 1)
    assert (random.value, random.diverged) == (4, 0)
    one, random = rises([3, 4])
    assert np.isnan(one.value)
    assert (one.diverged, random.diverged) == (2, 0)


def test_estimators_are_cross_validated_over_masks():
    _, split = planted(members=100, noise=0.3)
    row = judge.cross_validated(
        ridge, split.masks, split.losses, np.arange(N), key=KEY, resamples=50
    )
    assert row.method is ridge
    interval = row.lds.mean.interval()
    assert 0.1 < interval.low < interval.value < interval.high
    shuffled = np.random.default_rng(0).permutation(split.losses)
    noise = judge.cross_validated(ridge, split.masks, shuffled, np.arange(N), key=KEY, resamples=50)
    assert abs(noise.lds.mean.value) < 0.08
    with pytest.raises(ValueError, match='24 members'):
        judge.cross_validated(adjusted, split.masks[:30], split.losses[:30], np.arange(N), key=KEY)


def test_scores_of_something_else_are_refused():
    weights, split = planted()
    of = judge.Judge(split, np.arange(N), KEY, resamples=10)
    with pytest.raises(ValueError, match='examples'):
        of(Columns.of_matrix(weights[1:]))
    with pytest.raises(ValueError, match='targets'):
        of(Columns.of_matrix(weights[:, 1:]))
    bad = Columns(N, N, lambda t: np.full((N, len(t)), np.nan), Method('m', 'm', 'm'))
    with pytest.raises(ValueError, match='not finite'):
        of(bad)
