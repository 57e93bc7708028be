"""Influence as a difference of means: members with the example against members without it."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from influence_jax.estimators import errors
from influence_jax.estimators.ensemble import check_both_sides, examples_of_targets, usable
from influence_jax.estimators.self_error import self_errors
from influence_jax.estimators.tiling import TILE, by_tiles, whole
from influence_jax.types import AnyArray, Influence, Masks, Measurement


def difference_in_means(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> Influence:
    """Influence of every example on every target, with its standard error.

    values[i, t] = mean of losses[:, t] over the members without example i - mean over those with
    it, so positive where including i lowers the loss (arXiv 2506.20481, section 2; Feldman and
    Zhang 2020). Standard errors are read with Student's t of M - 2 degrees of freedom
    (`intervals`, `p_values`): standard_error[i, t] = sqrt(s^2 / n_in + s^2 / n_out), s^2 being
    the variance within both groups of members together, or Welch's where an entry is beyond noise
    and that is the larger (`estimators.errors`). Those of self-influence, which a few members may
    carry alone, are Welch's, widened (`estimators.self_error`).

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      losses: `[M T]` what was measured of member m on target t, in any unit (nats for 'loss').
        Rows with anything non-finite, members missing or diverged, are left out.
      target_examples: `[T]` position of the example that each target is, -1 where it is none.
        By default target t is example t if T == N, and otherwise no target is an example.

    Returns:
      Influence of float32 numpy arrays `[N T]`, in the unit of `losses`. Where the matrix is too
      large to be held, see `tiles` and `summarize`.

    Raises:
      ValueError: wrong types or shapes, no usable member, or examples that are in, or out of,
        fewer than two of the usable members.
    """
    blocks = tiles(masks, losses, target_examples=target_examples)
    return whole(blocks, examples=np.shape(masks)[1], targets=np.shape(losses)[1])


def tiles(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
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
    examples, targets = ensemble.masks.shape[1], ensemble.losses.shape[1]
    own = examples_of_targets(target_examples, examples=examples, targets=targets)
    return _with_self_errors(ensemble.masks, ensemble.losses, own, tile=tile)


def _with_self_errors(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    own: Int[np.ndarray, ' T'],
    *,
    tile: int,
) -> Iterator[tuple[slice, Influence]]:
    of_own = self_errors(masks, losses, own).standard_error
    for columns, block in by_tiles(estimate, masks, losses, tile=tile):
        at = np.flatnonzero(own[columns] >= 0)
        standard_error = np.array(block.standard_error)
        standard_error[own[columns][at], at] = of_own[columns][at]
        yield columns, Influence(block.values, standard_error)


@jax.jit
def estimate(
    masks: Float[Array, 'M N'], losses: Float[Array, 'M t'], scale: Float[Array, ' t']
) -> Influence:
    """The difference of means of one block of targets, as `by_tiles` calls it.

    Of every entry alike, own ones too; losses are centred and within [-1, 1].
    """

    # Accelerators round products of float32 to 10 bits unless told not to.
    def sums(x: Array) -> tuple[Array, Array]:
        included = jnp.matmul(masks.T, x, precision=jax.lax.Precision.HIGHEST)
        return included, x.sum(axis=0, keepdims=True) - included

    def mean_and_squares_about_it(n: Array, total: Array, squares: Array) -> tuple[Array, Array]:
        mean = total / n
        return mean, jnp.maximum(squares - total * mean, 0)

    n_in = masks.sum(axis=0)[:, None]
    total_in, total_out = sums(losses)
    squares_in, squares_out = sums(losses**2)
    mean_in, within_in = mean_and_squares_about_it(n_in, total_in, squares_in)
    mean_out, within_out = mean_and_squares_about_it(len(masks) - n_in, total_out, squares_out)
    standard_error = errors.standard_error(
        mean_out - mean_in,
        within_in,
        within_out,
        included=n_in,
        members=len(masks),
        of=errors.Shape(*(row[None, :] for row in errors.shape(losses, xp=jnp))),
        xp=jnp,
    )
    return Influence((mean_out - mean_in) * scale[None, :], standard_error * scale[None, :])
