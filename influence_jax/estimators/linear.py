"""What the regressions of losses on all masks have in common."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.ensemble import check_both_sides, examples_of_targets, usable
from influence_jax.types import AnyArray, Influence, Masks, Measurement


class Regression(NamedTuple):
    """Losses, and what they are regressed on: each column of the masks once.

    masks: `[M C]` the distinct columns, of usable members.
    losses: `[M T]` of the same.
    own: `[T]` the column of the target's own example, -1 where it is none.
    column: `[N]` which column is that of each example.
    """

    masks: Bool[np.ndarray, 'M C']
    losses: Float[np.ndarray, 'M T']
    own: Int[np.ndarray, ' T']
    column: Int[np.ndarray, ' N']


def regression(
    masks: Masks, losses: Measurement, target_examples: Int[AnyArray, ' T'] | None, *, tile: int
) -> Regression:
    """Checks and prepares the arguments of an estimator; examples of one group are one column.

    Raises:
      ValueError: as in `difference_in_means`, or `tile` below 1.
    """
    if tile < 1:
        raise ValueError(f'{tile=} must be at least 1')
    ensemble = usable(masks, losses)
    check_both_sides(ensemble.masks)
    examples, targets = ensemble.masks.shape[1], ensemble.losses.shape[1]
    own = examples_of_targets(target_examples, examples=examples, targets=targets)
    packed = np.packbits(ensemble.masks.T, axis=1)
    _, first, column = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    # In the order of first appearance, so that nothing moves where all columns are distinct.
    order = np.argsort(first)
    column = np.argsort(order)[column.ravel()]
    return Regression(
        ensemble.masks[:, first[order]],
        ensemble.losses,
        np.where(own >= 0, column[own], -1),
        column,
    )


def of_examples(
    blocks: Iterator[tuple[slice, Influence]], column: Int[np.ndarray, ' N']
) -> Iterator[tuple[slice, Influence]]:
    """Gives every example the entries of its column."""
    for targets, block in blocks:
        yield targets, Influence(block.values[column], block.standard_error[column])
