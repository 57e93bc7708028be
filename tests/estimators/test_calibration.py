"""Lists, intervals and errors under every inclusion probability and noise: known truth only.

`python -m benchmarks.calibration` does the same at full size.
"""

from pathlib import Path

import numpy as np
import pytest

from influence_jax.estimators import (
    BUILT_IN,
    RELIABLE,
    adjusted,
    benjamini_hochberg,
    difference_in_means,
    intervals,
    lasso,
    p_values,
    ridge,
    selected_intervals,
    shrunk,
    summarize,
    z_scores,
)

RTE = Path(__file__).parents[3] / 'shared' / 'data' / 'rte_bert'
N = 150


def normal(masks, generator):
    return generator.normal(size=masks.shape)


def narrow_where_in(masks, generator):
    return np.where(masks, 0.1, 1.0) * generator.normal(size=masks.shape)


def rarely_high(masks, generator):
    losses = 0.1 * generator.normal(size=masks.shape)
    return losses + 5 * (generator.random(masks.shape) < 0.03)


def lognormal(masks, generator):
    return np.exp(generator.normal(size=masks.shape))


KINDS = [normal, narrow_where_in, rarely_high, lognormal]


def drawn(members, inclusion_prob, generator):
    masks = generator.random((members, N)) < inclusion_prob
    while True:
        lacking = (masks.sum(axis=0) < 2) | ((~masks).sum(axis=0) < 2)
        if not lacking.any():
            return masks
        masks[:, lacking] = generator.random((members, int(lacking.sum()))) < inclusion_prob


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


@pytest.mark.parametrize(
    ('members', 'inclusion_prob'),
    [
        (24, 0.5),
        (200, 0.05),
        (200, 0.9),
        pytest.param(200, 0.98, marks=pytest.mark.slow),
        pytest.param(500, 0.02, marks=pytest.mark.slow),
        pytest.param(500, 0.5, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize('kind', KINDS)
def test_noise_alone_lists_next_to_nothing_and_is_covered(kind, members, inclusion_prob):
    listed, covered = 0, []
    for seed in range(3):
        generator = np.random.default_rng([seed, members])
        masks = drawn(members, inclusion_prob, generator)
        losses = kind(masks, generator)
        listed += len(summarize(masks, losses).pairs.values)
        bottom, top = intervals(difference_in_means(masks, losses), members=members)
        covered.append(off_diagonal((bottom <= 0) & (top >= 0)).mean())
    assert listed <= 1
    # Of few members that are rarely high, fewer than 20 differences can come about at all: more
    # than 5 in 100 are beyond the one threshold, and fewer than that beyond the next.
    discrete = kind is rarely_high and (members, inclusion_prob) in {(24, 0.5), (200, 0.98)}
    low, high = (0.925, 0.985) if discrete else (0.94, 0.97)
    assert low < np.mean(covered) < high


@pytest.mark.parametrize('inclusion_prob', [0.05, 0.5, 0.9])
@pytest.mark.parametrize('estimator', [adjusted, ridge, lasso])
def test_every_estimator_lists_next_to_nothing_of_noise(estimator, inclusion_prob):
    listed = 0
    for kind in KINDS:
        generator = np.random.default_rng(1)
        masks = drawn(200, inclusion_prob, generator)
        found = summarize(masks, kind(masks, generator), estimator=estimator)
        listed += len(found.pairs.values)
        assert found.other_stands_out.sum() <= 2
    assert listed <= 1


def test_too_few_members_on_a_side_are_told_and_list_nothing():
    generator = np.random.default_rng(0)
    masks = drawn(12, 0.5, generator)
    losses = generator.normal(size=(12, N)) - 30 * masks - 30 * np.roll(masks, 1, axis=1)
    found = summarize(masks, losses)
    assert len(found.pairs.values) == 0 and found.pairs.tests == 0
    assert found.pairs.untested_examples == N
    assert not found.other_stands_out.any()
    masks = drawn(200, 0.5, generator)
    masks[:, 7] = np.arange(200) < 9
    pairs = summarize(masks, generator.normal(size=(200, N))).pairs
    assert pairs.untested_examples == 1 and pairs.tests == (N - 1) * (N - 1)


def test_next_to_no_power_is_lost_at_one_half():
    """Against Welch's error read with Student's t, which is right here."""
    generator = np.random.default_rng(0)
    masks = drawn(300, 0.5, generator)
    others = [np.roll(masks, step, axis=1) for step in range(1, 7)]
    losses = generator.normal(size=masks.shape) - 0.65 * sum(others)
    p = p_values(z_scores(*welch(masks, losses)), members=300)
    expected = int(benjamini_hochberg(p).sum())
    pairs = summarize(masks, losses, target_examples=np.full(N, -1)).pairs
    assert expected > 300 and len(pairs.values) > 0.97 * expected


def welch(masks, losses):
    means, variances = [], []
    for column in (masks, ~masks):
        weights = column / column.sum(axis=0)
        mean = weights.T @ losses
        means.append(mean)
        variances.append((weights.T @ losses**2 - mean**2) / (column.sum(axis=0) - 1)[:, None])
    return means[1] - means[0], np.sqrt(variances[0] + variances[1])


def copies(masks, generator, number):
    """Losses that are high only in members without any of the copies; true self-influence."""
    others = np.zeros_like(masks)
    for step in range(1, number):
        others |= np.roll(masks, -step, axis=1)
    unknown = 3 + 0.5 * generator.normal(size=masks.shape)
    known = 0.05 * generator.exponential(size=masks.shape)
    through_copies = 0.2 * generator.exponential(size=masks.shape)
    none = 0.5 ** (number - 1)
    truth = 3 * none + 0.2 * (1 - none) - 0.05
    return np.where(masks, known, np.where(others, through_copies, unknown)), truth


@pytest.mark.parametrize(
    ('members', 'estimator'),
    [
        (24, difference_in_means),
        (128, difference_in_means),
        (128, adjusted),
        pytest.param(512, adjusted, marks=pytest.mark.slow),
    ],
)
def test_self_influence_of_five_copies_is_covered(members, estimator):
    hits = []
    for seed in range(3):
        generator = np.random.default_rng([seed, members])
        masks = drawn(members, 0.5, generator)
        losses, truth = copies(masks, generator, 5)
        found = estimator(masks, losses)
        low, high = intervals(found, members=members)
        hits.append(np.diag((low <= truth) & (high >= truth)).mean())
    assert np.mean(hits) > 0.92


def test_targets_whose_influence_few_members_carry_are_flagged():
    generator = np.random.default_rng(0)
    masks = drawn(128, 0.5, generator)
    five = summarize(masks, copies(masks, generator, 5)[0])
    one = summarize(masks, copies(masks, generator, 1)[0])
    assert (five.effective_members < RELIABLE).mean() > 0.9
    assert (one.effective_members < RELIABLE).mean() < 0.05
    # About four members, 128 / 2^5, are without any copy.
    assert 2 < np.median(five.effective_members) < 10
    no_example = summarize(masks, generator.normal(size=(128, 9)))
    assert np.isnan(no_example.effective_members).all()


def test_what_is_selected_is_not_exaggerated_once_cross_fitted():
    exaggerated, fitted, covered, of_others = [], [], [], []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        masks = drawn(200, 0.5, generator)
        effects = np.zeros((N, N))
        for step in range(1, 7):
            places = (np.arange(N) + step) % N, np.arange(N)
            effects[places] = 0.5 * generator.exponential(size=N)
        losses = generator.normal(size=masks.shape) - masks @ effects - 2 * masks
        found = summarize(masks, losses, estimator=adjusted)
        pairs = found.pairs
        truth = effects[pairs.examples, pairs.targets]
        exaggerated.append((pairs.values - truth) / pairs.standard_errors)
        fitted.append((pairs.cross_fitted - truth) / pairs.standard_errors)
        covered.append((pairs.low <= truth) & (pairs.high >= truth))
        low, high = selected_intervals(
            found.other_value, found.other_standard_error, members=200, selected=N, candidates=N * N
        )
        truth = effects[found.strongest_other, np.arange(N)]
        of_others.append((low <= truth) & (high >= truth))
    assert np.mean(np.concatenate(exaggerated)) > 0.15
    assert abs(np.mean(np.concatenate(fitted))) < 0.15
    assert np.mean(np.concatenate(covered)) > 0.94
    assert np.mean(np.concatenate(of_others)) > 0.94


def test_a_posterior_does_not_exaggerate_the_strongest_other_of_noise():
    generator = np.random.default_rng(0)
    masks = drawn(100, 0.5, generator)
    found = summarize(masks, generator.normal(size=(100, N)), estimator=shrunk)
    assert (found.other_value / found.other_standard_error).mean() < 1


@pytest.mark.parametrize('estimator', [one for one in BUILT_IN if one is not shrunk])
def test_the_strongest_other_of_noise_is_nothing_to_the_members_held_out(estimator):
    generator = np.random.default_rng(0)
    masks = drawn(100, 0.5, generator)
    found = summarize(masks, generator.normal(size=(100, N)), estimator=estimator)
    error = found.other_standard_error
    assert (found.other_value / error).mean() > 2
    told = found.other_cross_fitted / error
    assert np.isfinite(told).mean() > 0.95
    assert abs(np.nanmean(told)) < 0.35  # of 150 targets, about four standard errors


@pytest.mark.parametrize('estimator', [difference_in_means, adjusted])
def test_the_strongest_other_in_a_group_is_as_strong_to_the_members_held_out(estimator):
    generator = np.random.default_rng(0)
    masks = np.repeat(generator.random((256, 30)) < 0.5, 4, axis=1)
    found = summarize(masks, generator.normal(size=(256, 120)) - 3 * masks, estimator=estimator)
    assert np.isfinite(found.other_cross_fitted).all()
    assert abs(found.other_cross_fitted.mean() - 3) < 0.1


def test_the_error_of_self_influence_does_not_depend_on_the_level_of_a_target():
    generator = np.random.default_rng(0)
    masks = drawn(40, 0.5, generator)
    losses = generator.normal(size=masks.shape)
    moved = losses - 100 * (np.arange(N) == 3)
    same = [summarize(masks, of).self_standard_error for of in (losses, moved)]
    np.testing.assert_allclose(*same, rtol=1e-3)


def test_a_real_ensemble_under_masks_of_other_members_lists_nothing():
    """BERT on halves of RTE: 100 members, correct-class margins."""
    if not RTE.is_dir():
        pytest.skip('needs the RTE tensors of the shared data')
    masks = np.load(RTE / 'masks.npy')[:, :600]
    losses = -np.load(RTE / 'margins.npy')
    generator = np.random.default_rng(0)
    listed = [
        len(summarize(masks[generator.permutation(100)], losses).pairs.values) for _ in range(5)
    ]
    assert sum(listed) <= 1
