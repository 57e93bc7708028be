"""The exact receiver operating characteristic of many scores, read off at any point."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from influence_jax.types import AnyArray


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
    negatives, positives = curve.left_out.size, curve.included.size
    allowed = rates * negatives
    at = threshold(curve, rates)
    # Clear of the threshold, and of those tied with it the share that is still allowed.
    false = negatives - np.searchsorted(curve.left_out, at, side='right')
    false_tied = negatives - np.searchsorted(curve.left_out, at) - false
    true = positives - np.searchsorted(curve.included, at, side='right')
    true_tied = positives - np.searchsorted(curve.included, at) - true
    share = np.clip((allowed - false) / false_tied, 0, 1)
    return np.where(rates == 1, 1.0, (true + share * true_tied) / positives)


def threshold(
    curve: Roc, false_positive_rates: Float[AnyArray, ' *F'] | float
) -> Float[np.ndarray, ' *F']:
    """Scores *above* which there are no more false positives than these rates allow."""
    allowed = np.asarray(false_positive_rates, np.float64) * curve.left_out.size
    # 0.29 * 100 is a little less than 29.
    below = np.floor(allowed * (1 + 1e-12)).astype(int)
    return curve.left_out[::-1][np.minimum(below, curve.left_out.size - 1)]


def area(curve: Roc) -> float:
    """Area under the curve: Pr[included scores higher than left out], ties counting half."""
    below = np.searchsorted(curve.left_out, curve.included).sum(dtype=np.float64)
    not_above = np.searchsorted(curve.left_out, curve.included, side='right').sum(dtype=np.float64)
    return float((below + not_above) / (2 * curve.included.size * curve.left_out.size))


def balanced_accuracy(curve: Roc) -> float:
    """Largest (true-positive rate + true-negative rate) / 2 of any threshold; at least 0.5."""
    # The best threshold admits an included record and nothing below it.
    admitted = curve.included.size - np.searchsorted(curve.included, curve.included)
    rejected = np.searchsorted(curve.left_out, curve.included)
    return float((admitted / curve.included.size + rejected / curve.left_out.size).max() / 2)
