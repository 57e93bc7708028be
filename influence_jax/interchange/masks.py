"""Subsets as others write them, made masks where there is no doubt about what they mean."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

from influence_jax.text import quoted

Subsets: TypeAlias = np.ndarray | Sequence[Sequence[int]]
"""A matrix of what is in each member's subset, or the positions of the examples that are."""

_NAMED = 5


def as_masks(
    subsets: Subsets, *, examples: int | None = None, source: str = 'masks'
) -> Bool[np.ndarray, 'M N']:
    """Returns masks of subsets that are written in one of the usual ways.

    Booleans, numbers 0 and 1, numbers -1 and 1 (1 is in), or, with `examples`, the positions of
    each member's examples, of one or of different lengths. What could be read in two ways is
    refused.

    Args:
        subsets: `[M N]`, or positions from 0 of M members' examples.
        examples: N, for positions; a matrix of another width holds positions.
        source: what the subsets are called in messages.

    Raises:
        ValueError: it is none of these, or could be two of them.
    """
    if not isinstance(subsets, np.ndarray):
        rows = [np.asarray(row) for row in subsets]
        lengths = {len(row) if row.ndim == 1 else -1 for row in rows}
        if -1 in lengths or not rows:
            raise ValueError(f'{source} must hold one list of positions, or one row, a member')
        if len(lengths) > 1 or rows[0].dtype.kind == 'O':
            return _of_positions(rows, examples, source)
        subsets = np.stack(rows)
    if subsets.ndim != 2 or not subsets.size:
        raise ValueError(
            f'{source} must hold a matrix [members examples], not one of {list(subsets.shape)}'
        )
    if examples is not None and subsets.shape[1] != examples:
        return _of_positions(list(subsets), examples, source)
    if subsets.dtype == bool:
        return np.asarray(subsets)
    if subsets.dtype.kind not in 'iuf':
        raise ValueError(f'{source} holds {subsets.dtype}, neither booleans nor numbers')
    found = np.unique(subsets)
    for pair in ((0, 1), (-1, 1)):
        if np.isin(found, pair).all():
            if len(found) == 1:
                raise ValueError(
                    f'{source} holds {found[0]:g} alone, which may mean in or out: save booleans'
                )
            return np.asarray(subsets == 1)
    if _may_be_positions(subsets):
        raise ValueError(
            f'{source} seems to hold positions of examples (0 .. {int(found[-1])}): give the '
            f'number of examples'
        )
    shown = ', '.join(f'{value:g}' for value in found[:_NAMED])
    raise ValueError(
        f'{source} holds {subsets.dtype} with values such as {shown}, which are neither 0 and 1 '
        f'nor -1 and 1: save an array that is True where the member was trained on the example'
    )


def _may_be_positions(subsets: np.ndarray) -> bool:
    if subsets.dtype.kind not in 'iu' or subsets.min() < 0:
        return False
    ordered = np.sort(subsets, axis=1)
    return bool((np.diff(ordered, axis=1) > 0).all())


def _of_positions(
    rows: Sequence[np.ndarray], examples: int | None, source: str
) -> Bool[np.ndarray, 'M N']:
    if examples is None:
        raise ValueError(
            f'{source} holds lists of positions of different lengths: give the number of examples'
        )
    masks = np.zeros((len(rows), examples), bool)
    for member, row in enumerate(rows):
        if not len(row):
            continue
        if row.dtype.kind not in 'iu':
            raise ValueError(
                f'{source} of member {member} holds {row.dtype}, not positions of '
                f'{examples:,} examples, and is no row of as many'
            )
        outside = row[(row < 0) | (row >= examples)]
        if outside.size:
            raise ValueError(
                f'{source} of member {member} holds position {outside[0]}, but positions of '
                f'{examples:,} examples are 0 to {examples - 1}'
            )
        if len(np.unique(row)) != len(row):
            raise ValueError(
                f'{source} of member {member} holds a position twice: a subset holds an example '
                f'once; is it a batch order, or a mask of numbers ({quoted("astype(bool)")})?'
            )
        masks[member, row] = True
    return masks
