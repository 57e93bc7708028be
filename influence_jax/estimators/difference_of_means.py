"""Influence as a difference of means: members with the example against members without it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from influence_jax.estimators import standard_errors
from influence_jax.estimators.ensemble import problem
from influence_jax.estimators.estimator import Fit, Tiles, estimator
from influence_jax.estimators.mask_columns import distinct
from influence_jax.estimators.mask_products import HALVES
from influence_jax.estimators.scan import Scan, SingleEntries, scan_for
from influence_jax.estimators.self_influence import (
    own_entries,
    self_errors,
    unseen_error,
    widened_error,
)
from influence_jax.estimators.tiling import TILE, by_tiles, padded
from influence_jax.threads import IN_CACHE, in_threads
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_COMPARED = 8


@estimator(
    name='difference',
    title='difference of means',
    description='the mean loss of members without the example minus that of members with it',
    least_members=4,
    block_fit=lambda *ensemble: NoRegressors(*ensemble),
)
def difference_in_means(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    tile: int = TILE,
) -> Tiles:
    """Influence of every example on every target, with its standard error.

    values[i, t] = mean of losses[:, t] over the members without example i - mean over those with
    it, so positive where including i lowers the loss (arXiv 2506.20481, section 2; Feldman and
    Zhang 2020). Standard errors are read with Student's t of M - 2 degrees of freedom
    (`intervals`, `p_values`): standard_error[i, t] = sqrt(s^2 / n_in + s^2 / n_out), s^2 being
    the variance within both groups of members together, or Welch's where an entry is beyond noise
    and that is the larger (`estimators.standard_errors`). Those of self-influence, which a few
    members may carry alone, are Welch's, widened (`self_influence.self_errors`).

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      losses: `[M T]` what was measured of member m on target t, in any unit (nats for 'loss').
        Rows with anything non-finite, members missing or diverged, are left out.
      target_examples: `[T]` position of the example that each target is, -1 where it is none.
        By default target t is example t if T == N, and otherwise no target is an example.
      tile: how many targets are estimated at once.

    Returns:
      Influence of float32 numpy arrays `[N T]`, in the unit of `losses`. Where the matrix is too
      large to be held, see its `tiles` and `summarize`.

    Raises:
      ValueError: wrong types or shapes, no complete member, or examples that are in, or out of,
        fewer than two of the complete members.
    """
    return _with_self_errors(*problem(masks, losses, target_examples, tile=tile), tile=tile)


def _with_self_errors(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    self_index: Int[np.ndarray, ' T'],
    *,
    tile: int,
) -> Tiles:
    of_self = self_errors(masks, losses, self_index).standard_error
    for columns, block in by_tiles(estimate, masks, losses, tile=tile):
        at = np.flatnonzero(self_index[columns] >= 0)
        standard_error = np.array(block.standard_error)
        standard_error[self_index[columns][at], at] = of_self[columns][at]
        yield columns, Influence(block.values, standard_error)


@jax.jit
def estimate(
    masks: Float[Array, 'M N'], losses: Float[Array, 'M t'], scale: Float[Array, ' t']
) -> Influence:
    """The difference of means of one block of targets, as `by_tiles` calls it.

    Self-influences like all other entries; losses are centered and within [-1, 1].
    """

    # By default accelerators round products of float32 to 10 bits.
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
    standard_error = standard_errors.standard_error(
        mean_out - mean_in,
        within_in,
        within_out,
        included=n_in,
        members=len(masks),
        of=standard_errors.Shape(*(row[None, :] for row in standard_errors.shape(losses, xp=jnp))),
        xp=jnp,
    )
    return Influence((mean_out - mean_in) * scale[None, :], standard_error * scale[None, :])


class NoRegressors:
    """The difference of means as a regression on nothing; only self-influences stand apart.

    scan: of the masks.
    """

    def __init__(
        self,
        masks: Bool[np.ndarray, 'M N'],
        losses: Float[np.ndarray, 'M T'],
        self_index: Int[np.ndarray, ' T'],
    ) -> None:
        self._masks, self.scan = masks, scan_for(masks)
        self._compare = StrongestOther(masks, self.scan)
        self._unseen = unseen_error(masks, losses, self_index)

    def __call__(
        self,
        losses: Float[np.ndarray, 'M t'],
        self_index: Int[np.ndarray, ' t'],
        columns: slice | Int[np.ndarray, ' _'],
        scale: Float[np.ndarray, ' t'],
    ) -> Fit:
        """See `BlockFit`."""
        of_own = self.scan.single.moments(losses, self_index).merged()
        value, reliability = own_entries(of_own, members=len(losses))
        unseen = padded(self._unseen[columns], len(scale)) / np.where(scale > 0, scale, 1)
        error = widened_error(reliability, unseen, members=len(losses))
        return Fit(
            losses,
            self_index[:, None],
            value[:, None].astype(np.float32),
            error[:, None].astype(np.float32),
            np.ones(len(self_index), np.float32),
            np.where(self_index >= 0, reliability.effective_members, np.nan),
            self._compare(losses, without_self(self._masks, losses, self_index), self_index),
        )


class StrongestOther:
    """Finds each target's strongest other example, and its influence without the selection's bias.

    The largest of many noisy estimates is, on average, larger than the truth (the winner's curse);
    members that had no part in selecting an entry measure it without that bias: cross-fitting, here
    with two halves of the members, by difference of means.
    """

    def __init__(self, masks: Bool[np.ndarray, 'M N'], scan: Scan) -> None:
        self._scan = scan
        self._most = min(_COMPARED, masks.shape[1])
        # What the own example does, those that always go with it do.
        self._are_alone = distinct(masks).trivial

    def __call__(
        self,
        losses: Float[np.ndarray, 'M t'],
        left: Float[np.ndarray, 'M t'],
        self_index: Int[np.ndarray, ' t'],
    ) -> Float[np.ndarray, ' t']:
        """Of a block of targets, see `strongest_other`.

        Args:
          losses: centered, within [-1, 1].
          left: `without_self` of these.
          self_index: as in `Problem`.
        """
        left = left if self._are_alone else losses
        halves = self._scan.candidate_regressors(left, self_index, self._most, parts=2)
        return strongest_other(self._scan.single, left, halves, self_index)


def without_self(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M t'],
    self_index: Int[np.ndarray, ' t'],
) -> Float[np.ndarray, 'M t']:
    """Subtracts the means of members with and without the target's example, in each half apart."""
    left = np.empty(losses.shape, np.float32, order='F')

    def of_some(columns: slice) -> None:
        included = (masks[:, self_index[columns]] & (self_index[columns] >= 0)).astype(np.float32)
        for half in HALVES:
            part, inside = losses[half, columns], included[half]
            count, total = inside.sum(axis=0), (part * inside).sum(axis=0)
            without = (part.sum(axis=0) - total) / np.maximum(len(part) - count, 1)
            left[half, columns] = part - without - inside * (total / np.maximum(count, 1) - without)

    in_threads(of_some, losses.shape[1], step=IN_CACHE)
    return left


def strongest_other(
    single: SingleEntries,
    left: Float[np.ndarray, 'M t'],
    candidates: Int[np.ndarray, '2 t K'],
    self_index: Int[np.ndarray, ' t'],
) -> Float[np.ndarray, ' t']:
    """Influence of the example that half of the members find strongest, by the other half.

    Mean of both directions; NaN where a half finds no positive influence among those given.

    Args:
      single: of the masks of all members.
      left: `without_self`.
      candidates: strongest examples by members of even and of odd number, as
        `Scan.candidate_regressors` has them.
      self_index: as in `examples_of_targets`.
    """
    allowed = candidates != self_index[None, :, None]
    found = []
    for half, (examples, may) in enumerate(zip(candidates, allowed, strict=True)):
        chosen = np.where(may, single.differences(left, examples, half), -np.inf)
        best = np.argmax(chosen, axis=1)[:, None]
        measured = single.differences(left, np.take_along_axis(examples, best, 1), 1 - half)
        positive = np.take_along_axis(chosen, best, 1) > 0
        found.append(np.where(positive, measured, np.nan)[:, 0])
    return np.mean(found, axis=0)
