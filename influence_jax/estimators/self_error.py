"""Errors of self-influence, which few members may carry: of near-duplicates, of heavy tails.

Of five copies only members without any of them show what it means not to know the record: 1 in
16 of those without the target at keep = 0.5. The estimate is right on average, and its own
scatter tells too little of how wrong it can be.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.errors import reliability, widened
from influence_jax.estimators.tiling import TILE, standardized_tiles
from influence_jax.types import Influence

RELIABLE = 20
"""Effective members below which a self-influence, and its error, are not to be relied upon."""

_UNSEEN = 32
"""Members without the target below which a rare high loss may well not have been met at all."""
_HIGH = 0.75


class SelfError(NamedTuple):
    """Of the difference of means of every target's own example; NaN where it is no example.

    standard_error: `[T]`, in the unit of the losses, widened so that with Student's t of M - 2
        degrees of freedom it covers.
    widening: `[T]` what Welch's error was multiplied by.
    unseen: `[T]` what is added to the error, as a square, for losses that were not met.
    effective_members: `[T]` see `errors.Reliability`.
    """

    standard_error: Float[np.ndarray, ' T']
    widening: Float[np.ndarray, ' T']
    unseen: Float[np.ndarray, ' T']
    effective_members: Float[np.ndarray, ' T']


def self_errors(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M T'], own: Int[np.ndarray, ' T']
) -> SelfError:
    """Errors of self-influence by difference of means.

    Args:
      masks: of usable members.
      losses: of the same.
      own: as in `examples_of_targets`.
    """
    members, targets = losses.shape
    found = SelfError(*np.full((4, targets), np.nan))
    unseen = unseen_error(masks, losses, own)
    for columns, centred, scale in standardized_tiles(losses, tile=TILE):
        width = columns.stop - columns.start
        included, y = masks[:, own[columns]], centred[:, :width].astype(np.float64)
        contributions = np.zeros_like(y)
        for group in (included, ~included):
            size = np.maximum(group.sum(axis=0), 2)
            rest = (y - (y * group).sum(axis=0) / size) * group
            contributions += np.where(included, -1, 1) * rest / np.sqrt(size * (size - 1))
        of = reliability(contributions, members=members, axis=0)
        wider = widened(of.freedom, members=members)
        added = unseen[columns]
        found.widening[columns] = wider
        found.unseen[columns] = added
        found.standard_error[columns] = wider * np.hypot(
            np.sqrt(of.variance) * scale[:width], added
        )
        found.effective_members[columns] = of.effective_members
    for part in found:
        part[own < 0] = np.nan
    return found


def unseen_error(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M T'], own: Int[np.ndarray, ' T']
) -> Float[np.ndarray, ' T']:
    """What a loss that fewer than one in n members would have may change, n being without it.

    Where fewer than 32 members are without the target, it is the n-th part of how much less far
    the highest of their losses lies above the target's mean than that of other targets does (three
    quarters of all): what one more member could add. 0 elsewhere (our reconstruction: without it,
    of 24 members and five copies two intervals in three hold the truth).
    """
    targets = losses.shape[1]
    outside, highest = np.zeros(targets), np.full(targets, np.nan)
    for start in range(0, targets, TILE):
        columns = slice(start, start + TILE)
        without = ~masks[:, own[columns]]
        outside[columns] = without.sum(axis=0)
        highest[columns] = np.where(without, losses[:, columns], -np.inf).max(axis=0)
        highest[columns] -= losses[:, columns].mean(axis=0, dtype=np.float64)
    few = (own >= 0) & (outside < _UNSEEN) & (outside > 0)
    if not few.any():
        return np.zeros(targets)
    high = np.quantile(highest[(own >= 0) & (outside > 0)], _HIGH)
    return np.where(few, np.maximum(high - highest, 0) / np.maximum(outside, 1), 0.0)


def with_self_errors(
    blocks: Iterator[tuple[slice, Influence]], own: Int[np.ndarray, ' T'], of: SelfError
) -> Iterator[tuple[slice, Influence]]:
    """Widens the errors of own entries, whichever estimator they are of."""
    for columns, block in blocks:
        at = np.flatnonzero(own[columns] >= 0)
        entries = own[columns][at], at
        errors = np.array(block.standard_error)
        target = at + columns.start
        errors[entries] = of.widening[target] * np.hypot(errors[entries], of.unseen[target])
        yield columns, Influence(block.values, errors)
