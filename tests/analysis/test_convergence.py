import jax
import numpy as np
import pytest
import reference

from influence_jax.analysis import split_half

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
    masks, losses = planted(effect=2.0)
    kept = np.delete(np.arange(400), [3, 9])
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
    with pytest.raises(ValueError, match='at least 4 usable members, not 3'):
        split_half(*planted(3, effect=1.0), key=KEY)
