"""Pairs of examples each of which does for the other what that does for itself; their clusters."""

import math
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

from influence_jax.estimators.ensemble import examples_of_targets
from influence_jax.estimators.summary import Summary
from influence_jax.types import AnyArray


class ScoredPairs(NamedTuple):
    """Unordered pairs of examples with a score, best first.

    examples: `[P 2]` positions, the smaller first; every pair once.
    scores: `[P]` higher means rather near-duplicates.
    """

    examples: Int[np.ndarray, 'P 2']
    scores: Float[np.ndarray, ' P']


class CandidatePairs(NamedTuple):
    """Pairs that influence one another, highest score first.

    examples: `[P 2]` positions, the smaller first; every pair once.
    scores: `[P]` how far each does for the other what that does for itself: 1 for perfect
        near-duplicates (noise may bring it above), near 0 for examples that are merely alike.
    z: `[P]` how surely they influence one another: the mean of the z-scores of both directions.
    """

    examples: Int[np.ndarray, 'P 2']
    scores: Float[np.ndarray, ' P']
    z: Float[np.ndarray, ' P']


def candidate_pairs(
    summary: Summary,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    z_threshold: float = 3.0,
    floor: float = 4.0,
) -> CandidatePairs:
    """Pairs of examples that may be near-duplicates, by their influence on one another.

    A near-duplicate stands in for the target: if a share a of what example i does for itself is
    done by j when i is absent, and each is in half of the subsets, then
    I(j => i) / I(i => i) = a / (2 - a), which is 1 for a perfect substitute. The score of a pair is
    the mean of this ratio over both directions (our reconstruction; other scores that were tried
    are in docs/results/duplicates.md). A direction that is neither among a target's strongest nor
    among the significant pairs of the summary counts as 0: more is seen with a larger `top_k`
    there. One that was not measured, because the example is no target, is left out of the mean.

    Influence is blind to near-duplicates that nothing depends on, where a whole class is learned
    without them, and it also finds pairs that mean the same to the model and look different.

    Args:
      summary: of the influence matrix, by any estimator.
      target_examples: as it was given to `summarize`. By default target t is example t.
      z_threshold: pairs of lower `z` are left out; none where there are no standard errors. The
        two directions are not independent: where masks of two examples happen to agree, each
        takes some of the credit for what the other does for itself. So `z` is their mean, whose
        standard deviation is 1 at most for pairs that do not influence one another (0.86 measured
        for the difference of means, 0.72 for the adjusted estimate, which lets fewer pass).
      floor: self-influences below this many of their own standard errors are replaced by
        that, so that no ratio is formed with noise.

    Raises:
      ValueError: no target is an example, two targets are the same one, or `floor` is not positive.
    """
    if not floor > 0:
        raise ValueError(f'{floor=} must be positive: it is a number of standard errors')
    self_index = _own_examples(summary, target_examples)
    target, other, value, error = _entries(summary, self_index)
    # Without standard errors nothing is known of the noise: by the ratio alone.
    least = floor * np.nan_to_num(summary.self_standard_error)
    itself = np.maximum(summary.self_influence, least)[target]

    examples = int(max(self_index.max(), other.max(initial=0))) + 1
    pair = np.sort(np.column_stack([self_index[target], other]), axis=1)
    keys, index = np.unique(pair[:, 0] * examples + pair[:, 1], return_inverse=True)
    pairs = np.column_stack(np.divmod(keys, examples))
    measured = np.isin(pairs, self_index).sum(axis=1)

    def total(x: Float[np.ndarray, ' d']) -> Float[np.ndarray, ' P']:
        return np.bincount(index, x, minlength=len(keys))

    scores = total(_ratio(value, itself)) / measured
    z = total(np.where(np.isnan(error), np.nan, _ratio(value, error))) / measured
    passed = (z >= z_threshold) | np.isnan(z)
    best = np.lexsort((keys[passed], -z[passed], -scores[passed]))
    return CandidatePairs(pairs[passed][best], scores[passed][best], z[passed][best])


def low_self_influence_pairs(
    self_influence: Float[AnyArray, ' T'],
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    at_most: int = 2_000_000,
) -> ScoredPairs:
    """The baseline that knows self-influence alone: minus the larger of a pair's two.

    Near-duplicated examples have low self-influence, but it does not say of what they are the
    duplicate.

    Args:
      self_influence: of each target, NaN where it is no example.
      target_examples: `[T]` the example that each target is; by default target t is example t.
      at_most: pairs, the highest scores; all pairs of 2,000 examples fit the default.

    Raises:
      ValueError: `at_most` below 1, or fewer than two self-influences.
    """
    if at_most < 1:
        raise ValueError(f'{at_most=} must be at least 1')
    values = np.asarray(self_influence, np.float64)
    if values.ndim != 1 or (~np.isnan(values)).sum() < 2:
        raise ValueError('self_influence must be a vector with at least 2 finite values')
    self_index = np.arange(len(values)) if target_examples is None else np.asarray(target_examples)
    lowest = np.argsort(values, kind='stable')[: (~np.isnan(values)).sum()]
    # All pairs among the so many lowest are exactly the first in the order of the larger value.
    lowest = lowest[: math.isqrt(2 * at_most) + 2]
    larger, smaller = np.tril_indices(len(lowest), -1)
    larger, smaller = larger[:at_most], smaller[:at_most]
    pairs = np.sort(
        np.column_stack([self_index[lowest[smaller]], self_index[lowest[larger]]]), axis=1
    )
    return ScoredPairs(pairs, -values[lowest[larger]])


def _own_examples(
    summary: Summary, target_examples: Int[AnyArray, ' T'] | None
) -> Int[np.ndarray, ' T']:
    targets = len(summary.self_influence)
    known = ~np.isnan(summary.self_influence)
    if not known.any():
        raise ValueError('no target is an example: near-duplicates need targets among the examples')
    if target_examples is None:
        if not known.all():
            raise ValueError(
                f'{targets - known.sum()} of {targets} targets are no examples: '
                'give target_examples as it was given to summarize'
            )
        return np.arange(targets)
    self_index = examples_of_targets(
        target_examples, examples=int(np.max(target_examples, initial=0)) + 1, targets=targets
    )
    if not np.array_equal(self_index >= 0, known):
        raise ValueError('target_examples are not those of the summary: give the same to both')
    named, times = np.unique(self_index[known], return_counts=True)
    if (times > 1).any():
        raise ValueError(
            f'example {named[times > 1][0]} is more than one target: keep one target an example'
        )
    return self_index


def _entries(
    summary: Summary, self_index: Int[np.ndarray, ' T']
) -> tuple[
    Int[np.ndarray, ' d'], Int[np.ndarray, ' d'], Float[np.ndarray, ' d'], Float[np.ndarray, ' d']
]:
    """Target, other example, influence and its error: the strongest and the significant ones."""
    targets, kept = summary.top_examples.shape
    pairs = summary.pairs
    target = np.concatenate([np.repeat(np.arange(targets), kept), pairs.targets]).astype(np.int64)
    other = np.concatenate([summary.top_examples.ravel(), pairs.examples]).astype(np.int64)
    value = np.concatenate([summary.top_values.ravel(), pairs.values]).astype(np.float64)
    error = np.concatenate([summary.top_standard_errors.ravel(), pairs.standard_errors])
    # Most significant pairs are among the strongest too.
    _, once = np.unique(target * (other.max() + 1) + other, return_index=True)
    once = once[(self_index[target[once]] >= 0) & (self_index[target[once]] != other[once])]
    return target[once], other[once], value[once], error[once].astype(np.float64)


def _ratio(
    numerator: Float[np.ndarray, ' d'], denominator: Float[np.ndarray, ' d']
) -> Float[np.ndarray, ' d']:
    """Zero where the denominator is not positive: an example that no member depends on."""
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1), 0.0)


def clusters(
    pairs: CandidatePairs | ScoredPairs, *, examples: int, threshold: float
) -> Int[np.ndarray, ' N']:
    """Examples joined by pairs that score at least `threshold`: connected components.

    Single linkage: A and C share a cluster if both are paired with B, however unlike A and C are.
    One false pair joins two clusters, and a series in which each resembles the next becomes one
    cluster; look at the largest before trusting them, and raise the threshold.

    Args:
      pairs: scored pairs.
      examples: N.
      threshold: lowest score of a pair that joins.

    Returns:
      `[N]` the cluster of each example, numbered by their first example from 0; an example in no
      pair is a cluster by itself. So it can be given to `subsets.draw(groups=...)` as it is.

    Raises:
      ValueError: a pair names an example that does not exist.
    """
    _check(pairs, examples)
    joined = pairs.examples[pairs.scores >= threshold]
    edges = (np.ones(len(joined), bool), (joined[:, 0], joined[:, 1]))
    graph = scipy.sparse.coo_array(edges, shape=(examples, examples))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return labels.astype(np.int64)


def best_scores(pairs: CandidatePairs | ScoredPairs, *, examples: int) -> Float[np.ndarray, ' N']:
    """Of each example the highest score of its pairs, -inf where it is in none.

    How likely an example has any near-duplicate.

    Raises:
      ValueError: a pair names an example that does not exist.
    """
    _check(pairs, examples)
    best = np.full(examples, -np.inf)
    np.maximum.at(best, pairs.examples, pairs.scores[:, None])
    return best


def _check(pairs: CandidatePairs | ScoredPairs, examples: int) -> None:
    named = pairs.examples
    if named.size and not 0 <= named.min() <= named.max() < examples:
        raise ValueError(
            f'pairs name the examples {named.min()} to {named.max()}, '
            f'but there are the examples 0 to {examples - 1}'
        )
