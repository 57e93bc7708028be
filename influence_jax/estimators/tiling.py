"""Estimates by blocks of targets, so that the matrix need never exist."""

from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.resources import available_bytes
from influence_jax.threads import IN_CACHE, in_threads
from influence_jax.types import Influence

TILE = 512
"""Targets estimated at once: large enough for fast products, small enough for any memory."""

_MOST_ENTRIES = 2**26  # of a block of columns, several arrays of which are there at once
_LEAST_TILE = 16


def tile_for(examples: int) -> int:
    """How many targets are scanned at once: `TILE`, and fewer where columns are long.

    So that a block of columns takes 256 MiB as float32, whatever N is.
    """
    return max(_LEAST_TILE, min(TILE, _MOST_ENTRIES // max(1, examples)))


def whole(blocks: Iterator[tuple[slice, Influence]], *, examples: int, targets: int) -> Influence:
    """The matrix from its tiles: float32 numpy `[N T]`.

    Raises:
      MemoryError: the machine has less memory than values and errors take.
    """
    needed = 2 * 4 * examples * targets
    if (available := available_bytes()) is not None and needed > available:
        raise MemoryError(
            f'influence of {examples:,} examples on {targets:,} targets takes {needed:,} bytes '
            f'with its errors, and {available:,} are available: summarize it, or estimate some '
            f'columns (Run.summary, Run.column, Columns.tiles), which never hold all'
        )
    values = np.empty((examples, targets), np.float32)
    standard_error = np.empty_like(values)
    for columns, block in blocks:
        values[:, columns], standard_error[:, columns] = block
    return Influence(values, standard_error)


def tile_slices(targets: int, tile: int) -> Iterator[slice]:
    """Yields all targets in blocks of `tile`; the last may be narrower."""
    for start in range(0, targets, tile):
        yield slice(start, min(start + tile, targets))


def by_tiles(
    estimate_tile: Callable[..., Influence],
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    *per_target: Int[np.ndarray, ' T'],
    tile: int,
) -> Iterator[tuple[slice, Influence]]:
    """Runs an estimator over blocks of targets, each standardized and padded to one shape.

    Args:
      estimate_tile: jitted; takes the masks as floats `[M N]`, losses `[M t]` centered and within
        [-1, 1], their scale `[t]`, and the block of every `per_target`.
      masks: of complete members.
      losses: of the same.
      per_target: more arguments of the estimator; padded with zeros.
      tile: how many targets at once.
    """
    member_weights = jnp.asarray(masks, jnp.float32)
    for columns, centered, scale in standardized_tiles(losses, tile=tile):
        own_rows = (padded(row[columns], len(scale)) for row in per_target)
        block = estimate_tile(member_weights, centered, scale, *own_rows)
        yield columns, cut(block, columns)


def standardized_tiles(
    losses: Float[np.ndarray, 'M T'], *, tile: int
) -> Iterator[tuple[slice, Float[np.ndarray, 'M t'], Float[np.ndarray, ' t']]]:
    """Yields blocks of targets: which, their losses centered and within [-1, 1], their scale.

    The last block is filled up with zeros to the width of the others: one compilation for all.
    """
    tile = min(tile, losses.shape[1])
    for columns in tile_slices(losses.shape[1], tile):
        yield columns, *standardized_block(losses[:, columns], width=tile)


def standardized_block(
    losses: Float[np.ndarray, 'M t'], *, width: int
) -> tuple[Float[np.ndarray, 'M {width}'], Float[np.ndarray, ' {width}']]:
    """As `standardized`, filled up with zeros to a width."""
    # Each target's in one piece: kernels read them target by target.
    centered = np.zeros((width, len(losses)), np.float32).T
    scale = np.zeros(width, np.float32)

    def fill(some: slice) -> None:
        centered[:, some], scale[some] = standardized(losses[:, some])

    in_threads(fill, losses.shape[1], step=IN_CACHE)
    return centered, scale


def padded(row: np.ndarray, width: int, *, fill: int = 0) -> np.ndarray:
    """One entry a target, filled up to the width of a block."""
    return np.pad(row, (0, width - len(row)), constant_values=fill)


def padded_columns(losses: Float[np.ndarray, 'M t'], width: int) -> Float[np.ndarray, 'M w']:
    """Losses filled up with zeros to the width of a block, each target's in one piece."""
    if losses.shape[1] == width:
        return losses
    return np.pad(losses.T, [(0, width - losses.shape[1]), (0, 0)]).T


def cut(block: Influence, columns: slice) -> Influence:
    """A block without what it was filled up with."""
    width = columns.stop - columns.start
    return block if block.values.shape[1] == width else Influence(*(a[:, :width] for a in block))


def standardized(
    losses: Float[np.ndarray, 'M t'],
) -> tuple[Float[np.ndarray, 'M t'], Float[np.ndarray, ' t']]:
    """Centers and scales losses into [-1, 1]: float32 sums of squares neither cancel nor overflow.

    Done in float64 on the host, where one tile costs nothing. What is no more than the rounding of
    its last bits would be scaled up like anything else: it counts as zero.
    """
    # Exact where all are the same, whatever their mean is rounded to.
    centered = losses - losses[:1].astype(np.float64)
    centered -= centered.mean(axis=0, keepdims=True)
    largest = np.abs(centered).max(axis=0)
    rounding = 4 * np.finfo(np.float64).eps * np.abs(losses).max(axis=0).astype(np.float64)
    nothing = largest <= np.maximum(rounding, np.finfo(np.float32).tiny)
    centered[:, nothing], largest[nothing] = 0, 0
    centered /= np.where(largest > 0, largest, 1)
    return centered.astype(np.float32), largest.astype(np.float32)
