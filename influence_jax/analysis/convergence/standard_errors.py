"""The typical standard error of an ensemble, and how many members a smaller one takes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.resampling import host_generator
from influence_jax.estimators.difference_of_means import difference_in_means
from influence_jax.estimators.ensemble import complete_members, examples_of_targets
from influence_jax.estimators.estimator import EstimatorLike, as_estimator
from influence_jax.types import AnyArray, Influence, Masks, Measurement, PRNGKey

_SAMPLED_TARGETS = 256
_LEAST_SAMPLED = 32
_MOST_ENTRIES = 2**25  # of the columns of all sampled targets


class Precision(NamedTuple):
    """How precise an ensemble is.

    members: how many complete members it has.
    standard_error: the median over the off-diagonal entries, in the unit of the measurement;
        inf where most entries, or all, have none yet.
    unknown_examples: how many examples are in, or out of, fewer than two of the members, so that
        nothing is known of them.
    """

    members: int
    standard_error: float
    unknown_examples: int


class StandardErrorCurve(NamedTuple):
    """The typical standard error against the number of members.

    members: `[S]` ascending.
    standard_error: `[S]` median over off-diagonal entries, in the unit of the measurement; inf as
        in `Precision`.
    """

    members: Int[np.ndarray, ' S']
    standard_error: Float[np.ndarray, ' S']


def precision(
    masks: Masks,
    losses: Measurement,
    *,
    key: PRNGKey,
    estimator: EstimatorLike = difference_in_means,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> Precision:
    """Measures the typical standard error on a sample of at most 256 targets.

    An ensemble that is too small is not an error here: it is not precise.

    Args:
      masks: `[M N]` bool.
      losses: `[M T]`; rows with anything non-finite are left out.
      key: draws the sample; the same key and T give the same sample whatever M is.
      estimator: whose standard error, see `as_estimator`; inf where it gives none.
      target_examples: as in `summarize`.

    Raises:
      ValueError: no complete member, or masks and losses as in `difference_in_means`.
    """
    masks, losses = complete_members(masks, losses)
    unknown = int((~two_on_both_sides(masks)).sum())
    if len(masks) < as_estimator(estimator).least_members:
        return Precision(len(masks), math.inf, unknown)
    examples, targets = masks.shape[1], losses.shape[1]
    self_index = examples_of_targets(target_examples, examples=examples, targets=targets)
    sample = np.sort(host_generator(key).permutation(targets)[: sampled_targets(examples)])
    errors = known_influence(estimator, masks, losses[:, sample], self_index[sample]).standard_error
    errors = errors[others(self_index[sample], examples=examples)]
    median = np.median(np.where(np.isnan(errors), np.inf, errors)) if errors.size else np.inf
    return Precision(len(masks), float(median), unknown)


def standard_error_curve(
    masks: Masks,
    losses: Measurement,
    *,
    key: PRNGKey,
    sizes: Sequence[int],
    estimator: EstimatorLike = difference_in_means,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> StandardErrorCurve:
    """Measures `precision` on ever larger random sets of the members, each within the next.

    Args:
      masks: as in `precision`.
      losses: as in `precision`.
      key: draws the sets and the sample of targets.
      sizes: members in each set, 1 .. M.
      estimator: as in `precision`.
      target_examples: as in `summarize`.

    Raises:
      ValueError: sizes outside 1 .. M, or as in `precision`.
    """
    masks, losses = complete_members(masks, losses)
    members = np.unique(np.asarray(sizes, int))
    if not members.size or members[0] < 1 or members[-1] > len(masks):
        raise ValueError(f'sizes must lie in 1 .. {len(masks)}, not {members.tolist()}')
    order = host_generator(key).permutation(len(masks))
    errors = [
        precision(
            masks[order[:size]],
            losses[order[:size]],
            key=key,
            estimator=estimator,
            target_examples=target_examples,
        ).standard_error
        for size in members
    ]
    return StandardErrorCurve(members, np.array(errors))


def members_needed(standard_error: float, *, members: int, wanted: float) -> int:
    """How many members it takes for a standard error of `wanted`, given that of `members`.

    Standard errors fall as 1 / sqrt(M): M' = M (standard_error / wanted)^2.

    Args:
      standard_error: with `members` members.
      members: M, at least 1.
      wanted: in the same unit.

    Raises:
      ValueError: an error that is not finite, or negative; `wanted` not positive and finite.
    """
    if members < 1:
        raise ValueError(f'{members=} must be at least 1')
    if not 0 <= standard_error < math.inf:
        raise ValueError(f'{standard_error=} must be finite and not negative')
    if not 0 < wanted < math.inf:
        raise ValueError(f'{wanted=} must be finite and positive')
    # Rounding must not ask for one more: 4 members of error 0.2 are as many as 0.2 needs.
    return max(1, math.ceil(members * (standard_error / wanted) ** 2 * (1 - 1e-9)))


def known_influence(
    estimator: EstimatorLike,
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M t'],
    self_index: Int[np.ndarray, ' t'],
) -> Influence:
    """The estimate, NaN for examples that are in, or out of, fewer than two of the members."""
    known = two_on_both_sides(masks)
    values = np.full((masks.shape[1], losses.shape[1]), np.nan, np.float32)
    standard_error = values.copy()
    if known.any():
        place = np.where(known, np.cumsum(known) - 1, -1)
        remaining = np.where(self_index >= 0, place[self_index], -1)
        influence = as_estimator(estimator)(masks[:, known], losses, target_examples=remaining)
        values[known], standard_error[known] = influence
    return Influence(values, standard_error)


def sampled_targets(examples: int) -> int:
    """How many targets stand for all: 256, fewer where columns are long, as they are held."""
    return max(_LEAST_SAMPLED, min(_SAMPLED_TARGETS, _MOST_ENTRIES // examples))


def two_on_both_sides(masks: Bool[np.ndarray, 'M N']) -> Bool[np.ndarray, ' N']:
    """Which examples have a standard error: in, and out of, at least two of the members."""
    included = masks.sum(axis=0)
    return (included >= 2) & (len(masks) - included >= 2)


def others(self_index: Int[np.ndarray, ' t'], *, examples: int) -> Bool[np.ndarray, 'N t']:
    """Entries that are not a target's influence on itself."""
    return self_index[None, :] != np.arange(examples)[:, None]
