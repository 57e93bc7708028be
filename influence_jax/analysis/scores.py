"""Scores of targets, and how well each distinguishes some from the others, with intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.resampling import Interval
from influence_jax.estimators.summary import Summary
from influence_jax.types import AnyArray, PRNGKey


class Score(NamedTuple):
    """One number a target, and how to read it.

    name: for people.
    values: `[T]`; NaN where it is not defined, infinite where a ratio is.
    low_marks: whether it is the low values that should mark near-duplicates.
    """

    name: str
    values: Float[np.ndarray, ' T']
    low_marks: bool


def influence_scores(summary: Summary, *, examples: int) -> tuple[Score, ...]:
    """Returns what the influence matrix alone says of each target; self-influence first.

    'Sum of all others' is the sum of a target's column without its own entry: the noise of
    all entries is in it too.

    Args:
      summary: of the influence matrix.
      examples: N, its rows.
    """
    others = examples * summary.mean - np.nan_to_num(summary.self_influence)
    return (
        Score('self-influence', summary.self_influence, low_marks=True),
        Score('margin', summary.margin, low_marks=True),
        Score('floored margin', summary.floored_margin, low_marks=True),
        Score('z margin', summary.z_margin, low_marks=True),
        Score('strongest other', summary.other_value, low_marks=False),
        Score('sum of all others', others, low_marks=False),
    )


def check(scores: Sequence[Score], targets: int) -> None:
    """Refuses scores that are not one number for each target.

    Raises:
      ValueError: naming the first such score.
    """
    for score in scores:
        if np.shape(score.values) != (targets,):
            raise ValueError(
                f'{score.name!r} has the shape {list(np.shape(score.values))}: '
                f'give one number for each of the {targets} targets'
            )


def aurocs(
    scores: Sequence[Score],
    positives: Bool[np.ndarray, ' T'],
    *,
    groups: Int[AnyArray, ' T'],
    key: PRNGKey,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[Interval, ...]:
    """Returns how well each score by itself distinguishes `positives` from the other targets.

    That is the probability that such a target is ranked before another, ties counting half, low
    values first where `score.low_marks`; NaN where there is only one kind. Below 0.5 it is the
    opposite that marks them.

    Intervals are by bootstrap over groups, as the targets of a group are no independent
    observations: a hundred records in five versions are a hundred, not five hundred.

    Args:
      scores: one number a target each; targets where one is NaN are left out of that one.
      positives: `[T]` the targets to be found.
      groups: `[T]` the same number for targets that are drawn together.
      key: draws the resamples, the same for every score.
      resamples: how many times.
      level: of the intervals.

    Raises:
      ValueError: a score is not `[T]`, fewer than 2 resamples, or `level` outside (0, 1).
    """
    check(scores, len(positives))
    values = [np.asarray(-of.values if of.low_marks else of.values, np.float64) for of in scores]
    known = [~np.isnan(row) for row in values]
    rankings = [resampling.Ranking(row[at]) for row, at in zip(values, known, strict=True)]
    drawn = resampling.observed_and_drawn(key, groups=groups, resamples=resamples)
    areas = np.concatenate(
        [
            [of.auroc(some[:, at], positives[at]) for of, at in zip(rankings, known, strict=True)]
            for some in drawn
        ],
        axis=1,
    )
    return tuple(resampling.interval(area[0], area[1:], level) for area in areas)
