"""How well an attack does over all members and records: the exact curve, rates, intervals."""

import enum
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.membership.evidence import Attack
from influence_jax.analysis.resampling import Interval
from influence_jax.estimators.ensemble import numbered_repeats
from influence_jax.types import AnyArray, PRNGKey


class Roc(NamedTuple):
    """The whole curve: both kinds of scores, ascending. Pooled over members and targets.

    included: `[P]` scores of records that the attacked member included (positives).
    left_out: `[Q]` of those that it left out (negatives).
    """

    included: Float[np.ndarray, ' P']
    left_out: Float[np.ndarray, ' Q']


def roc(scores: Float[AnyArray, '...'], included: Bool[AnyArray, '...']) -> Roc:
    """The curve of scores of any shape, one threshold for all.

    Raises:
      ValueError: shapes that disagree, `included` not bool, NaN, or only one kind.
    """
    scores, included = np.asarray(scores), np.asarray(included)
    if scores.shape != included.shape or included.dtype != bool:
        raise ValueError(
            f'scores {list(scores.shape)} need bool truth of the same shape, '
            f'not {included.dtype} {list(included.shape)}'
        )
    curve = Roc(np.sort(scores[included]), np.sort(scores[~included]))
    if not curve.included.size or not curve.left_out.size:
        raise ValueError(
            f'{curve.included.size} of {scores.size} records are included: a curve needs both kinds'
        )
    if np.isnan(curve.included[-1]) or np.isnan(curve.left_out[-1]):  # NaN is sorted to the end
        raise ValueError('scores hold NaN: leave these out first')
    return curve


def true_positive_rates(
    curve: Roc, false_positive_rates: Float[AnyArray, ' F']
) -> Float[np.ndarray, ' F']:
    """True-positive rates at these false-positive rates.

    Largest attainable; where the threshold falls among ties, the attack takes as many of them at
    random as the false-positive rate allows, so that an attack that knows nothing has TPR = FPR.

    Args:
      curve: of all scores.
      false_positive_rates: in [0, 1].

    Raises:
      ValueError: rates outside [0, 1].
    """
    rates = np.asarray(false_positive_rates, np.float64)
    if ((rates < 0) | (rates > 1)).any():
        raise ValueError(f'false-positive rates must lie in 0 .. 1, not {rates.tolist()}')
    at, positives = threshold(curve, rates), curve.included.size
    true = positives - np.searchsorted(curve.included, at.score, side='right')
    true_tied = positives - np.searchsorted(curve.included, at.score) - true
    return np.where(rates == 1, 1.0, (true + at.share * true_tied) / positives)


class Threshold(NamedTuple):
    """What an attack accuses at a false-positive rate: all above a score, and a share of its ties.

    score: the threshold.
    share: of the scores equal to it, accused at random; 0 where none are needed.
    """

    score: Float[np.ndarray, ' *F']
    share: Float[np.ndarray, ' *F']

    def accused(self, scores: Float[np.ndarray, '...']) -> Float[np.ndarray, '...']:
        """Returns the probability of each score, by one threshold, to be accused."""
        above = (scores > self.score).astype(np.float32)
        if self.share > 0:
            above += np.float32(self.share) * (scores == self.score)
        return above


def threshold(curve: Roc, false_positive_rates: Float[AnyArray, ' *F'] | float) -> Threshold:
    """The lowest thresholds at which there are no more false positives than these rates allow."""
    negatives = curve.left_out.size
    allowed = np.asarray(false_positive_rates, np.float64) * negatives
    # 0.29 * 100 is a little less than 29.
    below = np.floor(allowed * (1 + 1e-12)).astype(int)
    score = curve.left_out[::-1][np.minimum(below, negatives - 1)]
    false = negatives - np.searchsorted(curve.left_out, score, side='right')
    tied = negatives - np.searchsorted(curve.left_out, score) - false
    share = np.clip((allowed - false) / tied, 0, 1)
    return Threshold(np.asarray(score), np.asarray(share))


FALSE_POSITIVES_NEEDED = 10
"""Fewer of them, and a rate would be the luck of a few records."""


class Points(NamedTuple):
    """A curve to be drawn.

    false_positive_rates: `[P]` ascending to 1, evenly spaced on a log axis; from where 10 false
        positives decide.
    true_positive_rates: `[P]` at these.
    """

    false_positive_rates: Float[np.ndarray, ' P']
    true_positive_rates: Float[np.ndarray, ' P']


def points(curve: Roc, *, count: int = 400) -> Points:
    """Thins a curve for drawing on log axes."""
    first = min(FALSE_POSITIVES_NEEDED / curve.left_out.size, 1.0)
    rates = np.geomspace(first, 1.0, count)
    rates[-1] = 1.0
    return Points(rates, true_positive_rates(curve, rates))


def area(curve: Roc) -> float:
    """Area under the curve: Pr[included scores higher than left out], ties counting half."""
    below = np.searchsorted(curve.left_out, curve.included)
    not_above = np.searchsorted(curve.left_out, curve.included, side='right')
    return float((below.mean() + not_above.mean()) / 2 / curve.left_out.size)


def balanced_accuracy(curve: Roc) -> float:
    """Largest (true-positive rate + true-negative rate) / 2 of any threshold; at least 0.5."""
    # The best threshold admits an included record and nothing below it.
    admitted = curve.included.size - np.searchsorted(curve.included, curve.included)
    rejected = np.searchsorted(curve.left_out, curve.included)
    return float((admitted / curve.included.size + rejected / curve.left_out.size).max() / 2)


_EXACT_RANKS = 400


class Resample(enum.Enum):
    """What another draw of the experiment would draw anew.

    MEMBERS: the models; intervals are of these records under other models, and say nothing of
        other records. Repeats of a subset are drawn together.
    TARGETS: the records; intervals are of these models on other such records.
    """

    MEMBERS = 0
    TARGETS = 1


class Performance(NamedTuple):
    """One attack's rates, pooled over members and records with one threshold for all.

    roc: the whole curve.
    false_positive_rates: `[F]` as asked for.
    true_positive_rates: `[F]` at these; NaN where fewer than 10 false positives would decide.
    auroc: area under the curve, 0.5 for chance.
    balanced_accuracy: of the best threshold, 0.5 for chance.
    notes: which rates could not be measured, and why.
    """

    roc: Roc
    false_positive_rates: tuple[float, ...]
    true_positive_rates: tuple[Interval, ...]
    auroc: Interval
    balanced_accuracy: Interval
    notes: tuple[str, ...]


def performance(
    attack: Attack,
    *,
    key: PRNGKey,
    false_positive_rates: Sequence[float] = (1e-3, 1e-4),
    resample: Resample = Resample.MEMBERS,
    groups: Int[AnyArray, ' T'] | None = None,
    resamples: int = 400,
    level: float = 0.95,
    curve: Roc | None = None,
) -> Performance:
    """Rates of an attack, exact; intervals by bootstrap over members, or over targets.

    Scores are not made anew in the resamples: the attacked members are drawn, not their
    shadow models.

    Args:
      attack: scores and truth.
      key: draws the resamples.
      false_positive_rates: in (0, 1].
      resample: what is drawn.
      groups: `[T]` the same number for targets that are drawn together, such as near-duplicates;
        only where targets are drawn. By default each by itself.
      resamples: how many times.
      level: of the intervals.
      curve: of the attack, where it is known already: sorting is most of the work.

    Raises:
      ValueError: rates outside (0, 1], groups that are not `[T]` or of no use, or as in `roc`.
    """
    rates = np.asarray(false_positive_rates, np.float64)
    if ((rates <= 0) | (rates > 1)).any():
        raise ValueError(f'false-positive rates must lie in (0, 1], not {rates.tolist()}')
    unit = _units(attack, resample, groups)
    curve = curve or roc(attack.scores, attack.included)
    needed = FALSE_POSITIVES_NEEDED / rates
    defined = curve.left_out.size >= needed * (1 - 1e-9)
    values = np.where(defined, true_positive_rates(curve, rates), np.nan)
    notes = tuple(
        f'a true-positive rate at {rate:g} false positives needs {need:,.0f} scores of records '
        f'left out, not {curve.left_out.size:,}'
        for rate, need in zip(rates[~defined], needed[~defined], strict=True)
    )
    tables = _counts_above(attack, _thresholds(curve), resample, unit)
    units = int(unit.max()) + 1
    resampled = np.concatenate(
        [
            _rates_of(drawn, *tables, rates)
            for drawn in resampling.weights(key, units=units, resamples=resamples)
        ]
    )
    estimates = [*values, area(curve), balanced_accuracy(curve)]
    *true, of_area, accuracy = (
        resampling.interval(value, column, level)
        for value, column in zip(estimates, resampled.T, strict=True)
    )
    return Performance(curve, tuple(rates.tolist()), tuple(true), of_area, accuracy, notes)


def _units(
    attack: Attack, resample: Resample, groups: Int[AnyArray, ' T'] | None
) -> Int[np.ndarray, ' _']:
    """What is drawn as one: the number from 0 of every member's, or target's, unit."""
    if resample is Resample.MEMBERS:
        if groups is not None:
            raise ValueError(f'groups are of targets, but {resample} are drawn: leave groups out')
        return numbered_repeats(attack.included)
    targets = attack.scores.shape[1]
    if groups is None:
        return np.arange(targets)
    if np.shape(groups) != (targets,):
        raise ValueError(
            f'groups {list(np.shape(groups))} must be one number for {targets} targets'
        )
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _thresholds(curve: Roc) -> Float[np.ndarray, ' k']:
    """Ascending; one for each of the highest few hundred false positives, then 2 % apart."""
    negatives = curve.left_out.size
    steps = int(np.log(max(negatives / _EXACT_RANKS, 1)) / np.log(1.02)) + 2
    wide = np.geomspace(_EXACT_RANKS, max(negatives, _EXACT_RANKS), steps)
    ranks = np.concatenate([np.arange(_EXACT_RANKS), wide])
    ranks = np.unique(np.minimum(ranks, negatives - 1).astype(int))
    return np.unique(curve.left_out[negatives - 1 - ranks])


def _counts_above(
    attack: Attack,
    thresholds: Float[np.ndarray, ' k'],
    resample: Resample,
    units: Int[np.ndarray, ' _'],
) -> tuple[Float[np.ndarray, 'U k+1'], Float[np.ndarray, 'U k+1']]:
    """How many included, and how many left out, of each unit lie above each threshold.

    One column more before the first: all of them.
    """
    scores, included = attack.scores, attack.included
    if resample is Resample.TARGETS:
        scores, included = scores.T, included.T
    bins = len(thresholds) + 1
    counts = np.zeros((2, units.max() + 1, bins), np.float32)
    for unit, row, side in zip(units, scores, included, strict=True):
        below = np.searchsorted(thresholds, row)
        counts[0, unit] += np.bincount(below[side], minlength=bins)
        counts[1, unit] += np.bincount(below[~side], minlength=bins)
    above = counts[..., ::-1].cumsum(axis=-1)[..., ::-1]
    return above[0], above[1]


def _rates_of(
    drawn: Float[np.ndarray, 'b U'],
    included: Float[np.ndarray, 'U c'],
    left_out: Float[np.ndarray, 'U c'],
    rates: Float[np.ndarray, ' F'],
) -> Float[np.ndarray, 'b F+2']:
    """True-positive rates, area and balanced accuracy of every resample."""
    drawn = drawn.astype(np.float32)  # exact: counts below 2^24, as are the members' own
    true, false = (drawn @ side for side in (included, left_out))
    with np.errstate(invalid='ignore'):  # a resample that happens to hold one kind only
        true, false = true / true[:, :1], false / false[:, :1]
    # From (0, 0) to (1, 1).
    true = np.pad(true, [(0, 0), (0, 1)])[:, ::-1]
    false = np.pad(false, [(0, 0), (0, 1)])[:, ::-1]
    at = np.array([np.interp(rates, x, y) for x, y in zip(false, true, strict=True)])
    areas = np.trapezoid(true, false, axis=1)
    accuracy = (1 + true - false).max(axis=1) / 2
    return np.column_stack([at, areas, accuracy])
