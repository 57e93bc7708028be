import jax
import numpy as np
import pytest
import reference

from influence_jax.analysis import membership
from influence_jax.analysis.membership.reliability import partial, rank_correlations

KEY = jax.random.key(0)


def factors(rng, count, correlations):
    """Columns of standard normals with these correlations: first, second, criterion."""
    return np.linalg.cholesky(np.array(correlations)) @ rng.normal(size=(3, count))


def noisy(rng, truth, reliability, shape):
    """Estimates whose correlation with one another is the reliability."""
    noise = rng.normal(size=(*shape, len(truth)))
    return np.sqrt(reliability) * truth + np.sqrt(1 - reliability) * noise


def estimates(seed, count=3000, correlations=None, reliabilities=(0.4, 0.9, 0.7)):
    correlations = correlations or [[1, 0.7, 0.8], [0.7, 1, 0.6], [0.8, 0.6, 1]]
    rng = np.random.default_rng(seed)
    truths = factors(rng, count, correlations)
    shapes = ((3,), (3,), (3, 2))
    return [noisy(rng, t, r, s) for t, r, s in zip(truths, reliabilities, shapes, strict=True)]


def test_correction_undoes_unequal_noise():
    """The better predictor is the noisier one: observed correlations have it backwards."""
    found = membership.compare_predictors(*estimates(0), key=KEY, resamples=100)
    assert found.spearman[0].value < found.spearman[1].value - 0.05
    assert [r.value for r in found.reliability] == pytest.approx([0.4, 0.9, 0.7], abs=0.04)
    assert [c.value for c in found.corrected] == pytest.approx([0.8, 0.6], abs=0.05)
    assert found.advantage.low > 0
    expected = [
        (0.8 - 0.7 * 0.6) / np.sqrt((1 - 0.7**2) * (1 - 0.6**2)),
        (0.6 - 0.7 * 0.8) / np.sqrt((1 - 0.7**2) * (1 - 0.8**2)),
    ]
    assert [p.value for p in found.corrected_partial] == pytest.approx(expected, abs=0.1)
    assert found.targets == 3000


def test_noise_that_both_predictors_share_is_no_agreement():
    """Within a set both have the same noise: their correlation is taken across sets."""
    rng = np.random.default_rng(0)
    one, other, criterion = factors(rng, 4000, [[1, 0, 0.6], [0, 1, 0], [0.6, 0, 1]])
    shared = rng.normal(size=(3, 4000))
    found = membership.compare_predictors(
        one + shared, other + shared, noisy(rng, criterion, 0.8, (3, 2)), key=KEY, resamples=50
    )
    assert found.partial[1].value < -0.15  # suppression by the noise of both
    assert found.corrected_partial[1].value == pytest.approx(0, abs=0.1)
    assert found.corrected[0].value == pytest.approx(0.6, abs=0.05)


def test_observed_values_equal_the_loops():
    one, other, criterion = estimates(1, count=60)
    one = np.round(one)
    found = membership.compare_predictors(one, other, criterion, key=KEY, resamples=10)

    def average(pairs):
        return np.mean([reference.spearman(a, b) for a, b in pairs])

    direct = [
        average((who[k], lot) for k in range(3) for lot in criterion[k]) for who in (one, other)
    ]
    assert [s.value for s in found.spearman] == pytest.approx(direct)
    assert found.reliability[0].value == pytest.approx(
        average([(one[0], one[1]), (one[0], one[2]), (one[1], one[2])])
    )
    assert found.reliability[2].value == pytest.approx(average(criterion))
    same = average(zip(one, other, strict=True))
    left = np.sqrt((1 - same**2) * (1 - direct[1] ** 2))
    assert found.partial[0].value == pytest.approx((direct[0] - same * direct[1]) / left)


def test_rank_correlations_are_those_of_the_physical_resample():
    rng = np.random.default_rng(0)
    scores = rng.integers(5, size=(3, 12)).astype(float)
    scores[0, 3] = np.inf
    chosen = rng.integers(12, size=(4, 12))
    drawn = np.array([np.bincount(row, minlength=12) for row in chosen], float)
    for row, found in zip(chosen, rank_correlations(scores, drawn), strict=True):
        for a in range(3):
            for b in range(3):
                expected = reference.pearson(
                    reference.ranks(scores[a, row]), reference.ranks(scores[b, row])
                )
                assert found[a, b] == pytest.approx(expected)


@pytest.mark.parametrize('copies', [1, 5])
def test_intervals_cover_where_near_duplicates_are_drawn_together(copies):
    """Ten near-duplicates of one record are one observation, not ten."""
    correlations = [[1, 0.5, 0.6], [0.5, 1, 0.3], [0.6, 0.3, 1]]
    big = membership.compare_predictors(*estimates(99, 40_000, correlations), key=KEY, resamples=2)
    covered = np.zeros(3)
    for seed in range(60):
        given = [np.repeat(e, copies, axis=-1) for e in estimates(seed, 150, correlations)]
        found = membership.compare_predictors(
            *given,
            key=jax.random.key(seed),
            groups=np.arange(150 * copies) // copies,
            resamples=150,
        )
        for i, (interval, truth) in enumerate(
            (
                (found.spearman[0], big.spearman[0]),
                (found.corrected[1], big.corrected[1]),
                (found.partial[0], big.partial[0]),
            )
        ):
            covered[i] += interval.low <= truth.value <= interval.high
    assert np.all(covered >= 0.85 * 60), covered


def test_a_criterion_of_other_models_serves_all_sets():
    one, other, criterion = estimates(0)
    alike = membership.compare_predictors(one, other, criterion[:1], key=KEY, resamples=2)
    repeated = np.repeat(criterion[:1], 3, axis=0)
    by_set = membership.compare_predictors(one, other, repeated, key=KEY, resamples=2)
    assert alike.corrected[0].value == pytest.approx(by_set.corrected[0].value)


def test_targets_that_are_undefined_anywhere_are_left_out():
    one, other, criterion = estimates(0, count=50)
    broken = one.copy()
    broken[1, :4], broken[0, 5] = np.nan, np.inf
    found = membership.compare_predictors(broken, other, criterion, key=KEY, resamples=2)
    assert found.targets == 46


def test_a_partial_correlation_beyond_one_is_not_told():
    assert partial(np.array(0.5), np.array(0.0), np.array(0.0)) == pytest.approx(0.5)
    for values in ((1.1, 0.2, 0.2), (0.2, 1.1, 0.2), (0.2, 0.2, 1.1)):
        assert np.isnan(partial(*map(np.array, values)))


@pytest.mark.unchecked
def test_bad_input_is_refused():
    one, other, criterion = estimates(0, count=20)

    def compare(*given, **options):
        membership.compare_predictors(*given, key=KEY, **options)

    with pytest.raises(ValueError, match=r'first \[3, 19\], second \[3, 20\]'):
        compare(one[:, 1:], other, criterion)
    with pytest.raises(ValueError, match=r'criterion \[2, 2, 20\]'):
        compare(one, other, criterion[:2])
    with pytest.raises(ValueError, match='2 sets'):
        compare(one[:1], other[:1], criterion[:1])
    with pytest.raises(ValueError, match='2 lots'):
        compare(one, other, criterion[:, :1])
    with pytest.raises(ValueError, match='groups'):
        compare(one, other, criterion, groups=np.arange(19))
    with pytest.raises(ValueError, match='not all alike'):
        compare(np.zeros_like(one), other, criterion)
