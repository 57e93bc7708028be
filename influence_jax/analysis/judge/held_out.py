"""The truth that predictions are judged by: masks that no estimate has seen, trained repeatedly."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.ensemble import finite_members, numbered_repeats
from influence_jax.types import Masks, Measurement

LEAST_MASKS = 8
"""Fewer held-out masks order nothing."""


class HeldOut(NamedTuple):
    """Masks held out of every estimate, and what was measured of their members.

    masks: `[K N]`, all different.
    measured: `[K R T]` of the R members that share each mask and differ in seed alone.
    """

    masks: Bool[np.ndarray, 'K N']
    measured: Float[np.ndarray, 'K R T']

    @property
    def repeats(self) -> int:
        """R."""
        return self.measured.shape[1]

    @property
    def mean(self) -> Float[np.ndarray, 'K T']:
        """The mean over repeats: what is to be predicted."""
        return self.measured.mean(axis=1)

    def without(self, self_index: Int[np.ndarray, ' T']) -> Bool[np.ndarray, 'K T']:
        """Which masks left each target out; all of them, of a target that is no example (-1)."""
        return np.asarray(~self.masks[:, self_index] | (self_index < 0))


def held_out_members(masks: Masks, losses: Measurement) -> HeldOut:
    """Groups members by their masks.

    Diverged members may leave some masks with fewer repeats than others: R is then what keeps most
    members, and masks with fewer repeats are left out.

    Args:
        masks: `[M N]` of members that no estimate has seen.
        losses: `[M T]`; rows with anything that is not finite are left out.

    Raises:
        ValueError: fewer than 8 different masks, or as in `estimators.complete_members`.
    """
    masks, losses = finite_members(masks, losses)
    subset = numbered_repeats(masks)
    counts = np.bincount(subset)
    sizes = np.arange(1, counts.max() + 1)
    repeats = int(sizes[np.argmax([size * (counts >= size).sum() for size in sizes])])
    kept = np.flatnonzero(counts >= repeats)
    if len(kept) < LEAST_MASKS:
        raise ValueError(
            f'{len(kept)} held-out masks are too few to judge by: give at least {LEAST_MASKS} '
            f'different ones'
        )
    members = np.argsort(subset, kind='stable')
    first = np.cumsum(counts) - counts
    chosen = members[first[kept][:, None] + np.arange(repeats)]
    return HeldOut(masks[chosen[:, 0]], losses[chosen])


class Split(NamedTuple):
    """Members that estimate, and those that judge.

    masks: `[M N]` of the former.
    losses: `[M T]` of the same.
    held_out: of the latter.
    """

    masks: Bool[np.ndarray, 'M N']
    losses: Float[np.ndarray, 'M T']
    held_out: HeldOut


def hold_out_last(masks: Masks, losses: Measurement) -> Split:
    """Holds out the last quarter of an ensemble's masks, at least 8 of them.

    Raises:
        ValueError: fewer than 16 different masks, or as in `held_out_members`.
    """
    masks, losses = finite_members(masks, losses)
    subset = numbered_repeats(masks)
    different = int(subset.max()) + 1
    if different < 2 * LEAST_MASKS:
        raise ValueError(
            f'{different} different masks are too few to hold some out: train at least '
            f'{2 * LEAST_MASKS}, or judge by another run'
        )
    judges = subset >= different - max(LEAST_MASKS, different // 4)
    return Split(masks[~judges], losses[~judges], held_out_members(masks[judges], losses[judges]))


def split_by(masks: Masks, losses: Measurement, held_out: HeldOut) -> Split:
    """Leaves members out of an ensemble that have a mask of the held-out ones.

    Raises:
        ValueError: masks of another number of examples, or no member is left.
    """
    masks, losses = finite_members(masks, losses)
    if masks.shape[1] != held_out.masks.shape[1]:
        raise ValueError(
            f'held-out masks are of {held_out.masks.shape[1]} examples, the others of '
            f'{masks.shape[1]}: give both of the same dataset'
        )
    seen = {row.tobytes() for row in np.packbits(held_out.masks, axis=1)}
    kept = np.array([row.tobytes() not in seen for row in np.packbits(masks, axis=1)])
    if not kept.any():
        raise ValueError('every member has a held-out mask: none is left to estimate from')
    return Split(masks[kept], losses[kept], held_out)
