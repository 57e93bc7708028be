"""How well scores predict members that no estimate has seen: linear datamodelling scores (LDS).

Park et al. 2023 (TRAK, arXiv 2303.14186): per target, Spearman's correlation over held-out masks
between the sum of the scores of the examples in the mask and what was measured. Here positive
scores lower the loss, so the prediction is minus the sum.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.resampling import Interval
from influence_jax.estimators import Columns
from influence_jax.types import AnyArray, PRNGKey

_TILE = 1024
_ENTRIES_AT_ONCE = 2**18
_ROUNDING = 1e-10


class Resamples(NamedTuple):
    """How often each held-out mask and each target counts: as observed first, then as drawn.

    All statistics take the same ones, so that their ratios and differences are of the same draws.

    masks: `[B K]`.
    targets: `[B T]`.
    """

    masks: Float32[np.ndarray, 'B K']
    targets: Float32[np.ndarray, 'B T']

    @classmethod
    def draw(
        cls,
        key: PRNGKey,
        *,
        masks: int,
        groups: Int[AnyArray, ' T'],
        resamples: int = 400,
    ) -> 'Resamples':
        """Draws masks and, independently, groups of targets, with replacement (two-way bootstrap).

        Args:
            key: of the draws.
            masks: K.
            groups: `[T]` the same number for targets that are drawn together, as near-duplicates.
            resamples: how many times.

        Raises:
            ValueError: fewer than 2 resamples.
        """
        by_mask, by_target = np.random.SeedSequence(
            resampling.host_generator(key).integers(2**32, size=4)
        ).spawn(2)
        ids, group = np.unique(np.asarray(groups), return_inverse=True)
        if resamples < 2:
            raise ValueError(f'{resamples=} must be at least 2')
        return cls(
            _counts(by_mask, units=masks, resamples=resamples),
            _counts(by_target, units=len(ids), resamples=resamples)[:, group],
        )

    def of_masks(self, some: Int[np.ndarray, ' k']) -> 'Resamples':
        """The same draws of some of the masks."""
        return Resamples(self.masks[:, some], self.targets)


def _counts(
    seed: np.random.SeedSequence, *, units: int, resamples: int
) -> Float32[np.ndarray, 'B U']:
    counts = np.ones((1 + resamples, units), np.float32)
    generator = np.random.default_rng(seed)
    for row in counts[1:]:
        row[:] = np.bincount(generator.integers(units, size=units), minlength=units)
    return counts


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """A number, and what it is in resamples of masks and targets.

    Attributes:
        draws: `[B]` as observed first; NaN where it is not defined.
    """

    draws: Float[np.ndarray, ' B']

    @property
    def value(self) -> float:
        """As observed."""
        return float(self.draws[0])

    def interval(self, level: float = 0.95) -> Interval:
        """Percentile interval of the bootstrap, its median moved to the observed value.

        Masks that are drawn twice order nothing between them, which makes correlations in resamples
        a little smaller than the observed one.

        Raises:
            ValueError: `level` outside (0, 1).
        """
        drawn = self.draws[1:]
        drawn = drawn[~np.isnan(drawn)]
        moved = drawn + (self.value - np.median(drawn)) if drawn.size else drawn
        return resampling.interval(self.value, moved, level)

    def over(self, other: 'Estimate') -> 'Estimate':
        """The ratio to another; NaN where that is not positive."""
        with np.errstate(divide='ignore', invalid='ignore'):
            return Estimate(np.where(other.draws > 0, self.draws / other.draws, np.nan))


class Agreement(NamedTuple):
    """Mean over targets of rank correlations over masks.

    mean: over the targets that count.
    per_target: `[T]`; NaN where the second side does not vary, or too few masks count.
    constant: of how many targets the first side does not vary; they count as 0.
    targets: how many count.
    """

    mean: Estimate
    per_target: Float[np.ndarray, ' T']
    constant: int
    targets: int


def predictions(columns: Columns, masks: Bool[np.ndarray, 'K N']) -> Float[np.ndarray, 'K T']:
    """What scores predict of members with these masks: minus the sum of scores over each mask.

    Up to a constant, for losses. Block by block; equal sums are equal in spite of rounding.

    Raises:
        ValueError: masks of another number of examples, or scores that are not finite.
    """
    if masks.shape[1] != columns.examples:
        raise ValueError(
            f'scores are of {columns.examples} examples and masks of {masks.shape[1]}: give both '
            f'of the same dataset'
        )
    included = masks.astype(np.float64)
    found = np.empty((len(masks), columns.targets))
    for block, influence in columns.tiles(tile=_TILE):
        scores = np.asarray(influence.values, np.float64)
        if not np.isfinite(scores).all():
            raise ValueError(
                f'{columns.method.name} has {(~np.isfinite(scores)).sum()} scores that are not '
                f'finite, of targets {block.start} .. {block.stop - 1}: leave these targets out'
            )
        unit = _ROUNDING * np.abs(scores).sum(axis=0)
        unit = np.where(unit > 0, unit, 1)
        found[:, block] = -np.round(included @ scores / unit) * unit
    return found


def rank_agreement(
    first: Float[np.ndarray, 'K T'],
    second: Float[np.ndarray, 'K T'],
    counted: Bool[np.ndarray, 'K T'],
    resamples: Resamples,
) -> Agreement:
    """Spearman's correlation over the masks that count, per target, averaged over targets.

    Ties share their average rank. In every resample ranks are made anew: with w_k the number of
    times mask k was drawn, the centered rank of mask k is half of sum_j w_j sign(x_k - x_j).

    Args:
        first: predictions.
        second: measurements.
        counted: which masks count for which target.
        resamples: of masks and targets.
    """
    drawn, targets = len(resamples.masks), first.shape[1]
    sums, weights = np.zeros(drawn), np.zeros(drawn)
    per_target, constant = np.empty(targets), 0
    block = max(1, _ENTRIES_AT_ONCE // (drawn * len(first)))
    for start in range(0, targets, block):
        some = slice(start, start + block)
        correlation = _correlations(
            first[:, some].T, second[:, some].T, counted[:, some].T, resamples.masks
        )
        known = np.isfinite(correlation)
        constant += int((known[:, 0] & (np.ptp(_of(first, counted, some), axis=0) == 0)).sum())
        per_target[some] = correlation[:, 0]
        weight = resamples.targets[:, some].T * known
        sums += np.where(known, weight * correlation, 0).sum(axis=0)
        weights += weight.sum(axis=0)
    with np.errstate(divide='ignore', invalid='ignore'):
        mean = Estimate(sums / weights)
    return Agreement(mean, per_target, constant, int(np.isfinite(per_target).sum()))


def _of(
    values: Float[np.ndarray, 'K T'], counted: Bool[np.ndarray, 'K T'], some: slice
) -> Float[np.ndarray, 'K t']:
    """The values that count; the others replaced by the first that does."""
    values, counted = values[:, some], counted[:, some]
    first = np.take_along_axis(values, counted.argmax(axis=0)[None], axis=0)
    return np.where(counted, values, first)


def _correlations(
    first: Float[np.ndarray, 't K'],
    second: Float[np.ndarray, 't K'],
    counted: Bool[np.ndarray, 't K'],
    drawn: Float32[np.ndarray, 'B K'],
) -> Float32[np.ndarray, 't B']:
    first_ranks, second_ranks = (_centered_ranks(x, counted, drawn) for x in (first, second))
    weighted = drawn[None] * first_ranks
    product = np.einsum('tbk,tbk->tb', weighted, second_ranks)
    first_square = np.einsum('tbk,tbk->tb', weighted, first_ranks)
    np.multiply(drawn[None], second_ranks, out=weighted)
    second_square = np.einsum('tbk,tbk->tb', weighted, second_ranks)
    with np.errstate(divide='ignore', invalid='ignore'):
        correlation = product / np.sqrt(first_square * second_square)
    return np.where(second_square > 0, np.where(first_square > 0, correlation, 0), np.nan)


def _centered_ranks(
    values: Float[np.ndarray, 't K'],
    counted: Bool[np.ndarray, 't K'],
    drawn: Float32[np.ndarray, 'B K'],
) -> Float32[np.ndarray, 't B K']:
    signs = np.sign(values[:, None, :] - values[:, :, None]).astype(np.float32)  # [t j k]
    signs *= counted[:, :, None] & counted[:, None]  # 0 for those that do not count
    return np.matmul(drawn[None], signs)
