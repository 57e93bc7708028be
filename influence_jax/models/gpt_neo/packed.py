"""Records laid end to end, and the network on them, so that nothing is computed for padding.

Tokens are cut into blocks. A token finds all of its record in its own block and the few before
it that the longest record may reach back to, so attention looks no further.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from influence_jax.kernels import functions, packed_attention
from influence_jax.models.gpt_neo.network import GPTNeo, Heads, attention
from influence_jax.models.lora import Adapters

BLOCK = 32
"""Tokens of a block: larger ones see more that they do not need, smaller ones are slow to cut."""


class Places(NamedTuple):
    """Where each of C packed entries comes from.

    row: `[C]` ascending.
    column: `[C]`.
    used: `[C]`; the last ones are not where the rows need fewer than C.
    """

    row: Int[Array, ' C']
    column: Int[Array, ' C']
    used: Bool[Array, ' C']

    @property
    def record(self) -> Int[Array, ' C']:
        """The row where there is one; else a number of its own, so that it reads itself alone."""
        return jnp.where(self.used, self.row, self.row + 1 + jnp.arange(len(self.row)))


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


def whole_blocks(tokens: int) -> int:
    """The number of tokens, rounded up to whole blocks."""
    return -(-tokens // BLOCK) * BLOCK


def hidden(
    model: GPTNeo,
    tokens: Int[Array, ' C'],
    record: Int[Array, ' C'],
    position: Int[Array, ' C'],
    *,
    longest: int,
    adapters: Adapters | None = None,
) -> Float[Array, 'C D']:
    """The last hidden states of each token, as `GPTNeo.hidden` gives them for padded records.

    Args:
        model: the network.
        tokens: of all records, one after the other; C is a multiple of `BLOCK`.
        record: which record each belongs to; ascending.
        position: of each in its record.
        longest: tokens of the longest record, or more.
        adapters: as for `GPTNeo.hidden`.

    Raises:
        ValueError: C is no multiple of `BLOCK`, or `longest` is more than there are positions.
    """
    count, block = len(tokens), BLOCK
    if count % block:
        raise ValueError(f'{count} tokens do not divide into blocks of {block}')
    positions = model.config.max_positions
    if longest > positions:  # beyond them jax would take the last row again and again
        raise ValueError(
            f'{longest} tokens, but the network has max_positions={positions}; cut the texts'
        )

    def attend(q: Heads, k: Heads, v: Heads, window: int, _: None) -> tuple[Heads, None]:
        reach = min(longest, window)
        form = _form_in_jax(reach)
        q, k, v = (x[0].swapaxes(0, 1) for x in (q, k, v))
        if packed_attention.serves(reach, q, k, v):
            kind = packed_attention.PackedAttention(reach, form)
            read = functions.call(kind, q, k, v, record.astype(jnp.int32))
        else:
            read = form(q, k, v, record)
        return read.swapaxes(0, 1)[None], None

    rows = model.position_embedding[position]
    x = model.embed(tokens[None], rows[None])
    x, _ = model.through_layers(x, attend, adapters=adapters)
    return model.final_norm(x)[0]


@functools.cache
def _form_in_jax(reach: int) -> Callable[..., Array]:
    """One function a reach, so that a program which knows it is not compiled again."""
    return functools.partial(_attended, reach)


def _attended(
    reach: int,
    queries: Float[Array, 'C H d'],
    keys: Float[Array, 'C H d'],
    values: Float[Array, 'C H d'],
    record: Int[Array, ' C'],
) -> Float[Array, 'C H d']:
    q, k, v = (x.swapaxes(0, 1)[None] for x in (queries, keys, values))
    return _attended_in_blocks(q, k, v, record, reach, longest=reach)[0].swapaxes(0, 1)


def _attended_in_blocks(
    q: Heads, k: Heads, v: Heads, record: Int[Array, ' C'], window: int, *, longest: int
) -> Float[Array, '1 H C d']:
    """Of each token to the last `window` tokens of its record, itself included."""
    block, (_, heads, count, width) = BLOCK, q.shape
    before = -(-(longest - 1) // block)
    same_record = _same_record(record, block, before)
    # Of a query at i of its block to a key at j of all that it sees.
    distance = before * block + np.arange(block)[:, None] - np.arange((before + 1) * block)[None, :]
    seen = same_record & ((distance >= 0) & (distance < window))[None]
    q, k, v = (_cut(x, block) for x in (q, k, v))
    k, v = (_with_blocks_before(x, before, axis=2) for x in (k, v))
    read = attention(q, k, v, seen[:, None])
    return read.swapaxes(0, 1).reshape(1, heads, count, width)


def _same_record(record: Int[Array, ' C'], block: int, before: int) -> Bool[Array, 'n W K']:
    records = record.reshape(-1, block)
    seen = _with_blocks_before(records, before, axis=1, fill=-1)
    return records[:, :, None] == seen[:, None, :]


def _cut(x: Heads, block: int) -> Float[Array, 'n H W d']:
    _, heads, count, width = x.shape
    return x.reshape(heads, count // block, block, width).swapaxes(0, 1)


def _with_blocks_before(x: Array, before: int, *, axis: int, fill: int = 0) -> Array:
    """Each block after the `before` ones that precede it, `fill` where there are none."""
    count = len(x)
    padded = jnp.pad(x, [(before, 0)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
    parts = [padded[first : first + count] for first in range(before + 1)]
    return jnp.concatenate(parts, axis=axis)
