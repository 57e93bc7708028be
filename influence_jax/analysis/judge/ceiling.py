"""What a linear datamodelling score can reach at most, and what a linear prediction can."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.convergence.agreement import spearman_brown
from influence_jax.analysis.judge.held_out import HeldOut
from influence_jax.analysis.judge.prediction import Estimate, Resamples, rank_agreement
from influence_jax.analysis.resampling import host_generator, jackknife_error
from influence_jax.estimators.ensemble import complete_members
from influence_jax.types import PRNGKey

_SPLITS = 4
_PARTS = 16


class Ceilings(NamedTuple):
    """The most that predictions of held-out members can reach, as correlations with their mean.

    any: by any function of the mask: training noise stays in a mean over few repeats.
    linear: by any sum of scores.
    linear_share: which part of the noiseless variance is linear; not cut at 1, beyond which noise
        may take it.
    """

    any: Estimate
    linear: Estimate
    linear_share: Estimate


def ceilings(
    held_out: HeldOut,
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    self_index: Int[np.ndarray, ' T'],
    *,
    resamples: Resamples,
    key: PRNGKey,
) -> Ceilings:
    """Estimates both ceilings, on the held-out members that left each target out.

    Both are means over targets before their square root is taken, and so slightly too high where
    targets differ. The linear one is of products of values, the scores of ranks.

    Args:
        held_out: with repeats.
        masks: `[M N]` of members that estimate, of independent draws.
        losses: `[M T]` of the same.
        self_index: `[T]` position of the target's own example. -1 where it is none, or where the
            members that it is in count, too.
        resamples: of held-out masks and targets.
        key: of splits of the repeats, and of the error of the linear share.

    Raises:
        ValueError: held-out masks without repeats.
    """
    counted = held_out.without(self_index)
    reached = Estimate(np.sqrt(np.maximum(reliability(held_out, counted, resamples, key=key), 0)))
    masks, losses = complete_members(masks, losses)  # masks must differ
    scale = losses.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 0, scale, np.inf)
    center = np.average(held_out.mean, axis=0, weights=counted)
    standardized, part = (losses - center) / scale, np.arange(len(masks)) % _PARTS
    weight, *without = (
        np.nanmean(degree_one_weight(masks[some], standardized[some], self_index))
        for some in (part >= 0, *(part != left_out for left_out in range(_PARTS)))
    )
    error = float(jackknife_error(np.array(without)[:, None])[0])
    normal = host_generator(key).normal(size=len(resamples.masks))
    normal[0] = 0  # as observed
    variance = noiseless_variance(held_out, counted, scale, resamples)
    with np.errstate(divide='ignore', invalid='ignore'):
        share = np.where(variance > 0, (weight + error * normal) / variance, np.nan)
    linear = reached.draws * np.sqrt(np.clip(share, 0, 1))
    return Ceilings(reached, Estimate(linear), Estimate(share))


def reliability(
    held_out: HeldOut,
    counted: Bool[np.ndarray, 'K T'],
    resamples: Resamples,
    *,
    key: PRNGKey,
) -> Float[np.ndarray, ' B']:
    """Correlation that the mean over R repeats would have with that over R others.

    Spearman's correlation of the means over random halves of the repeats, lengthened by Spearman
    and Brown's formula. Its square root is what a prediction can reach.

    Raises:
        ValueError: masks without repeats.
    """
    repeats = held_out.repeats
    if repeats < 2:
        raise ValueError('held-out masks have no repeats, from which the ceiling would follow')
    half, generator = repeats // 2, host_generator(key)
    found = []
    for _ in range(_SPLITS):
        order = generator.permutation(repeats)
        halves = (order[:half], order[half : 2 * half])
        first, second = (held_out.measured[:, some].mean(axis=1) for some in halves)
        found.append(rank_agreement(first, second, counted, resamples).mean.draws)
    of_halves = np.mean(found, axis=0).tolist()
    return np.array([spearman_brown(agreement, repeats / half) for agreement in of_halves])


def degree_one_weight(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    self_index: Int[np.ndarray, ' T'],
) -> Float[np.ndarray, ' T']:
    """The variance of what is linear in the mask, without bias (Saunshi et al. 2022, 2210.01072).

    With masks drawn independently, x their columns of mean 0 and variance 1, the best linear
    prediction of f has the coefficients E[f x_i] and the variance B_1 = sum_i E[f x_i]^2: the mean
    over pairs of different masks of f_a f_b <x_a, x_b>. Of a target that is an example: on members
    that left it out, over all other examples.

    Args:
        masks: `[M N]` of different, independent draws.
        losses: `[M T]`; a constant that does not come from these members does no harm, and the
            nearer losses are to 0, the smaller the noise.
        self_index: `[T]`; -1 for none.

    Returns:
        In the squared unit of the losses; negative by noise alone. NaN of a target that fewer than
        two members left out.
    """
    share = masks.mean(dtype=np.float64)
    x = ((masks - share) / np.sqrt(share * (1 - share))).astype(np.float32)
    is_example = self_index >= 0
    used = ~masks[:, self_index] | ~is_example
    f = np.where(used, losses, 0).astype(np.float64)
    gram = (x @ x.T).astype(np.float64)
    np.fill_diagonal(gram, 0)
    total = np.einsum('at,at->t', f, gram @ f)
    # Without the own example, which is out of all of these members.
    own = np.where(is_example, share / (1 - share), 0)
    total -= own * (f.sum(axis=0) ** 2 - (f**2).sum(axis=0))
    count = used.sum(axis=0)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(count > 1, total / (count * (count - 1)), np.nan)


def noiseless_variance(
    held_out: HeldOut,
    counted: Bool[np.ndarray, 'K T'],
    scale: Float[np.ndarray, ' T'],
    resamples: Resamples,
) -> Float[np.ndarray, ' B']:
    """Variance between masks of what training converges to in the mean, averaged over targets.

    That between means over repeats, less that within masks over R.

    Args:
        held_out: with repeats.
        counted: which masks count for which target.
        scale: unit of each target's measurements.
        resamples: of masks and targets.
    """
    means = held_out.mean / scale
    within = held_out.measured.var(axis=1, ddof=1) / scale**2 / held_out.repeats
    count = counted.sum(axis=0)
    mean, square, noise = (
        resamples.masks @ np.where(counted, part, 0) for part in (means, means**2, within)
    )
    weight = resamples.masks @ counted.astype(np.float32)
    with np.errstate(divide='ignore', invalid='ignore'):
        mean, square, noise = mean / weight, square / weight, noise / weight
        # The resample of n has (n - 1) / n of their variance.
        between = (square - mean**2) * (count / (count - 1))
    known = np.isfinite(between) & np.isfinite(noise)
    weights = resamples.targets * known
    return (weights * np.where(known, between - noise, 0)).sum(axis=1) / weights.sum(axis=1)
