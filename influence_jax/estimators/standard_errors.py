"""Standard errors of a difference of means between random subsets of the members.

Without influence the mask column of an example is independent of the losses, so both groups of
members are draws from the same losses and share one variance. Welch's error takes each group's
own, and has hardly any degrees of freedom where one group is small: among many entries it is far
too small for some. So the error of an entry is Student's, of the squares within both groups
together, and Welch's only where the entry is beyond what noise does and Welch's is the larger.

Self-influence may be carried by few members: of five near-duplicates only members without any of
them show what it means not to know the record, 1 in 16 of those without the target where each is in
half of the subsets. Its estimate is right on average, and its own scatter shows too little of how
wrong it can be: so these errors are widened (`self_errors`).

The functions take arrays of numpy or of jax; `xp` is the module of theirs.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.tiling import IN_CACHE, in_threads, standardized
from influence_jax.types import AnyArray, Influence

SURELY_NOT_NOISE = 4.0
"""|z| from which on the two groups of an entry are not taken for alike; noise: 6 in 100,000."""

_WIDEST = 1.3

# How far the 97.5 % point of a sum moves, as a part of itself, for an excess kurtosis and a
# squared skewness of 1: Edgeworth's second order, x = 1.96.
_BY_KURTOSIS = (1.96**2 - 3) / 24
_BY_SKEWNESS = (1.96**4 - 10 * 1.96**2 + 15) / 72


class Shape(NamedTuple):
    """Third and fourth moments of each target's losses over all members.

    skewness: `[t]`.
    kurtosis: `[t]` in excess of a normal distribution's.
    """

    skewness: Float[AnyArray, ' t']
    kurtosis: Float[AnyArray, ' t']


def shape(losses: Float[AnyArray, 'M t'], *, xp: ModuleType = np) -> Shape:
    """The shape of centered losses; 0 for a target of which all are equal."""
    squares = losses * losses  # products, since powers are slow
    second = squares.mean(axis=0)
    known = second > 0
    second = xp.where(known, second, 1)
    return Shape(
        xp.where(known, (squares * losses).mean(axis=0) / second**1.5, 0),
        xp.where(known, (squares * squares).mean(axis=0) / second**2 - 3, 0),
    )


def standard_error(
    difference: Any,
    within_in: Any,
    within_out: Any,
    *,
    included: Any,
    members: int,
    of: Shape,
    xp: ModuleType = np,
) -> Any:
    """The standard error of differences of means; all arguments broadcast to one shape.

    `difference` +- Student's t (M - 2 degrees of freedom) times this error is meant to hold the
    truth: of skewed or heavy-tailed losses and few members with the example it is widened by
    Edgeworth's second order under the randomness of the masks (our reconstruction).

    Args:
      difference: mean without the example - mean with it.
      within_in: sum of squares about their mean of the members with the example.
      within_out: of those without it.
      included: how many members have the example, at least 2 and at most M - 2.
      members: M.
      of: the shape of the losses.
      xp: numpy or jax.numpy.
    """
    excluded = members - included
    within = within_in + within_out
    pooled = within / (members - 2) * (1 / included + 1 / excluded)
    spread = included * excluded / members**2
    pooled = pooled * (
        _widening(
            (1 - 6 * spread) / spread,
            (1 - 2 * included / members) ** 2 / spread,
            members=members,
            of=of,
            xp=xp,
        )
        ** 2
    )
    welch = within_in / ((included - 1) * included) + within_out / ((excluded - 1) * excluded)
    unlike = difference**2 > SURELY_NOT_NOISE**2 * pooled
    return xp.sqrt(xp.where(unlike, xp.maximum(pooled, welch), pooled))


def error_of_weighted_sum(
    value: Float[np.ndarray, ' t'],
    weights: Float[np.ndarray, ' M'],
    losses: Float[np.ndarray, 'M t'],
    by_members: Float[np.ndarray, ' t'],
) -> Float[np.ndarray, ' t']:
    """As `standard_error`, of sums of differences of means: of losses times members' weights.

    Args:
      value: the sums.
      weights: of sum 0.
      losses: centered.
      by_members: root of the sum of squares of what each member adds, where Welch's error is that
        of a single difference.
    """
    members, squares = len(weights), np.square(weights).sum()
    within = np.maximum(np.square(losses).sum(axis=0) - value**2 / squares, 0)
    widening = _widening(
        members * (weights**4).sum() / squares**2 - 3,
        members * (weights**3).sum() ** 2 / squares**3,
        members=members,
        of=shape(losses),
        xp=np,
    )
    pooled = within / (members - 2) * squares * widening**2
    unlike = value**2 > SURELY_NOT_NOISE**2 * pooled
    return np.sqrt(np.where(unlike, np.maximum(pooled, by_members**2), pooled))


def _widening(
    kurtosis: Any, squared_skewness: Any, *, members: int, of: Shape, xp: ModuleType
) -> Any:
    """For losses of that shape, and weights of members of that excess kurtosis and skewness."""
    widening = (
        1
        + _BY_KURTOSIS * kurtosis * of.kurtosis / members
        + _BY_SKEWNESS * squared_skewness * of.skewness**2 / members
    )
    return xp.clip(widening, 1, _WIDEST)


class Reliability(NamedTuple):
    """How far a standard error can be believed that is the root of a sum of squares.

    variance: the sum of squares of the members' contributions to an estimate.
    freedom: degrees of freedom of Student's t with which value +- t error covers.
    effective_members: on how many members the estimate rests: of losses that differ in k members
        alone it is k, however many others there are.
    """

    variance: Any
    freedom: Any
    effective_members: Any


def reliability(contributions: Any, *, members: int, axis: int, xp: ModuleType = np) -> Reliability:
    """From each member's contribution to an estimate: its residual times its weight.

    The variance of a sum of squares is seen in the fourth powers (Satterthwaite's approximation).
    A skewed sum needs more: by Cochran's rule an interval by Student's t is good where the
    number of members is large against the squared skewness of one, that is where 1 / (squared
    skewness of the sum) is large. In units in which a few members that alone carry an effect
    count one each, that is the effective number, and half of it the degrees of freedom
    (our reconstruction; calibrated in docs/results/calibration.md).
    """
    largest = xp.abs(contributions).max(axis=axis, keepdims=True)
    # Fourth powers of small numbers would vanish in float32.
    contributions = contributions / xp.where(largest > 0, largest, 1)
    squares = contributions * contributions
    second = squares.sum(axis=axis)
    known = second > 0
    second = xp.where(known, second, 1)
    by_kurtosis = 3 * second**2 / xp.maximum((squares * squares).sum(axis=axis), 1e-30)
    skewness = (squares * contributions).sum(axis=axis) ** 2 / second**3
    skewness = xp.maximum(skewness, 1e-30)
    return Reliability(
        xp.where(known, second, 0) * xp.squeeze(largest, axis=axis) ** 2,
        xp.where(
            known, xp.clip(xp.minimum(by_kurtosis, 0.5 / skewness), 1, members - 2), members - 2
        ),
        xp.where(known, xp.minimum(xp.minimum(by_kurtosis, 1 / skewness), members), members),
    )


def widened(freedom: Float[np.ndarray, '...'], *, members: int) -> Float[np.ndarray, '...']:
    """What an error of so many degrees of freedom must be multiplied by.

    So that it is read like all others, with Student's t of M - 2 degrees of freedom at 95 %.
    """
    return scipy.special.stdtrit(freedom, 0.025) / scipy.special.stdtrit(members - 2, 0.025)


RELIABLE = 20
"""Effective members below which a self-influence, and its error, are not to be relied upon."""

_UNSEEN = 32
"""Members without the target below which a rare high loss may well not occur at all."""
_HIGH = 0.75


class SelfError(NamedTuple):
    """Of the difference of means of every target's own example; NaN where it is no example.

    standard_error: `[T]`, in the unit of the losses, widened so that with Student's t of M - 2
        degrees of freedom it covers.
    widening: `[T]` what Welch's error was multiplied by.
    unseen: `[T]` what is added to the error, as a square, for losses that did not occur.
    effective_members: `[T]` see `standard_errors.Reliability`.
    """

    standard_error: Float[np.ndarray, ' T']
    widening: Float[np.ndarray, ' T']
    unseen: Float[np.ndarray, ' T']
    effective_members: Float[np.ndarray, ' T']


def self_errors(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    self_index: Int[np.ndarray, ' T'],
) -> SelfError:
    """Errors of self-influence by difference of means.

    Args:
      masks: of complete members.
      losses: of the same.
      self_index: as in `examples_of_targets`.
    """
    members, targets = losses.shape
    found = SelfError(*np.full((4, targets), np.nan))
    unseen = unseen_error(masks, losses, self_index)

    def of_some(columns: slice) -> None:
        y, scale = standardized(losses[:, columns])
        included, y = masks[:, self_index[columns]], y.astype(np.float64)
        inside = included.astype(np.float64)  # numpy multiplies what is of one type far faster
        count, total, sum_in = inside.sum(axis=0), y.sum(axis=0), np.einsum('mt,mt->t', inside, y)
        weights, means = [], []
        for number, of_group in ((count, sum_in), (members - count, total - sum_in)):
            size = np.maximum(number, 2)
            weights.append(1 / np.sqrt(size * (size - 1)))
            means.append(of_group / size)
        # What a member's loss differs from the mean of its group, and how it counts.
        contributions = y - np.where(included, *means)
        contributions *= np.where(included, -weights[0], weights[1])
        of = reliability(contributions, members=members, axis=0)
        wider = widened(of.freedom, members=members)
        added = unseen[columns]
        found.widening[columns] = wider
        found.unseen[columns] = added
        found.standard_error[columns] = wider * np.hypot(np.sqrt(of.variance) * scale, added)
        found.effective_members[columns] = of.effective_members

    in_threads(of_some, targets, step=IN_CACHE)
    for part in found:
        part[self_index < 0] = np.nan
    return found


def unseen_error(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    self_index: Int[np.ndarray, ' T'],
) -> Float[np.ndarray, ' T']:
    """What a loss that fewer than one in n members would have may change, n being without it.

    Where fewer than 32 members are without the target, it is the n-th part of how much less far
    the highest of their losses lies above the target's mean than that of other targets does (three
    quarters of all): what one more member could add. 0 elsewhere (our reconstruction: without it,
    of 24 members and five copies two intervals in three hold the truth).
    """
    targets = losses.shape[1]
    outside, highest = np.zeros(targets), np.full(targets, np.nan)

    def of_some(columns: slice) -> None:
        without = ~masks[:, self_index[columns]]
        outside[columns] = without.sum(axis=0)
        highest[columns] = np.where(without, losses[:, columns], -np.inf).max(axis=0)
        highest[columns] -= losses[:, columns].mean(axis=0, dtype=np.float64)

    in_threads(of_some, targets, step=IN_CACHE)
    few = (self_index >= 0) & (outside < _UNSEEN) & (outside > 0)
    if not few.any():
        return np.zeros(targets)
    high = np.quantile(highest[(self_index >= 0) & (outside > 0)], _HIGH)
    return np.where(few, np.maximum(high - highest, 0) / np.maximum(outside, 1), 0.0)


def with_self_errors(
    blocks: Iterator[tuple[slice, Influence]], self_index: Int[np.ndarray, ' T'], of: SelfError
) -> Iterator[tuple[slice, Influence]]:
    """Widens the errors of own entries, whichever estimator they are of."""
    for columns, block in blocks:
        at = np.flatnonzero(self_index[columns] >= 0)
        entries = self_index[columns][at], at
        errors = np.array(block.standard_error)
        target = at + columns.start
        errors[entries] = of.widening[target] * np.hypot(errors[entries], of.unseen[target])
        yield columns, Influence(block.values, errors)
