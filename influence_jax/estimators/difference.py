"""Influence as a difference of means: members with the example against members without it."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from influence_jax.estimators.ensemble import check_both_sides, usable
from influence_jax.types import AnyArray, Influence, Masks, Measurement

TILE = 512
"""Targets estimated at once: large enough for fast products, small enough for any memory."""


def difference_in_means(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, 'T'] | None = None,
) -> Influence:
    """Influence of every example on every target, with its standard error.

    values[i, t] = mean of losses[:, t] over the members without example i - mean over those with
    it, so positive where including i lowers the loss (arXiv 2506.20481, section 2; Feldman and
    Zhang 2020). standard_error[i, t] = sqrt(s_in^2 / n_in + s_out^2 / n_out) with the unbiased
    variances s^2 of the two groups of members (Welch).

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      losses: `[M T]` what was measured of member m on target t, in any unit (nats for 'loss').
        Rows with anything non-finite, members missing or diverged, are left out.
      target_examples: taken so that all estimators are called alike; not needed here.

    Returns:
      Influence of float32 numpy arrays `[N T]`, in the unit of `losses`. Where the matrix is too
      large to be held, see `tiles` and `summarize`.

    Raises:
      ValueError: wrong types or shapes, no usable member, or examples that are in, or out of,
        fewer than two of the usable members.
    """
    blocks = tiles(masks, losses, target_examples=target_examples)
    return whole(blocks, examples=np.shape(masks)[1], targets=np.shape(losses)[1])


def whole(blocks: Iterator[tuple[slice, Influence]], *, examples: int, targets: int) -> Influence:
    """The matrix from its tiles: float32 numpy `[N T]`."""
    values = np.empty((examples, targets), np.float32)
    standard_error = np.empty_like(values)
    for columns, block in blocks:
        values[:, columns], standard_error[:, columns] = block
    return Influence(values, standard_error)


def tiles(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, 'T'] | None = None,
    tile: int = TILE,
) -> Iterator[tuple[slice, Influence]]:
    """Yields `difference_in_means` by blocks of targets, so that the matrix need never exist.

    Arguments are checked at the call, not at the first iteration.

    Args:
      masks: as in `difference_in_means`.
      losses: as in `difference_in_means`.
      target_examples: as there.
      tile: how many targets at once.

    Yields:
      The targets as a slice, and their Influence `[N tile]` (the last may be narrower), jax arrays.

    Raises:
      ValueError: as in `difference_in_means`, or `tile` below 1.
    """
    if tile < 1:
        raise ValueError(f'{tile=} must be at least 1')
    ensemble = usable(masks, losses)
    check_both_sides(ensemble.masks)
    return by_tiles(estimate, *ensemble, tile=tile)


def by_tiles(
    estimate_tile: Callable[..., Influence],
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    *per_target: Int[np.ndarray, 'T'],
    tile: int,
) -> Iterator[tuple[slice, Influence]]:
    """Runs an estimator over blocks of targets, each standardized and padded to one shape.

    Args:
      estimate_tile: jitted; takes the masks as floats `[M N]`, losses `[M t]` centred and within
        [-1, 1], their scale `[t]`, and the block of every `per_target`.
      masks: of usable members.
      losses: of the same.
      per_target: more arguments of the estimator; padded with zeros.
      tile: how many targets at once.
    """
    member_weights = jnp.asarray(masks, jnp.float32)
    for columns, centred, scale in standardized_tiles(losses, tile=tile):
        own_rows = (padded(row[columns], len(scale)) for row in per_target)
        block = estimate_tile(member_weights, centred, scale, *own_rows)
        yield columns, cut(block, columns)


def standardized_tiles(
    losses: Float[np.ndarray, 'M T'], *, tile: int
) -> Iterator[tuple[slice, Float[np.ndarray, 'M t'], Float[np.ndarray, 't']]]:
    """Yields blocks of targets: which, their losses centred and within [-1, 1], their scale.

    The last block is filled up with zeros to the width of the others: one compilation for all.
    """
    targets = losses.shape[1]
    tile = min(tile, targets)
    for start in range(0, targets, tile):
        columns = slice(start, min(start + tile, targets))
        centred, scale = _standardize(losses[:, columns])
        filling = tile - len(scale)
        yield columns, np.pad(centred, [(0, 0), (0, filling)]), padded(scale, tile)


def padded(row: np.ndarray, width: int, *, fill: int = 0) -> np.ndarray:
    """One entry a target, filled up to the width of a block."""
    return np.pad(row, (0, width - len(row)), constant_values=fill)


def cut(block: Influence, columns: slice) -> Influence:
    """A block without what it was filled up with."""
    width = columns.stop - columns.start
    return block if block.values.shape[1] == width else Influence(*(a[:, :width] for a in block))


def _standardize(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred and scaled into [-1, 1], so that float32 sums of squares neither cancel nor overflow.

    Done in float64 on the host, where one tile costs nothing. What is no more than the rounding of
    its last bits would be scaled up like anything else: it counts as zero.
    """
    # Exact where all are the same, whatever their mean is rounded to.
    centred = losses - losses[:1].astype(np.float64)
    centred -= centred.mean(axis=0, keepdims=True)
    largest = np.abs(centred).max(axis=0)
    rounding = 4 * np.finfo(np.float64).eps * np.abs(losses).max(axis=0).astype(np.float64)
    nothing = largest <= np.maximum(rounding, np.finfo(np.float32).tiny)
    centred[:, nothing], largest[nothing] = 0, 0
    centred /= np.where(largest > 0, largest, 1)
    return centred.astype(np.float32), largest.astype(np.float32)


@jax.jit
def estimate(
    masks: Float[Array, 'M N'], losses: Float[Array, 'M t'], scale: Float[Array, 't']
) -> Influence:
    """The difference of means of one block of targets, as `by_tiles` calls it."""

    # Accelerators round products of float32 to 10 bits unless told not to.
    def sums(x: Array) -> tuple[Array, Array]:
        included = jnp.matmul(masks.T, x, precision=jax.lax.Precision.HIGHEST)
        return included, x.sum(axis=0, keepdims=True) - included

    def mean_and_its_variance(n: Array, total: Array, squares: Array) -> tuple[Array, Array]:
        mean = total / n
        return mean, jnp.maximum(squares - total * mean, 0) / ((n - 1) * n)

    n_in = masks.sum(axis=0)[:, None]
    total_in, total_out = sums(losses)
    squares_in, squares_out = sums(losses**2)
    mean_in, variance_in = mean_and_its_variance(n_in, total_in, squares_in)
    mean_out, variance_out = mean_and_its_variance(len(masks) - n_in, total_out, squares_out)
    return Influence(
        (mean_out - mean_in) * scale[None, :],
        jnp.sqrt(variance_in + variance_out) * scale[None, :],
    )
