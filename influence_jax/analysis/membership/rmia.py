"""The robust membership inference attack, RMIA (Zarifzadeh et al. 2024, arXiv 2312.03262)."""

import math

import numpy as np
from jaxtyping import Int

from influence_jax.analysis.membership.attack import (
    Attack,
    check_both_sides,
    check_losses,
    evidence,
    rises_with_inclusion,
)
from influence_jax.analysis.membership.shadows import Shadows
from influence_jax.types import AnyArray, Masks, Measurement

_ROUNDING = float(np.finfo(np.float64).eps)


def rmia(
    masks: Masks,
    losses: Measurement,
    *,
    gamma: float = 2.0,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> Attack:
    """Attacks every member with all other members as reference models, but repeats of its mask.

    The score is Pr_z[(p(x|f) / p(x)) / (p(z|f) / p(z)) >= gamma], p(x) = (P_in + P_out) / 2 with
    the mean probabilities of x over the reference models that include it and that do not. The
    population z are all targets but x, whether the attacked member f includes them or not: which it
    leaves out is what an attacker does not know, and their number tells whether x is one of them.
    Scores are thus multiples of 1 / (T - 1): false-positive rates below about 2 / T may come from
    randomizing among ties.

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      losses: `[M T]` -log p of the truth, nats. Rows with anything non-finite are left out,
        repeats of a mask not averaged.
      gamma: positive; by how much x must outdo z.
      target_examples: as in `lira`.

    Raises:
      ValueError: wrong types or shapes, `gamma` not positive, negative losses or such as are higher
        where the target is included, fewer than 2 targets that are examples, or one that is
        included in, or left out of, fewer than 2 subsets.
    """
    if not 0 < gamma < math.inf:
        raise ValueError(f'{gamma=} must be positive and finite')
    given = evidence(masks, losses, target_examples)
    values, included, targets = given.values, given.included, given.targets
    check_losses(values)
    if targets.size < 2:
        raise ValueError(f'{targets.size} target leaves RMIA no other to compare with: give 2')
    check_both_sides(given, least=2)
    if rises_with_inclusion(given):
        raise ValueError(
            'losses are higher where a target is included, as correctness or probability is (or as '
            'under inverted masks): RMIA needs -log p in nats, lower there'
        )
    # Relative to the target's largest probability, so that none underflows: p(x|f) / p(x) is the
    # same.
    least = values.min(axis=0).astype(np.float64)
    probability = np.exp(least[None] - values)
    inside, outside = Shadows.of(probability, included), Shadows.of(probability, ~included)

    scores = np.empty(values.shape, np.float32)
    for members in given.repeats():
        rows, belongs = probability[members], included[members[0]]
        mean = inside.without(rows, belongs).mean + outside.without(rows, ~belongs).mean
        log_mean = np.log(np.maximum(mean / 2, _ROUNDING))
        for member in members:
            ratio = least - values[member] - log_mean
            outdone = np.searchsorted(np.sort(ratio), ratio - math.log(gamma), side='right')
            itself = gamma <= 1
            scores[member] = (outdone - itself) / (targets.size - 1)
    return Attack(scores, included, targets)
