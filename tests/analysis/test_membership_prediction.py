import jax
import numpy as np
import pytest
import reference

from influence_jax.analysis import membership
from influence_jax.analysis.resampling import Ranking, jackknife_error, weights
from influence_jax.estimators import adjusted, difference_in_means, largest_of_noise

KEY = jax.random.key(0)


def records(rng, count=300, correlation=0.6):
    truth = rng.normal(size=count)
    return correlation * truth + np.sqrt(1 - correlation**2) * rng.normal(size=count), truth


def test_rows_equal_the_loops():
    rng = np.random.default_rng(0)
    score, truth = records(rng, 60)
    ties = np.round(score)
    extreme = np.argsort(np.argsort(-truth)) < 6
    table = membership.predicts_vulnerability({'a': score, 'b': ties}, truth, key=KEY)
    for row, values in zip(table, (score, ties), strict=True):
        assert row.targets == 60
        assert row.spearman.value == pytest.approx(reference.spearman(values, truth))
        assert row.auroc.value == pytest.approx(reference.auroc(values, extreme))
        gain = row.spearman.value - table[0].spearman.value
        assert row.spearman_gain.value == pytest.approx(gain)
        assert row.spearman.low < row.spearman.value < row.spearman.high
    assert table[0].auroc_gain == (0, 0, 0)


def test_ranks_are_those_of_the_physical_resample():
    rng = np.random.default_rng(0)
    scores = rng.integers(5, size=12).astype(float)
    scores[3] = np.inf
    chosen = rng.integers(12, size=(4, 12))
    drawn = np.array([np.bincount(row, minlength=12) for row in chosen], float)
    found = Ranking(scores).ranks(drawn)
    for row, ranks in zip(chosen, found, strict=True):
        np.testing.assert_allclose(ranks[row], reference.ranks(scores[row]))


def test_weights_draw_every_unit_alike():
    drawn = np.concatenate(list(weights(KEY, units=50, resamples=4000)))
    assert drawn.shape == (4000, 50)
    np.testing.assert_array_equal(drawn.sum(axis=1), 50)
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.07)
    np.testing.assert_allclose(drawn.var(axis=0), 1 - 1 / 50, atol=0.12)
    again = np.concatenate(list(weights(KEY, units=50, resamples=4000)))
    np.testing.assert_array_equal(drawn, again)


def test_intervals_cover_the_truth():
    """Spearman's correlation of bivariate normals is 6/pi asin(r/2)."""
    expected = 6 / np.pi * np.arcsin(0.3)
    covered = []
    for seed in range(120):
        score, truth = records(np.random.default_rng(seed), 150)
        (row,) = membership.predicts_vulnerability(
            {'a': score}, truth, key=jax.random.key(seed), resamples=200
        )
        covered.append(row.spearman.low < expected < row.spearman.high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_gains_are_paired():
    """Two predictors that differ little: the gain is known far better than either."""
    score, truth = records(np.random.default_rng(0))
    better = score + 0.2 * truth
    first, second = membership.predicts_vulnerability({'a': score, 'b': better}, truth, key=KEY)
    assert second.spearman_gain.low > 0
    assert np.ptp(second.spearman_gain[1:]) < 0.5 * np.ptp(first.spearman[1:])


def test_rounds_are_averaged():
    rng = np.random.default_rng(0)
    (a, truth_a), (b, truth_b) = records(rng), records(rng, correlation=0.2)
    (both,) = membership.predicts_vulnerability(
        {'a': np.stack([a, b])}, np.stack([truth_a, truth_b]), key=KEY
    )
    single = [
        membership.predicts_vulnerability({'a': score}, truth, key=KEY)[0]
        for score, truth in ((a, truth_a), (b, truth_b))
    ]
    for name in ('spearman', 'auroc'):
        values = [getattr(row, name).value for row in single]
        assert getattr(both, name).value == pytest.approx(np.mean(values))


def test_near_duplicates_are_drawn_together():
    score, truth = records(np.random.default_rng(0), 60)
    many = [np.repeat(a, 5) for a in (score, truth)]

    def rank_correlation(score, truth, groups=None):
        (row,) = membership.predicts_vulnerability({'a': score}, truth, key=KEY, groups=groups)
        return row.spearman

    together = rank_correlation(*many, np.arange(300) // 5)
    np.testing.assert_allclose(together, rank_correlation(score, truth), rtol=1e-6)
    assert np.ptp(rank_correlation(*many)[1:]) < 0.7 * np.ptp(together[1:])


def test_the_jackknife_gives_the_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=(8, 3))
    without = np.stack([np.delete(values, i, axis=0).mean(axis=0) for i in range(8)])
    np.testing.assert_allclose(
        jackknife_error(without), values.std(axis=0, ddof=1) / np.sqrt(8), rtol=1e-9
    )
    with pytest.raises(ValueError, match='1 parts'):
        jackknife_error(without[:1])


def test_undefined_records_are_left_out_for_all():
    score, truth = records(np.random.default_rng(0))
    other = score.copy()
    other[:5], other[5] = np.nan, np.inf
    first, _ = membership.predicts_vulnerability({'a': score, 'b': other}, truth, key=KEY)
    assert first.targets == 295
    assert first.spearman.value == pytest.approx(reference.spearman(score[5:], truth[5:]))


@pytest.mark.parametrize('estimator', [difference_in_means, adjusted])
def test_predictors_equal_the_loops(estimator):
    rng = np.random.default_rng(0)
    masks = rng.random((64, 20)) < 0.5
    losses = rng.normal(size=(64, 9)).astype(np.float32)
    own = np.array([3, -1, *range(7)])
    losses -= 3.0 * masks[:, np.maximum(own, 0)] * (own >= 0)
    found = membership.predictors(masks, losses, estimator=estimator, target_examples=own)
    values, errors = estimator(masks, losses, target_examples=own)
    order = np.argsort(-values, axis=0)
    at = np.arange(9)
    largest, second = values[order[0], at], values[order[1], at]
    floor = largest_of_noise(members=64, examples=20, targets=9) * errors[order[1], at]
    expected = {
        'self-influence': reference.self_influence(values, own),
        'standardized self-influence': (
            reference.self_influence(values, own) / reference.self_influence(errors, own)
        ),
        'margin': reference.top1_margin(values),
        'floored margin': largest / np.maximum(second, floor),
        'z margin': (largest - second) / np.hypot(errors[order[0], at], errors[order[1], at]),
        'total influence': values.sum(axis=0),
        'mean loss': losses.mean(axis=0),
    }
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        np.testing.assert_allclose(found[name], scores, rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.any(found['floored margin'] < 0.99 * found['margin'])


def test_self_influence_foretells_vulnerability_across_halves():
    """Planted: the more a record is memorized, the better its membership is told."""
    rng = np.random.default_rng(0)
    masks = rng.random((200, 150)) < 0.5
    memorized = rng.uniform(0, 3, size=(1, 150))
    losses = np.exp(rng.normal(size=masks.shape) - memorized * masks)
    halves = slice(0, 100), slice(100, 200)
    scores, vulnerability = [], []
    for one, other in (halves, halves[::-1]):
        scores.append(membership.predictors(masks[one], np.log(losses[one])))
        attack = membership.lira(masks[other], -np.log(losses[other]))
        vulnerability.append(membership.vulnerability(attack).auroc)
    table = membership.predicts_vulnerability(
        {name: np.stack([s[name] for s in scores]) for name in ('total influence', *scores[0])},
        np.stack(vulnerability),
        key=KEY,
    )
    rows = {row.name: row for row in table}
    assert rows['self-influence'].spearman.low > 0.85
    assert rows['self-influence'].spearman_gain.low > 0
    assert rows['total influence'].spearman.value < rows['self-influence'].spearman.value


@pytest.mark.unchecked
def test_bad_input_is_refused():
    score, truth = records(np.random.default_rng(0), 20)

    def table(scores, vulnerability=truth, **options):
        membership.predicts_vulnerability(scores, vulnerability, key=KEY, **options)

    with pytest.raises(ValueError, match='no predictors'):
        table({})
    with pytest.raises(ValueError, match=r"predictor 'a' \[1, 19\] and vulnerability \[1, 20\]"):
        table({'a': score[1:]})
    with pytest.raises(ValueError, match='not finite'):
        table({'a': score}, np.where(truth > 1, np.nan, truth))
    with pytest.raises(ValueError, match='only 0 records'):
        table({'a': np.full(20, np.nan)})
    with pytest.raises(ValueError, match='tied with all others'):
        table({'a': score}, np.zeros(20))
    with pytest.raises(ValueError, match='most_vulnerable'):
        table({'a': score}, most_vulnerable=1.0)
    with pytest.raises(ValueError, match=r'groups \[19\]'):
        table({'a': score}, groups=np.arange(19))
