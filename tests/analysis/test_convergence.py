import jax
import numpy as np
import pytest
import reference

from influence_jax.analysis import split_half
from influence_jax.analysis.convergence import Convergence, least_half, spearman_brown
from influence_jax.estimators import adjusted, difference_in_means

KEY = jax.random.key(0)


def planted(members=400, examples=30, *, effect, seed=0):
    """Self-influences that differ from target to target, on noise of standard deviation 1."""
    generator = np.random.default_rng(seed)
    masks = generator.random((members, examples)) < 0.5
    strengths = effect * generator.random(examples)
    losses = generator.normal(size=(members, examples)) - strengths * masks
    return masks, losses.astype(np.float32)


def test_equals_the_loops_when_the_halves_are_all_members():
    # With M = 2 x size there is only the split itself to be drawn: every split is tried, and one
    # of them must give what is reported.
    masks = np.array(
        [[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]], bool
    )
    losses = np.random.default_rng(0).normal(size=(6, 4))
    losses -= 3 * masks
    result = split_half(masks, losses, key=KEY, sizes=[3], repeats=1)

    def by_loops(half):
        values = np.full((4, 4), np.nan)
        for i in range(4):
            if 0 < masks[half, i].sum() < 3:
                for t in range(4):
                    of_half, included = losses[half, t], masks[half, i]
                    values[i, t] = np.mean(of_half[~included]) - np.mean(of_half[included])
        return values

    candidates = []
    for subset in reference.all_subsets(6):
        if subset.sum() == 3:
            a, b = by_loops(subset), by_loops(~subset)
            known = ~np.isnan(a + b)
            diagonal = known & np.eye(4, dtype=bool)
            others = known & ~np.eye(4, dtype=bool)
            if diagonal.sum() >= 2 and others.sum() >= 2:
                candidates.append(
                    (reference.pearson(a[diagonal], b[diagonal]),
                     reference.pearson(a[others], b[others]))
                )  # fmt: skip
    actual = (result.self_influence[0], result.off_diagonal[0])
    assert any(np.allclose(actual, c, atol=1e-5) for c in candidates)


def test_null_data_does_not_agree():
    result = split_half(*planted(effect=0.0), key=KEY, repeats=8)
    assert np.all(np.abs(result.off_diagonal) < 0.1)
    assert np.all(np.abs(result.self_influence) < 0.5)


def test_agreement_grows_to_one_with_members_and_effect():
    weak = split_half(*planted(effect=2.0), key=KEY, repeats=8)
    assert np.all(np.diff(weak.members) > 0)
    assert weak.members[-1] == 200
    assert weak.self_influence[-1] > 0.9
    assert weak.self_influence[-1] > weak.self_influence[0] + 0.3
    assert weak.margin[-1] > 0.4
    strong = split_half(*planted(effect=100.0), key=KEY)
    assert strong.self_influence[-1] > 0.99


def test_off_diagonal_sees_influences_of_others():
    masks, losses = planted(effect=0.0)
    losses -= 2.0 * np.roll(masks, 1, axis=1)
    result = split_half(masks, losses, key=KEY)
    # Of the 29 other entries of a column one is 2; their errors are 2 sqrt(1 + 1) / sqrt(200).
    signal, noise = 4 * 28 / 29**2, 4 * 2 / 200
    assert result.off_diagonal[-1] == pytest.approx(signal / (signal + noise), abs=0.04)
    assert abs(result.self_influence[-1]) < 0.6


def test_self_influence_follows_target_examples():
    masks, losses = planted(effect=2.0)
    order = np.random.default_rng(1).permutation(30)[:20]
    shuffled = split_half(masks, losses[:, order], key=KEY, sizes=[200], target_examples=order)
    assert shuffled.self_influence[0] > 0.8
    assert abs(shuffled.off_diagonal[0]) < 0.2
    unknown = split_half(masks, losses[:, order], key=KEY, sizes=[200])
    assert np.isnan(unknown.self_influence[0])
    assert unknown.off_diagonal[0] > 0.2  # the strong entries count as others now


def test_same_key_same_result():
    masks, losses = planted(effect=2.0)
    first, second = (split_half(masks, losses, key=KEY, sizes=[20]) for _ in range(2))
    other = split_half(masks, losses, key=jax.random.key(1), sizes=[20])
    np.testing.assert_array_equal(first, second)
    assert first.off_diagonal != other.off_diagonal


def test_members_with_nan_are_left_out():
    masks, losses = planted(402, effect=2.0)
    kept = np.delete(np.arange(402), [3, 9])
    losses[3], losses[9, 1] = np.nan, np.inf
    np.testing.assert_array_equal(
        split_half(masks, losses, key=KEY), split_half(masks[kept], losses[kept], key=KEY)
    )


def test_halves_too_small_for_every_example_are_still_compared():
    result = split_half(*planted(effect=20.0), key=KEY, sizes=[2, 3, 50])
    np.testing.assert_array_equal(result.members, [2, 3, 50])
    assert np.isfinite(result.off_diagonal).all()


def test_four_members_are_enough():
    result = split_half(*planted(4, effect=1.0), key=KEY)
    np.testing.assert_array_equal(result.members, [2])


def test_samples_columns_of_large_matrices():
    masks, losses = planted(60, 300, effect=3.0)
    result = split_half(masks, losses, key=KEY, sizes=[30], repeats=1)
    assert result.self_influence[0] > 0.5


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'sizes': [1, 10]}, r'2 \.\. 200, not \[1, 10\]'),
        ({'sizes': [201]}, r'2 \.\. 200, not \[201\]'),
        ({'sizes': []}, r'2 \.\. 200, not \[\]'),
        ({'repeats': 0}, 'repeats=0 must be at least 1'),
        ({'target_examples': np.arange(3)}, 'must be 30 integers'),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_half(*planted(effect=1.0), key=KEY, **arguments)


def test_too_few_members_are_refused():
    with pytest.raises(ValueError, match='difference need at least 4 complete members, not 3'):
        split_half(*planted(3, effect=1.0), key=KEY)
    with pytest.raises(ValueError, match='adjusted need at least 48 complete members, not 47'):
        split_half(*planted(47, effect=1.0), key=KEY, estimator=adjusted)


def test_halves_too_small_for_an_estimator():
    masks, losses = planted(48, effect=2.0)
    with pytest.raises(ValueError, match=r'adjusted must lie in 24 \.\. 24, not \[8, 30\]'):
        split_half(masks, losses, key=KEY, estimator=adjusted, sizes=[8, 30])
    default = split_half(masks, losses, key=KEY, estimator=adjusted, repeats=1)
    assert default.members.tolist() == [least_half(adjusted)] == [24]


def planted_pairs(members, *, others, own=4.0):
    """Target t is influenced by itself, and by example t + 1 as much as others[t]."""
    generator = np.random.default_rng(0)
    masks = generator.random((members, len(others))) < 0.5
    losses = generator.normal(size=masks.shape) - own * masks
    return masks, (losses - others * np.roll(masks, -1, axis=1)).astype(np.float32)


def test_estimators_are_judged_on_the_same_halves():
    strengths = np.linspace(0, 3, 30)
    masks, losses = planted_pairs(300, others=strengths)
    plain, better = (
        split_half(masks, losses, key=KEY, estimator=estimator, sizes=[100])
        for estimator in (difference_in_means, adjusted)
    )
    signal = np.append(strengths, np.zeros(30 * 28)).var()
    # Of the loss: 1 of its own, and a quarter of the squares of what is not taken out.
    for curve, noise in ((plain, 1 + 4 + 3 / 4), (better, 1)):
        expected = signal / (signal + 4 * noise / 100)
        assert curve.off_diagonal[0] == pytest.approx(expected, abs=0.06)
    assert better.margin[0] > plain.margin[0]
    np.testing.assert_array_equal(plain.significant_pairs, better.significant_pairs)


def test_adjusted_halves_are_the_adjusted_estimate(monkeypatch):
    """With the split known, the agreement is that of two calls of the estimator."""
    masks, losses = planted(60, 12, effect=2.0)

    class Known:
        def permutation(self, count):
            return np.arange(count)

    monkeypatch.setattr(
        'influence_jax.analysis.convergence.agreement.host_generator', lambda key: Known()
    )
    seen = split_half(masks, losses, key=KEY, estimator=adjusted, sizes=[30], repeats=1)
    a, b = (adjusted(masks[half], losses[half]).values for half in np.split(np.arange(60), 2))
    off = ~np.eye(12, dtype=bool)
    assert seen.self_influence[0] == pytest.approx(reference.pearson(np.diag(a), np.diag(b)))
    assert seen.off_diagonal[0] == pytest.approx(reference.pearson(a[off], b[off]))
    margins = (reference.top1_margin(values) for values in (a, b))
    assert seen.margin[0] == pytest.approx(reference.spearman(*margins))


def test_significant_pairs_are_as_reliable_as_theory_says():
    strengths = np.random.default_rng(1).uniform(2.0, 4.0, 60)
    masks, losses = planted_pairs(600, others=strengths, own=0.0)
    seen = split_half(masks, losses, key=KEY, sizes=[50, 200, 250], repeats=8)
    assert seen.significant_pairs[0] == pytest.approx(60, abs=6)  # 5 % of them false
    for size, found in zip(seen.members[:2], seen.significant[:2], strict=True):
        error = 4 * (1 + strengths.mean() ** 2 / 4) / size
        # Of planted pairs alone; the few false ones, far below, only widen what differs.
        assert found > strengths.var() / (strengths.var() + error) - 0.1
        assert found < 0.97
    assert seen.significant[0] < seen.significant[1]
    assert np.isnan(seen.significant[2]) and seen.significant_pairs[2] == 0


def test_noise_has_no_significant_pairs():
    seen = split_half(*planted(effect=0.0), key=KEY, sizes=[40], repeats=8)
    assert seen.significant_pairs[0] < 1  # of 870


def test_small_halves_of_adjusted_leave_out_what_they_do_not_know():
    masks, losses = planted(60, effect=4.0)
    masks[:, 7] = np.arange(60) < 3  # in one half at most once
    seen = split_half(masks, losses, key=KEY, estimator=adjusted, sizes=[30], repeats=1)
    assert np.isfinite([seen.self_influence, seen.off_diagonal, seen.margin]).all()


def test_spearman_brown():
    assert spearman_brown(0.5) == pytest.approx(2 / 3)
    assert spearman_brown(0.3, 1.0) == pytest.approx(0.3)
    assert spearman_brown(spearman_brown(0.3, 2), 3) == pytest.approx(spearman_brown(0.3, 6))
    assert spearman_brown(-0.5) == pytest.approx(-2 / 3)
    assert [spearman_brown(r) for r in (-1.0, 0.0, 1.0)] == [-1, 0, 1]
    assert np.isnan(spearman_brown(float('nan')))


def test_reliability_of_the_whole_is_what_larger_halves_reach():
    masks, losses = planted(1000, effect=1.0)
    small = split_half(masks, losses, key=KEY, sizes=[125], repeats=16)
    large = split_half(masks, losses, key=KEY, sizes=[250, 500], repeats=16)
    assert small.self_influence[0] < large.self_influence[0] - 0.05
    for members, expected in zip(large.members, large.self_influence, strict=True):
        found = small.reliability(int(members))
        assert found.members == members
        assert found.self_influence == pytest.approx(expected, abs=0.04)


def test_reliability_starts_from_the_largest_halves_that_tell():
    nothing, sizes = np.full(2, np.nan), np.array([10, 20])
    found = Convergence(
        sizes, nothing, np.array([0.1, 0.2]), np.array([0.5, 0.5]), np.array([0.6, np.nan])
    ).reliability()
    assert found.members == 40
    assert np.isnan(found.self_influence)
    assert found.off_diagonal == pytest.approx(2 * 0.2 / 1.2)
    assert found.significant == pytest.approx(4 * 0.6 / (1 + 3 * 0.6))
    assert found.margin == pytest.approx(2 / 3)
