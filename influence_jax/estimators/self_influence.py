"""Self-influence by difference of means: its standard error, and how far that can be believed.

It may be carried by few members: of five near-duplicates only members without any of
them show what it means not to know the record, 1 in 16 of those without the target where each is in
half of the subsets. Its estimate is right on average, and its own scatter shows too little of how
wrong it can be: so these errors are widened.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.moments import IN, OUT, Moments, moments_by_group
from influence_jax.estimators.standard_errors import Reliability, reliability_of_powers, widened
from influence_jax.estimators.tiling import TILE, standardized_tiles
from influence_jax.threads import IN_CACHE, in_threads
from influence_jax.types import Influence

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
    for columns, centered, scale in standardized_tiles(losses, tile=TILE):
        known = np.flatnonzero(self_index[columns] >= 0)
        of_own = moments_by_group(masks, centered[:, known], self_index[columns][known])
        of = own_entries(of_own.merged(), members=members).reliability
        at = known + columns.start
        found.widening[at] = widened(of.freedom, members=members)
        found.unseen[at] = unseen[at]
        of = of._replace(variance=of.variance * scale[known].astype(np.float64) ** 2)
        found.standard_error[at] = widened_error(of, unseen[at], members=members)
        found.effective_members[at] = of.effective_members
    return found


class OwnEntries(NamedTuple):
    """The difference of means of each target's own example.

    value: `[t]`.
    reliability: `[t]` each, of Welch's error.
    """

    value: Float[np.ndarray, ' t']
    reliability: Reliability


def own_entries(of_groups: Moments, *, members: int) -> OwnEntries:
    """From the moments `[2 t]` of the losses of members without the example, and with it."""
    size = np.maximum(of_groups.count, 2)
    # How a member's difference from the mean of its group counts.
    weight = np.array([[1], [-1]]) / np.sqrt(size * (size - 1))
    powers = (
        (weight**power * of).sum(axis=0)
        for power, of in ((2, of_groups.second), (3, of_groups.third), (4, of_groups.fourth))
    )
    value = of_groups.mean[OUT] - of_groups.mean[IN]
    return OwnEntries(value, reliability_of_powers(*powers, members=members))


def widened_error(of: Reliability, unseen: Any, *, members: int) -> Any:
    """The standard error that is read like all others.

    Args:
      of: of the estimate.
      unseen: see `unseen_error`, in the same unit.
      members: M.
    """
    return widened(of.freedom, members=members) * np.hypot(np.sqrt(of.variance), unseen)


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
    outside = len(masks) - masks.sum(axis=0)[self_index]
    few = (self_index >= 0) & (outside < _UNSEEN) & (outside > 0)
    if not few.any():
        return np.zeros(targets)
    highest = np.empty(targets)

    def of_some(columns: slice) -> None:
        without = ~masks[:, self_index[columns]]
        highest[columns] = np.where(without, losses[:, columns], -np.inf).max(axis=0)
        highest[columns] -= losses[:, columns].mean(axis=0, dtype=np.float64)

    in_threads(of_some, targets, step=IN_CACHE)
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
