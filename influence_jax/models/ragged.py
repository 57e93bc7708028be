"""Rows of different lengths laid end to end, so that nothing is computed for their padding."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


class Places(NamedTuple):
    """Where each of C packed entries comes from.

    row: `[C]` ascending.
    column: `[C]`.
    used: `[C]`; the last ones are not where the rows need fewer than C.
    """

    row: Int[Array, ' C']
    column: Int[Array, ' C']
    used: Bool[Array, ' C']


def places(counts: Int[Array, ' B'], capacity: int) -> Places:
    """The first `counts[b]` columns of every row b, row after row.

    Args:
        counts: how many columns of each row are used.
        capacity: C; what does not fit in it is left out (see `fits`).
    """
    entry = jnp.arange(capacity)
    ends = jnp.cumsum(counts)
    row = (entry[:, None] >= ends[None, :]).sum(axis=1)
    used = row < len(counts)
    row = jnp.minimum(row, len(counts) - 1)
    return Places(row, jnp.where(used, entry - (ends - counts)[row], 0), used)


def fits(counts: Int[Array, ' B'], capacity: int) -> Bool[Array, '']:
    """Whether all rows fit."""
    return counts.sum() <= capacity


def pack(values: Shaped[Array, 'B S'], at: Places) -> Shaped[Array, ' C']:
    """Entries of a padded table, end to end; those of unused places mean nothing."""
    return values[at.row, at.column]


def sums(values: Float[Array, ' C'], at: Places, rows: int) -> Float[Array, ' B']:
    """What the packed values of each row add up to."""
    belongs = (at.row[None, :] == jnp.arange(rows)[:, None]) & at.used[None, :]
    return jnp.where(belongs, values[None, :], 0).sum(axis=1)
