"""Rankings: who influences most, and how well a score tells two kinds of targets apart."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int, Real

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


def auroc(
    scores: Real[AnyArray, ' T'],
    positives: Bool[AnyArray, ' T'],
    *,
    weights: Real[AnyArray, ' T'] | None = None,
) -> float:
    """Probability that a positive scores higher than a negative, ties counting half.

    Area under the receiver operating characteristic (`sklearn.metrics.roc_auc_score`): 0.5 for
    chance, 1 for a perfect score; 1 minus it where low scores mark the positives. Infinite scores
    are ranked like others.

    Args:
      scores: `[T]`.
      positives: `[T]` bool.
      weights: `[T]` how often each counts; by default once.

    Raises:
      ValueError: not vectors of one length, `positives` not bool, NaN among the scores, or
        only one kind.
    """
    scores, positives = _checked('auroc', scores, positives)
    count = int(positives.sum())
    if count in (0, len(positives)):
        raise ValueError(f'{count} of {len(positives)} are positive: auroc needs both kinds')
    from sklearn.metrics import roc_auc_score  # slow to import

    return float(roc_auc_score(positives, scores, sample_weight=weights))


def average_precision(
    scores: Real[AnyArray, ' T'],
    positives: Bool[AnyArray, ' T'],
    *,
    weights: Real[AnyArray, ' T'] | None = None,
) -> float:
    """Mean over the positives of the precision among all that score at least as high.

    `sklearn.metrics.average_precision_score`: the share of positives for chance, 1 for a perfect
    score. Equal scores are taken together. Arguments and errors as in `auroc`, but negatives need
    not be there.
    """
    scores, positives = _checked('average_precision', scores, positives)
    if not positives.any():
        raise ValueError('none is positive: average_precision needs at least one')
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positives, scores, sample_weight=weights))


def precision_at_k(
    scores: Real[AnyArray, ' T'],
    positives: Bool[AnyArray, ' T'],
    k: int,
    *,
    weights: Real[AnyArray, ' T'] | None = None,
) -> float:
    """Share of positives among the k of highest score.

    Where equal scores straddle the k-th place, its expectation over their random order. Arguments
    and errors as in `auroc`, but one kind may be missing; `k` lies in 1 .. T, and counts weights
    where there are some.
    """
    scores, positives = _checked('precision_at_k', scores, positives)
    if k < 1 or (weights is None and k > len(scores)):
        raise ValueError(f'{k=} must lie in 1 .. {len(scores)}, how many are ranked')
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights)
    order = np.argsort(-scores, kind='stable')
    ends = np.append(np.diff(scores[order]) != 0, True)  # equal scores are taken together
    every = np.append(0.0, np.cumsum(weights[order])[ends])
    true = np.append(0.0, np.cumsum((weights * positives)[order])[ends])
    return float(np.interp(k, every, true) / k)


def _checked(
    what: str, scores: Real[AnyArray, ' T'], positives: Bool[AnyArray, ' T']
) -> tuple[Real[np.ndarray, ' T'], Bool[np.ndarray, ' T']]:
    values, truths = np.asarray(scores), np.asarray(positives)
    if values.ndim != 1 or truths.shape != values.shape or truths.dtype != bool:
        raise ValueError(
            f'{what} needs scores [T] and bool positives [T], '
            f'not {list(values.shape)} and {truths.dtype} {list(truths.shape)}'
        )
    undefined = int(np.isnan(values).sum())
    if undefined:
        raise ValueError(f'{undefined} of {len(values)} scores are NaN: leave these out first')
    if np.isinf(values).any():  # scikit-learn refuses them
        values = np.asarray(scipy.stats.rankdata(values, method='dense'))
    return values, truths
