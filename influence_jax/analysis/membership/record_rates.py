"""How well an attack does on each single record."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.membership.evidence import Attack, by_targets
from influence_jax.analysis.membership.rates import Roc, Threshold, roc, threshold
from influence_jax.estimators.ensemble import numbered_repeats


class Vulnerability(NamedTuple):
    """Success of an attack on every target, over all attacked members.

    On a target that nothing tells, the AUROC of online LiRA lies a little below 0.5 (about 0.43 at
    40 members, 0.47 at 1,000), because the members compared are each other's shadows and the ratio
    takes their own noise out of the means; offline LiRA and RMIA give 0.50.

    auroc: `[T]` probability that a member that includes the target scores higher on it than one
        that does not, ties counting half; 0.5 for chance.
    auroc_standard_error: `[T]` of that (DeLong et al. 1988; members that repeat a mask count as
        one cluster); 0 where the two kinds do not overlap.
    success: `[T]` share of the members that include the target that are accused at the one
        threshold at which, over all targets, `false_positive_rate` of the records left out are.
        Where it falls among ties, a share of these is accused at random, as in
        `true_positive_rates`, of which this is the part of one target.
    success_standard_error: `[T]` of that, given the threshold: binomial, or of the clusters.
    false_alarms: `[T]` share of the members that leave the target out that are accused.
    p_value: `[T]` of as many accused members including the target or more, had they no more chance
        of it than the others (Fisher's exact test; one member of each mask, no random ties).
    false_positive_rate: of the threshold.
    targets: `[T]` as in `Attack`.
    """

    auroc: Float[np.ndarray, ' T']
    auroc_standard_error: Float[np.ndarray, ' T']
    success: Float[np.ndarray, ' T']
    success_standard_error: Float[np.ndarray, ' T']
    false_alarms: Float[np.ndarray, ' T']
    p_value: Float[np.ndarray, ' T']
    false_positive_rate: float
    targets: Int[np.ndarray, ' T']


def vulnerability(
    attack: Attack, *, false_positive_rate: float = 1e-3, curve: Roc | None = None
) -> Vulnerability:
    """Success on each record by itself, in two ways: see `Vulnerability`.

    Args:
      attack: scores and truth.
      false_positive_rate: of the one threshold.
      curve: of the attack, where it is known already.

    Raises:
      ValueError: `false_positive_rate` outside (0, 1), or as in `roc`.
    """
    if not 0 < false_positive_rate < 1:
        raise ValueError(f'{false_positive_rate=} must lie strictly between 0 and 1')
    cut = threshold(curve or roc(attack.scores, attack.included), false_positive_rate)
    subset = numbered_repeats(attack.included)
    parts = by_targets(
        lambda block: _of_block(attack.scores[:, block], attack.included[:, block], subset, cut),
        *attack.scores.shape,
    )
    auroc, error, success, success_error, alarms, p_value = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return Vulnerability(
        auroc,
        error,
        success,
        success_error,
        alarms,
        p_value,
        false_positive_rate,
        attack.targets,
    )


def _of_block(
    scores: Float[np.ndarray, 'M t'],
    included: Bool[np.ndarray, 'M t'],
    subset: Int[np.ndarray, ' M'],
    cut: Threshold,
) -> tuple[Float[np.ndarray, ' t'], ...]:
    """The fields of `Vulnerability` that are by target."""
    # In memory one target after another: several times faster.
    scores, included = (np.ascontiguousarray(of.T) for of in (scores, included))
    auroc, error = _areas(scores, included, subset)
    accused, trials = cut.accused(scores).astype(np.float64), included.sum(axis=1)
    success = (accused * included).sum(axis=1) / trials
    squares = _squares(accused - success[:, None], included, subset)
    # What choosing among ties at random adds.
    squares += (accused * (1 - accused) * included).sum(axis=1)
    return (
        auroc,
        error,
        success,
        np.sqrt(squares) / trials,
        (accused * ~included).sum(axis=1) / (len(subset) - trials),
        _p_values(scores > cut.score, included, subset),
    )


def _p_values(
    accused: Bool[np.ndarray, 't M'],
    included: Bool[np.ndarray, 't M'],
    subset: Int[np.ndarray, ' M'],
) -> Float[np.ndarray, ' t']:
    first = np.unique(subset, return_index=True)[1]
    accused, included = accused[:, first], included[:, first]
    right = (accused & included).sum(axis=1)
    return scipy.stats.hypergeom.sf(
        right - 1, len(first), included.sum(axis=1), accused.sum(axis=1)
    )


def _areas(
    scores: Float[np.ndarray, 't M'],
    included: Bool[np.ndarray, 't M'],
    subset: Int[np.ndarray, ' M'],
) -> tuple[Float[np.ndarray, ' t'], Float[np.ndarray, ' t']]:
    """Area under every row's own curve, and its standard error."""
    targets, members = scores.shape
    order = np.argsort(scores, axis=1) + members * np.arange(targets)[:, None]
    side = np.take(included, order)
    below = _below(np.take(scores, order), side)
    if subset.max() + 1 < members:  # else it is of no account which member is which
        unsorted = np.empty_like(below)
        np.put(unsorted, order, below)
        below, side = unsorted, included
    positives = included.sum(axis=1)
    negatives = members - positives
    below /= np.where(side, negatives[:, None], positives[:, None])
    area, variance = (below * side).sum(axis=1) / positives, np.zeros(targets)
    for kind, count in ((side, positives), (~side, negatives)):
        center = (below * kind).sum(axis=1) / count
        squares = _squares(below - center[:, None], kind, subset)
        clusters = _one_of_each(kind, subset).sum(axis=1)
        variance += squares * clusters / np.maximum(clusters - 1, 1) / count**2
    return area, np.sqrt(variance)


def _below(
    ascending: Float[np.ndarray, 't M'], side: Bool[np.ndarray, 't M']
) -> Float[np.ndarray, 't M']:
    """Of each score, how many of the other kind in its row are lower; of ties, half.

    Args:
      ascending: scores.
      side: of which kind each is.
    """
    targets, members = side.shape
    positives = np.zeros((targets, members + 1), np.int32)
    np.cumsum(side, axis=1, out=positives[:, 1:])
    place = np.arange(members, dtype=np.int32)[None]

    def others(
        at: Int[np.ndarray, '_ M'], before: Int[np.ndarray, 't M']
    ) -> Int[np.ndarray, 't M']:
        """How many of the other kind stand before a place."""
        return np.where(side, at - before, before)

    edge = np.ones((targets, 1), bool)
    rises = np.concatenate([edge, ascending[:, 1:] != ascending[:, :-1], edge], axis=1)
    if rises.all():
        return others(place, positives[:, :-1]).astype(np.float64)
    # Where in its row the ties of each score begin, and behind which place they end.
    start = np.maximum.accumulate(np.where(rises[:, :-1], place, 0), axis=1)
    end = np.where(rises[:, 1:], place + 1, members)
    end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]
    before, behind = (np.take_along_axis(positives, at, axis=1) for at in (start, end))
    return (others(start, before) + others(end, behind)) / 2


def _squares(
    deviations: Float[np.ndarray, 't M'],
    side: Bool[np.ndarray, 't M'],
    subset: Int[np.ndarray, ' M'],
) -> Float[np.ndarray, ' t']:
    """Sum of squares over the subsets of what their members on this side deviate together."""
    together = deviations * side
    if subset.max() + 1 < len(subset):
        order = np.argsort(subset, kind='stable')
        starts = np.flatnonzero(np.diff(subset[order], prepend=-1))
        together = np.add.reduceat(together[:, order], starts, axis=1)
    return np.square(together).sum(axis=1)


def _one_of_each(
    side: Bool[np.ndarray, 't M'], subset: Int[np.ndarray, ' M']
) -> Bool[np.ndarray, 't m']:
    return side[:, np.unique(subset, return_index=True)[1]]
