"""Rankings: who influences most, and how well a score tells two kinds of targets apart."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.margins import influence_values
from influence_jax.types import AnyArray, Influence


class TopInfluencers(NamedTuple):
    """Each target's strongest examples, largest influence first.

    examples: `[T K]` their positions.
    values: `[T K]` their influences.
    """

    examples: Int[np.ndarray, 'T K']
    values: Float[np.ndarray, 'T K']


class RankCounts(NamedTuple):
    """What lies at or above each distinct score, best score first, from none to all.

    true: `[S + 1]` number, or weight, of the positives; begins with 0.
    false: `[S + 1]` of the negatives; begins with 0.
    """

    true: Float[np.ndarray, ' S+1']
    false: Float[np.ndarray, ' S+1']


def top_influencers(influence: Influence | Float[AnyArray, 'N T'], k: int) -> TopInfluencers:
    """The k examples of largest influence on each target, self included; all N where k > N.

    Ties go to the earlier example.

    Raises:
      ValueError: `k` below 1, wrong shape, or NaN among the influences.
    """
    if k < 1:
        raise ValueError(f'{k=} must be at least 1')
    values = influence_values(influence)
    if np.isnan(values).any():
        raise ValueError('influence holds NaN: no order among its entries')
    examples = np.empty((values.shape[1], min(k, len(values))), np.int64)
    for target, column in enumerate(values.T):  # one at a time: the matrix may fill the memory
        examples[target] = np.argsort(-column, kind='stable')[:k]
    return TopInfluencers(examples, np.take_along_axis(values.T, examples, axis=1))


def auroc(scores: Float[AnyArray, ' T'], positives: Bool[AnyArray, ' T']) -> float:
    """Probability that a positive scores higher than a negative, ties counting half.

    Area under the receiver operating characteristic: 0.5 for chance, 1 for a perfect score; 1
    minus it where low scores mark the positives. Infinite scores are ranked like others.

    Raises:
      ValueError: not two vectors of one length, `positives` not bool, NaN among the scores, or
        only one kind.
    """
    scores, positives = _checked('auroc', scores, positives)
    count = int(positives.sum())
    if count in (0, len(positives)):
        raise ValueError(f'{count} of {len(positives)} are positive: auroc needs both kinds')
    ranks = scipy.stats.rankdata(scores)
    below = ranks[positives].sum() - count * (count + 1) / 2
    return float(below / (count * (len(positives) - count)))


def average_precision(scores: Float[AnyArray, ' T'], positives: Bool[AnyArray, ' T']) -> float:
    """Mean over the positives of the precision among all that score at least as high.

    The share of positives for chance, 1 for a perfect score. Equal scores are taken together.

    Raises:
      ValueError: as in `auroc`, or no positive.
    """
    counts = rank_counts(*_checked('average_precision', scores, positives))
    if not counts.true[-1]:
        raise ValueError('none is positive: average_precision needs at least one')
    return average_precision_of(counts)


def precision_at_k(scores: Float[AnyArray, ' T'], positives: Bool[AnyArray, ' T'], k: int) -> float:
    """Share of positives among the k of highest score.

    Where equal scores straddle the k-th place, its expectation over their random order.

    Raises:
      ValueError: as in `auroc`, or `k` outside 1 .. T.
    """
    counts = rank_counts(*_checked('precision_at_k', scores, positives))
    if not 1 <= k <= len(np.asarray(scores)):
        raise ValueError(f'{k=} must lie in 1 .. {len(np.asarray(scores))}, how many are ranked')
    return precision_of(counts, k)


def rank_counts(
    scores: Float[np.ndarray, ' T'],
    positives: Bool[np.ndarray, ' T'],
) -> RankCounts:
    """Counts of both kinds from the best score down; equal scores are one step."""
    order = np.argsort(-scores, kind='stable')
    ends = last_of_equals(scores[order])
    true = positives[order].cumsum()[ends]
    return RankCounts(np.append(0.0, true), np.append(0.0, ends + 1 - true))


def last_of_equals(ordered: Float[np.ndarray, ' T']) -> Int[np.ndarray, ' S']:
    """Where in an ordered vector a run of equal numbers ends."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])


def area_of(counts: RankCounts) -> float:
    """`auroc` of counts; NaN where a kind is missing."""
    both = counts.true[-1] * counts.false[-1]
    return float(np.trapezoid(counts.true, counts.false) / both) if both else float('nan')


def average_precision_of(counts: RankCounts) -> float:
    """`average_precision` of counts; NaN without positives."""
    if not counts.true[-1]:
        return float('nan')
    above = (counts.true + counts.false)[1:]
    # Steps of no weight have no positives either: what is put in their place does not count.
    precision = counts.true[1:] / np.where(above > 0, above, 1)
    return float(np.diff(counts.true) @ precision / counts.true[-1])


def precision_of(counts: RankCounts, k: float) -> float:
    """`precision_at_k` of counts."""
    return float(np.interp(k, counts.true + counts.false, counts.true) / k)


def _checked(
    what: str, scores: Float[AnyArray, ' T'], positives: Bool[AnyArray, ' T']
) -> tuple[Float[np.ndarray, ' T'], Bool[np.ndarray, ' T']]:
    scores, positives = np.asarray(scores), np.asarray(positives)
    if scores.ndim != 1 or positives.shape != scores.shape or positives.dtype != bool:
        raise ValueError(
            f'{what} needs scores [T] and bool positives [T], '
            f'not {list(scores.shape)} and {positives.dtype} {list(positives.shape)}'
        )
    undefined = int(np.isnan(scores).sum())
    if undefined:
        raise ValueError(f'{undefined} of {len(scores)} scores are NaN: leave these out first')
    return scores, positives
