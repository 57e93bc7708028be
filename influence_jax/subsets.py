"""Subsets: from a key and a design to masks `[M N]`, row m the subset on which member m trains.

Three designs, each also over groups of examples that enter and leave together, and with repeats:
several members that share a mask. In the first two designs row m is drawn from `fold_in(key, m)`
alone, so more members can be added later without changing the earlier ones.
"""

import dataclasses
import enum
import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from influence_jax.types import AnyArray, PRNGKey

# Draws made at once: bounds the memory of the random numbers and sort buffers (16 MiB each).
_TILE_ENTRIES = 2**22


class Design(enum.Enum):
    """How subsets are drawn; see the function of the same name."""

    INDEPENDENT = 'independent'
    EXACT_SIZE = 'exact_size'
    BALANCED = 'balanced'

    @property
    def can_grow(self) -> bool:
        """Whether more members leave the masks of the first ones as they are."""
        return self is not Design.BALANCED


@dataclasses.dataclass(frozen=True)
class ByGroup:
    """A design over a dataset's groups, the examples of which enter and leave together."""

    design: Design = Design.INDEPENDENT


def independent(
    *, key: PRNGKey, members: int, examples: int, inclusion_prob: float = 0.5
) -> Bool[np.ndarray, 'M N']:
    """Includes every example in every member independently with probability `inclusion_prob`.

    The paper's design (arXiv 2506.20481), there with `inclusion_prob=0.5`.

    Args:
      key: row m depends only on `fold_in(key, m)`, on `examples` and on `inclusion_prob`.
      members: M, at least 1.
      examples: N, at least 2.
      inclusion_prob: probability of inclusion, in (0, 1).

    Returns:
      Masks, True where the example is in the member's subset.

    Raises:
      ValueError: an argument is out of range, or `inclusion_prob` of N rounds to no or
        to all examples.
    """
    _check(members, examples, inclusion_prob)
    tile = partial(_bernoulli_tile, key, inclusion_prob=inclusion_prob, columns=examples)
    return _stack(tile, members, examples)


def exact_size(
    *, key: PRNGKey, members: int, examples: int, inclusion_prob: float = 0.5
) -> Bool[np.ndarray, 'M N']:
    """Draws each member's subset uniformly among those of exactly round(inclusion_prob N) examples.

    Arguments, result and errors as for `independent`; row m depends only on `fold_in(key, m)`,
    on `examples` and on `inclusion_prob`.
    """
    _check(members, examples, inclusion_prob)
    return _choices(key, members, examples, round(inclusion_prob * examples))


def balanced(
    *, key: PRNGKey, members: int, examples: int, inclusion_prob: float = 0.5
) -> Bool[np.ndarray, 'M N']:
    """Puts every example into exactly `inclusion_prob` M members, drawn uniformly for each.

    Arguments, result and errors as for `independent`, and `inclusion_prob` M must be whole. The
    masks depend on `key` and on M: adding members changes the earlier rows.
    """
    _check(members, examples, inclusion_prob)
    times = round(inclusion_prob * members)
    if not math.isclose(times, inclusion_prob * members, abs_tol=1e-6) or not 0 < times < members:
        raise ValueError(
            f'a balanced design puts every example into inclusion_prob * members = '
            f'{inclusion_prob * members:g} members, which must be a whole number from 1 to '
            f'members - 1 = {members - 1}; change members or inclusion_prob'
        )
    # Column i is a choice among the members, as a row of `exact_size` is one among the examples.
    return np.ascontiguousarray(_choices(key, examples, members, times).T)


def draw(
    design: Design,
    *,
    key: PRNGKey,
    members: int,
    examples: int,
    inclusion_prob: float = 0.5,
    groups: Int[AnyArray, ' N'] | None = None,
    repeats: int = 1,
) -> Bool[np.ndarray, 'M N']:
    """Draws the masks of a design, over the examples or over groups of them.

    Args:
      design: which of the functions above draws.
      key: see the design.
      members: M.
      examples: N.
      inclusion_prob: the design's probability, or fraction, of inclusion.
      groups: the group's id of each example. Masks are then drawn over the distinct ids (in
        their sorted order, counted as the design's examples) and spread to the examples, so that
        a group is either wholly in a subset or wholly out of it.
      repeats: how many members in a row share a mask; divides M.

    Returns:
      Masks `[M N]`, True where the example is in the member's subset.

    Raises:
      ValueError: as the design does; `repeats` do not divide M; or `groups` are not N integers.
    """
    if repeats < 1 or members % repeats:
        raise ValueError(f'{members=} must be a multiple of {repeats=}')
    if repeats > 1:
        masks = draw(
            design,
            key=key,
            members=members // repeats,
            examples=examples,
            inclusion_prob=inclusion_prob,
            groups=groups,
        )
        return np.repeat(masks, repeats, axis=0)
    if groups is None:
        return _DRAW[design](
            key=key, members=members, examples=examples, inclusion_prob=inclusion_prob
        )
    ids = np.asarray(groups)
    if ids.shape != (examples,) or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f'groups must be one integer id for each of the {examples} examples; '
            f'found {ids.dtype} of shape {ids.shape}'
        )
    distinct, group_of_example = np.unique(ids, return_inverse=True)
    try:
        masks = _DRAW[design](
            key=key, members=members, examples=len(distinct), inclusion_prob=inclusion_prob
        )
    except ValueError as error:
        raise ValueError(f'masks over {len(distinct)} groups: {error}') from error
    return np.take(masks, group_of_example, axis=1)


_DRAW: dict[Design, Callable[..., Bool[np.ndarray, 'M N']]] = {
    Design.INDEPENDENT: independent,
    Design.EXACT_SIZE: exact_size,
    Design.BALANCED: balanced,
}


def _check(members: int, examples: int, inclusion_prob: float) -> None:
    if members < 1:
        raise ValueError(f'{members=} must be at least 1')
    if examples < 2:
        raise ValueError(f'{examples=} must be at least 2: subsets must be able to differ')
    if not 0 < inclusion_prob < 1:
        raise ValueError(f'{inclusion_prob=} must lie strictly between 0 and 1')
    size = round(inclusion_prob * examples)
    if not 0 < size < examples:
        raise ValueError(
            f'{inclusion_prob=} of {examples} examples rounds to {size} in a subset, '
            f'but it must hold at least 1 and at most {examples - 1}; change '
            'inclusion_prob or examples'
        )


def _choices(key: PRNGKey, rows: int, columns: int, size: int) -> Bool[np.ndarray, 'rows columns']:
    """Rows with exactly `size` True entries each, uniformly drawn."""
    return _stack(partial(_choice_tile, key, size=size, columns=columns), rows, columns)


def _stack(
    draw_tile: Callable[..., Bool[Array, 'tile columns']], rows: int, columns: int
) -> Bool[np.ndarray, 'rows columns']:
    """Stacks the rows that `draw_tile(start, tile=...)` draws from row `start` on."""
    tile = max(1, min(rows, _TILE_ENTRIES // columns))
    stacked = np.empty((rows, columns), bool)
    for start in range(0, rows, tile):
        # The last tile is drawn whole and cut, so that nothing is compiled twice.
        stacked[start : start + tile] = np.asarray(draw_tile(start, tile=tile))[: rows - start]
    return stacked


@partial(jax.jit, static_argnames=('tile', 'columns'))
def _bernoulli_tile(
    key: PRNGKey,
    start: Int[Array, ''],
    *,
    tile: int,
    columns: int,
    inclusion_prob: Float[Array, ''],
) -> Bool[Array, 'tile columns']:
    return jax.vmap(lambda row_key: jax.random.bernoulli(row_key, inclusion_prob, (columns,)))(
        _row_keys(key, start, tile)
    )


@partial(jax.jit, static_argnames=('tile', 'columns'))
def _choice_tile(
    key: PRNGKey, start: Int[Array, ''], *, tile: int, columns: int, size: Int[Array, '']
) -> Bool[Array, 'tile columns']:
    return jax.vmap(lambda row_key: _smallest(jax.random.bits(row_key, (columns,)), size))(
        _row_keys(key, start, tile)
    )


def _row_keys(key: PRNGKey, start: Int[Array, ''], tile: int) -> Key[Array, ' tile']:
    rows = start + jnp.arange(tile, dtype=jnp.uint32)
    return jax.vmap(partial(jax.random.fold_in, key))(rows)


def _smallest(
    bits: UInt32[Array, ' columns'], size: int | Int[Array, '']
) -> Bool[Array, ' columns']:
    """Marks exactly `size` smallest entries; sorting alone is far cheaper than an argsort."""
    largest = jnp.sort(bits)[size - 1]
    below = bits < largest
    # Equal numbers are rare but happen; the first of them fill what is left of the size.
    tied = bits == largest
    return below | (tied & (jnp.cumsum(tied) <= size - jnp.sum(below)))
