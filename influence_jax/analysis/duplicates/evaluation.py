"""How well scored pairs find the true ones, among all pairs and without holding them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.duplicates.candidates import CandidatePairs, ScoredPairs
from influence_jax.analysis.ranking import auroc, average_precision, precision_at_k
from influence_jax.analysis.resampling import Interval
from influence_jax.types import AnyArray, PRNGKey


class Retrieval(NamedTuple):
    """How well a score ranks all N (N - 1) / 2 unordered pairs of examples.

    auroc: probability that a true pair ranks before another, ties counting half.
    average_precision: mean over the true pairs of the precision down to each.
    ks: at which numbers of pairs the precision is given; the last is the number of true pairs.
    precision: share of true pairs among so many first.
    true_pairs: how many there are.
    found: how many of these are among the scored pairs at all.
    """

    auroc: Interval
    average_precision: Interval
    ks: tuple[int, ...]
    precision: tuple[Interval, ...]
    true_pairs: int
    found: int


class _Ranking(NamedTuple):
    """Scored pairs in the order of their scores, and the true ones that have no score."""

    pairs: Int[np.ndarray, 'P 2']
    is_true: Bool[np.ndarray, ' P']
    ranks: Int[np.ndarray, ' P']
    true_unscored: Int[np.ndarray, '_ 2']

    def rates(self, weights: Float[np.ndarray, ' N'], ks: Sequence[int]) -> list[float]:
        """AUROC, average precision and precisions of examples that count so many times.

        All pairs without a score are two, one of each kind, of the weight of all together.
        """
        weight = weights[self.pairs].prod(axis=1)
        every = (weights.sum() ** 2 - (weights**2).sum()) / 2
        unscored = weights[self.true_unscored].prod(axis=1).sum()
        weight = np.concatenate([weight, [unscored, every - weight.sum() - unscored]])
        scores = np.concatenate([self.ranks, [0, 0]])
        positives = np.concatenate([self.is_true, [True, False]])
        precisions = [precision_at_k(scores, positives, k, weights=weight) for k in ks]
        if not 0 < weight[positives].sum() < every:
            return [np.nan, np.nan, *precisions]
        return [
            auroc(scores, positives, weights=weight),
            average_precision(scores, positives, weights=weight),
            *precisions,
        ]


def evaluate(
    pairs: CandidatePairs | ScoredPairs,
    true_pairs: Int[AnyArray, 'Q 2'],
    *,
    examples: int,
    key: PRNGKey,
    ks: Sequence[int] = (10, 50),
    resamples: int = 200,
    level: float = 0.95,
) -> Retrieval:
    """Ranks all pairs by the scored ones, those without a score last and equal.

    A baseline, such as minus a distance, is evaluated in the same way. Exact, also where all
    pairs would not fit into memory. Intervals are by bootstrap over examples: a pair counts as
    often as the product of how often its two examples were drawn.

    Args:
      pairs: scored pairs, in any order.
      true_pairs: `[Q 2]` unordered pairs of positions; named twice they count once.
      examples: N.
      key: draws the resamples.
      ks: at which numbers of first pairs the precision is wanted, beside the number of true pairs.
      resamples: how many times.
      level: of the intervals.

    Raises:
      ValueError: pairs of an example with itself or out of range, the same pair scored twice,
        NaN scores, no true pair or nothing else, or `ks` out of range.
    """
    ranking = _rank(pairs, true_pairs, examples)
    true = int(ranking.is_true.sum()) + len(ranking.true_unscored)
    every = examples * (examples - 1) // 2
    if true in (0, every):
        raise ValueError(f'{true} of {every} pairs are true: an evaluation needs both kinds')
    wanted = (*ks, true)
    if min(wanted) < 1 or max(wanted) > every:
        raise ValueError(f'ks must lie in 1 .. {every}, the number of pairs, not {tuple(ks)}')

    value = ranking.rates(np.ones(examples), wanted)
    resampled = np.array(
        [
            ranking.rates(weights, wanted)
            for some in resampling.weights(key, units=examples, resamples=resamples)
            for weights in some
        ]
    )
    area, mean_precision, *precision = (
        resampling.interval(v, column, level) for v, column in zip(value, resampled.T, strict=True)
    )
    found = int(ranking.is_true.sum())
    return Retrieval(area, mean_precision, wanted, tuple(precision), true, found)


def _rank(
    pairs: CandidatePairs | ScoredPairs, true_pairs: Int[AnyArray, 'Q 2'], examples: int
) -> _Ranking:
    true = np.unique(_ascending(true_pairs, examples, 'true pairs'), axis=0)
    scored = _ascending(pairs.examples, examples, 'scored pairs')
    if np.shape(pairs.scores) != (len(scored),) or np.isnan(pairs.scores).any():
        raise ValueError(f'{len(scored)} scored pairs need as many scores, none of them NaN')
    keys, true_keys = (some[:, 0] * examples + some[:, 1] for some in (scored, true))
    if len(np.unique(keys)) < len(keys):
        raise ValueError('a pair is scored twice: (i, j) and (j, i) are the same pair')
    order = np.argsort(-np.asarray(pairs.scores), kind='stable')
    return _Ranking(
        scored[order],
        np.isin(keys, true_keys)[order],
        scipy.stats.rankdata(np.asarray(pairs.scores), method='dense')[order],
        true[~np.isin(true_keys, keys)],
    )


def _ascending(pairs: Int[AnyArray, 'P 2'], examples: int, what: str) -> Int[np.ndarray, 'P 2']:
    found = np.asarray(pairs)
    if found.ndim != 2 or found.shape[1] != 2 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f'{what} must be integers [pairs 2], not {found.dtype} {found.shape}')
    ordered = np.sort(found.astype(np.int64), axis=1)
    if ordered.size and not 0 <= ordered.min() <= ordered.max() < examples:
        raise ValueError(f'{what} must name the examples 0 to {examples - 1} by position')
    if (ordered[:, 0] == ordered[:, 1]).any():
        raise ValueError(f'{what} hold an example paired with itself')
    return ordered
