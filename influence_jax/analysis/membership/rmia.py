"""The robust membership inference attack, RMIA (Zarifzadeh et al. 2024, arXiv 2312.03262)."""

import math

import numpy as np
from jaxtyping import Int

from influence_jax.analysis.membership.attack import Attack, check_both_sides, evidence
from influence_jax.analysis.membership.shadows import Shadows
from influence_jax.types import AnyArray, Masks, Measurement

_ROUNDING = float(np.finfo(np.float64).eps)


def rmia(
    masks: Masks,
    losses: Measurement,
    *,
    gamma: float = 2.0,
    target_examples: Int[AnyArray, 'T'] | None = None,
) -> Attack:
    """Attacks every member with all other members as reference models.

    The score is Pr_z[(p(x|f) / p(x)) / (p(z|f) / p(z)) >= gamma], p(x) = (P_in + P_out) / 2 with
    the mean probabilities of x over the reference models that include it and that do not. The
    population z are all targets that the attacked member f leaves out, but x itself. Scores are
    thus multiples of one over their number: with T targets, false-positive rates below about 2 / T
    come from randomizing among ties.

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      losses: `[M T]` -log p of the truth, nats. Rows with anything non-finite are left out.
      gamma: positive; by how much x must outdo z.
      target_examples: as in `lira`.

    Raises:
      ValueError: wrong types or shapes, `gamma` not positive, no target that is an example, one
        that is included in, or left out of, fewer than 2 members, or a member that leaves fewer
        than 2 targets out.
    """
    if not 0 < gamma < math.inf:
        raise ValueError(f'{gamma=} must be positive and finite')
    given = evidence(masks, losses, target_examples)
    check_both_sides(given, least=2)
    values, included, targets = given
    population_size = (~included).sum(axis=1)
    if population_size.min() < 2:
        raise ValueError(
            f'member {population_size.argmin()} leaves {population_size.min()} targets out: '
            'RMIA needs 2 or more to compare with'
        )
    # Relative to the target's largest probability, so that none underflows: p(x|f) / p(x) is the
    # same.
    least = values.min(axis=0).astype(np.float64)
    probability = np.exp(least[None] - values)
    inside, outside = Shadows.of(probability, included), Shadows.of(probability, ~included)

    scores = np.empty(values.shape, np.float32)
    for member, (row, belongs) in enumerate(zip(probability, included, strict=True)):
        mean = inside.without(row, belongs).mean + outside.without(row, ~belongs).mean
        ratio = least - values[member] - np.log(np.maximum(mean / 2, _ROUNDING))
        population = np.sort(ratio[~belongs])
        outdone = np.searchsorted(population, ratio - math.log(gamma), side='right')
        itself = ~belongs & (gamma <= 1)
        scores[member] = (outdone - itself) / (len(population) - ~belongs)
    return Attack(scores, included, targets)
