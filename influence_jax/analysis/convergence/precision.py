"""The typical standard error of an ensemble, and how many members a smaller one takes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from influence_jax.analysis.convergence.known import (
    LEAST_MEMBERS,
    host_generator,
    known_influence,
    others,
    two_on_both_sides,
)
from influence_jax.estimators import Estimator
from influence_jax.estimators.ensemble import examples_of_targets, usable
from influence_jax.types import AnyArray, Masks, Measurement, PRNGKey

_SAMPLED_TARGETS = 256


class Precision(NamedTuple):
    """How precise an ensemble is.

    members: how many usable members it has.
    standard_error: the median over the off-diagonal entries, in the unit of the measurement;
        inf where most entries, or all, have none yet.
    unknown_examples: how many examples are in, or out of, fewer than two of the members, so that
        nothing can be told of them.
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
    estimator: Estimator = Estimator.DIFFERENCE,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> Precision:
    """Measures the typical standard error on a sample of at most 256 targets.

    An ensemble that is too small is not an error here: it is not precise.

    Args:
      masks: `[M N]` bool.
      losses: `[M T]`; rows with anything non-finite are left out.
      key: draws the sample; the same key and T give the same sample whatever M is.
      estimator: whose standard error.
      target_examples: as in `summarize`.

    Raises:
      ValueError: no usable member, or masks and losses as in `difference_in_means`.
    """
    masks, losses = usable(masks, losses)
    unknown = int((~two_on_both_sides(masks)).sum())
    if len(masks) < LEAST_MEMBERS[estimator]:
        return Precision(len(masks), math.inf, unknown)
    examples, targets = masks.shape[1], losses.shape[1]
    own = examples_of_targets(target_examples, examples=examples, targets=targets)
    sample = np.sort(host_generator(key).permutation(targets)[:_SAMPLED_TARGETS])
    errors = known_influence(estimator, masks, losses[:, sample], own[sample]).standard_error
    errors = errors[others(own[sample], examples=examples)]
    median = np.median(np.where(np.isnan(errors), np.inf, errors)) if errors.size else np.inf
    return Precision(len(masks), float(median), unknown)


def standard_error_curve(
    masks: Masks,
    losses: Measurement,
    *,
    key: PRNGKey,
    sizes: Sequence[int],
    estimator: Estimator = Estimator.DIFFERENCE,
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
    masks, losses = usable(masks, losses)
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
