"""How many members scores are worth: the size of the ensemble that predicts as well."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.convergence.standard_errors import two_on_both_sides
from influence_jax.analysis.judge.held_out import Split
from influence_jax.analysis.judge.prediction import (
    Estimate,
    Resamples,
    predictions,
    rank_agreement,
)
from influence_jax.estimators import Columns, Estimator, adjusted, difference_in_means
from influence_jax.estimators.ensemble import average_repeats

SMALLEST = 16
_PARTS = 2
_ROUNDING = 1e-4


class Worth(NamedTuple):
    """How many members scores are worth.

    members: of the ensemble that predicts as well, interpolated in the logarithm of its size.
        -inf where even the smallest ensemble of the curve predicts better, inf where none does.
    low: the same of the lower end of their score's interval.
    high: of its upper end.
    smallest: ensemble of the curve.
    largest: likewise.
    """

    members: float
    low: float
    high: float
    smallest: int
    largest: int

    def __str__(self) -> str:
        if self.members == math.inf:
            return f'more than {self.largest}'
        if self.members == -math.inf:
            return f'fewer than {self.smallest}'
        low, high = ('' if math.isinf(end) else f'{end:.0f}' for end in (self.low, self.high))
        return (
            f'{self.members:.0f} ({low or f"< {self.smallest}"} to {high or f"> {self.largest}"})'
        )


class EnsembleCurve(NamedTuple):
    """Linear datamodelling scores of ensembles by their size.

    members: `[S]` ascending.
    scores: `[S]` mean of up to two disjoint ensembles of that size.
    """

    members: Int[np.ndarray, ' S']
    scores: Float[np.ndarray, ' S']

    def worth(self, score: Estimate) -> Worth:
        """Reads off the size of the ensemble that has this score.

        Scores of larger ensembles are taken to be no smaller, noise aside.
        """
        rising = np.maximum.accumulate(self.scores)

        def size(value: float) -> float:
            if math.isnan(value):
                return math.nan
            if value < rising[0]:
                return -math.inf
            if value > rising[-1] + _ROUNDING:
                return math.inf
            return float(np.exp(np.interp(value, rising, np.log(self.members))))

        interval = score.interval()
        ends = (int(self.members[0]), int(self.members[-1]))
        return Worth(size(interval.value), size(interval.low), size(interval.high), *ends)


def ensemble_curve(
    split: Split, self_index: Int[np.ndarray, ' T'], resamples: Resamples
) -> EnsembleCurve:
    """Scores the adjusted estimate from 16, 32 ... and from all of the members that estimate.

    Below the number of members that it needs, the difference of means takes its place.

    Args:
        split: of members.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        resamples: of held-out masks and targets.

    Raises:
        ValueError: fewer than 16 members of different masks.
    """
    masks, losses = average_repeats(split.masks, split.losses)
    if len(masks) < SMALLEST:
        raise ValueError(f'{len(masks)} different masks are too few: at least {SMALLEST} estimate')
    doubled = SMALLEST * 2 ** np.arange(int(math.log2(len(masks) / SMALLEST)) + 1)
    sizes = np.unique([*doubled, len(masks)])
    counted = split.held_out.without(self_index)
    truth, observed = split.held_out.mean, Resamples(resamples.masks[:1], resamples.targets[:1])
    scores = []
    for size in sizes:
        parts = []
        for part in range(min(_PARTS, len(masks) // size)):
            some = slice(part * size, (part + 1) * size)
            columns = estimate(masks[some], losses[some], self_index)
            predicted = predictions(columns, split.held_out.masks)
            parts.append(rank_agreement(predicted, truth, counted, observed).mean.value)
        scores.append(np.mean(parts))
    return EnsembleCurve(sizes, np.array(scores))


def estimate(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    self_index: Int[np.ndarray, ' T'],
    *,
    estimator: Estimator | None = None,
) -> Columns:
    """An ensemble's estimate, 0 for examples that too few of its members have, or lack.

    Args:
        masks: `[M N]`.
        losses: `[M T]`.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        estimator: by default the adjusted difference of means or, for too few members, the plain
            one.
    """
    if estimator is None:
        estimator = adjusted if len(masks) >= adjusted.least_members else difference_in_means
    known = two_on_both_sides(masks)
    if known.all():
        return Columns.of_estimate(estimator, masks, losses, target_examples=self_index)
    moved = np.where(known, np.cumsum(known) - 1, -1)
    own = np.where(self_index >= 0, moved[self_index], -1)
    of_known = Columns.of_estimate(estimator, masks[:, known], losses, target_examples=own)

    def read(targets: Int[np.ndarray, ' t']) -> Float[np.ndarray, 'N t']:
        values = np.zeros((len(known), len(targets)), np.float32)
        values[known] = of_known.column(targets).values
        return values

    return Columns(len(known), losses.shape[1], read, estimator, members=len(masks))
