"""How well one score tells some targets from the others, with intervals over groups of targets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.ranking import RankCounts, area_of, last_of_equals
from influence_jax.analysis.resampling import Interval
from influence_jax.analysis.scores import Score, check
from influence_jax.types import AnyArray, PRNGKey


class Prediction(NamedTuple):
    """How well a score tells some targets from the others.

    auroc: probability that such a target is ranked before another, ties counting half, low values
        first where `score.low_marks`; NaN where there is only one kind. Below 0.5 it is the
        opposite that marks them.
    targets: on how many targets the score is defined.
    """

    score: Score
    auroc: Interval
    targets: int


def predictions(
    scores: Sequence[Score],
    positives: Bool[np.ndarray, ' T'],
    *,
    groups: Int[AnyArray, ' T'],
    key: PRNGKey,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[Prediction, ...]:
    """How well each score by itself tells `positives` from the other targets.

    Intervals are by bootstrap over groups, as the targets of a group are no independent
    observations: a hundred records in five versions are a hundred, not five hundred.

    Args:
      scores: one number a target each; targets where one is NaN are left out of that one.
      positives: `[T]` the targets to be told.
      groups: `[T]` the same number for targets that are drawn together.
      key: draws the resamples, the same for every score.
      resamples: how many times.
      level: of the intervals.

    Raises:
      ValueError: a score is not `[T]`, fewer than 2 resamples, or `level` outside (0, 1).
    """
    check(scores, len(positives))
    rankings = [_Ranking(score, positives) for score in scores]
    areas = np.array(
        [
            [ranking.area(weights) for ranking in rankings]
            for some in resampling.weights_of_groups(key, groups=groups, resamples=resamples)
            for weights in some
        ]
    )
    every = np.ones(len(positives))
    return tuple(
        Prediction(
            ranking.score,
            resampling.interval(ranking.area(every), resampled, level),
            len(ranking.order),
        )
        for ranking, resampled in zip(rankings, areas.T, strict=True)
    )


class _Ranking:
    """The targets on which a score is defined, in its order; resamples only weigh them anew."""

    def __init__(self, score: Score, positives: Bool[np.ndarray, ' T']) -> None:
        self.score = score
        values = np.asarray(score.values, np.float64)
        values = values if score.low_marks else -values
        order = np.argsort(values, kind='stable')  # NaN last
        self.order = order[: len(values) - int(np.isnan(values).sum())]
        self._ends = last_of_equals(values[self.order])
        self._positive = positives[self.order]

    def area(self, weights: Float[np.ndarray, ' T']) -> float:
        """AUROC of targets that count so many times; NaN where a kind is missing."""
        weight = weights[self.order]
        above = np.cumsum(weight)[self._ends]
        true = np.cumsum(weight * self._positive)[self._ends]
        if not above.size:
            return float('nan')
        return area_of(RankCounts(np.append(0.0, true), np.append(0.0, above - true)))
