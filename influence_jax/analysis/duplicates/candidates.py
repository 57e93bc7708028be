"""Pairs of examples each of which does for the other what that does for itself."""

import math
from typing import NamedTuple

import numpy as np
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
      z_threshold: pairs of lower `z` are left out. The two directions are not independent: where
        masks of two examples happen to agree, each takes some of the credit for what the other
        does for itself. So `z` is their mean, whose standard deviation is 1 at most for pairs
        that do not influence one another (0.86 measured for the difference of means, 0.72 for
        the adjusted estimate, which lets fewer such pairs pass).
      floor: self-influences below this many of their own standard errors are replaced by
        that, so that no ratio is formed with noise.

    Raises:
      ValueError: no target is an example, two targets are the same one, or `floor` is not positive.
    """
    if not floor > 0:
        raise ValueError(f'{floor=} must be positive: it is a number of standard errors')
    own = _own_examples(summary, target_examples)
    target, other, value, error = _entries(summary, own)
    itself = np.maximum(summary.self_influence, floor * summary.self_standard_error)[target]

    examples = int(max(own.max(), other.max(initial=0))) + 1
    pair = np.sort(np.column_stack([own[target], other]), axis=1)
    keys, index = np.unique(pair[:, 0] * examples + pair[:, 1], return_inverse=True)
    pairs = np.column_stack(np.divmod(keys, examples))
    measured = np.isin(pairs, own).sum(axis=1)

    def total(x: Float[np.ndarray, ' d']) -> Float[np.ndarray, ' P']:
        return np.bincount(index, x, minlength=len(keys))

    scores = total(_ratio(value, itself)) / measured
    z = total(_ratio(value, error)) / measured
    passed = z >= z_threshold
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
    own = np.arange(len(values)) if target_examples is None else np.asarray(target_examples)
    lowest = np.argsort(values, kind='stable')[: (~np.isnan(values)).sum()]
    # All pairs among the so many lowest are exactly the first in the order of the larger value.
    lowest = lowest[: math.isqrt(2 * at_most) + 2]
    larger, smaller = np.tril_indices(len(lowest), -1)
    larger, smaller = larger[:at_most], smaller[:at_most]
    pairs = np.sort(np.column_stack([own[lowest[smaller]], own[lowest[larger]]]), axis=1)
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
    own = examples_of_targets(
        target_examples, examples=int(np.max(target_examples, initial=0)) + 1, targets=targets
    )
    if not np.array_equal(own >= 0, known):
        raise ValueError('target_examples are not those of the summary: give the same to both')
    named, times = np.unique(own[known], return_counts=True)
    if (times > 1).any():
        raise ValueError(
            f'example {named[times > 1][0]} is more than one target: keep one target an example'
        )
    return own


def _entries(
    summary: Summary, own: Int[np.ndarray, ' T']
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
    once = once[(own[target[once]] >= 0) & (own[target[once]] != other[once])]
    return target[once], other[once], value[once], error[once].astype(np.float64)


def _ratio(
    numerator: Float[np.ndarray, ' d'], denominator: Float[np.ndarray, ' d']
) -> Float[np.ndarray, ' d']:
    """Zero where the denominator is not positive: an example that no member depends on."""
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1), 0.0)
