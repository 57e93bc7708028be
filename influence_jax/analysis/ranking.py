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


def auroc(scores: Float[AnyArray, 'T'], positives: Bool[AnyArray, 'T']) -> float:
    """Probability that a positive scores higher than a negative, ties counting half.

    Area under the receiver operating characteristic: 0.5 for chance, 1 for a perfect score; 1
    minus it where low scores mark the positives. Infinite scores are ranked like others.

    Raises:
      ValueError: not two vectors of one length, `positives` not bool, NaN among the scores, or
        only one kind.
    """
    scores, positives = np.asarray(scores), np.asarray(positives)
    if scores.ndim != 1 or positives.shape != scores.shape or positives.dtype != bool:
        raise ValueError(
            'auroc needs scores [T] and bool positives [T], '
            f'not {list(scores.shape)} and {positives.dtype} {list(positives.shape)}'
        )
    undefined = int(np.isnan(scores).sum())
    if undefined:
        raise ValueError(f'{undefined} of {len(scores)} scores are NaN: leave these out first')
    count = int(positives.sum())
    if count in (0, len(positives)):
        raise ValueError(f'{count} of {len(positives)} are positive: auroc needs both kinds')
    ranks = scipy.stats.rankdata(scores)
    below = ranks[positives].sum() - count * (count + 1) / 2
    return float(below / (count * (len(positives) - count)))
