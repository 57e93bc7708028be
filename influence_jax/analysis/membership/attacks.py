"""The attacks: LiRA (Carlini et al. 2022) and RMIA (Zarifzadeh et al. 2024).

arXiv 2112.03570 and 2312.03262.
"""

import enum
import math

import numpy as np
from jaxtyping import Float, Int

from influence_jax.analysis.membership.evidence import (
    Attack,
    Shadows,
    check_both_sides,
    check_losses,
    evidence,
    rises_with_inclusion,
)
from influence_jax.types import AnyArray, Masks, Measurement

_ENOUGH_FOR_PER_RECORD = 64
_ENOUGH_ON_A_SIDE = 32

# Far below any spread of real logits: only keeps records without any from a division by zero.
_LEAST_DEVIATION = 1e-6


class Setting(enum.Enum):
    """What shadow models the attacker has.

    ONLINE: some that include the record and some that do not.
    OFFLINE: only such as do not, trained before the record was known.
    """

    ONLINE = 'online'
    OFFLINE = 'offline'


class Variance(enum.Enum):
    """Whose spread of logits is taken.

    PER_RECORD: each record's own.
    GLOBAL: one for all records, the mean square deviation from each record's own mean.
    """

    PER_RECORD = 'per record'
    GLOBAL = 'global'


def lira(
    masks: Masks,
    logit_gaps: Measurement,
    *,
    setting: Setting = Setting.ONLINE,
    variance: Variance | None = None,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> Attack:
    """Attacks every member with all other members as its shadow models, but repeats of its mask.

    Online, the score is log N(x; mean_in, s_in) - log N(x; mean_out, s_out) of the attacked
    member's logit gap x, with means and deviations over the shadow models that include, or leave
    out, the record (their section V). Offline it is (x - mean_out) / s_out, in the order of their
    one-sided test Pr[N(mean_out, s_out) < x].

    Where every example is in exactly as many members (`subsets.balanced`), the masks of the others
    tell the attacked one's; nothing uses that, but with few members the online scores on noise
    have an AUROC a little below 0.5 (0.48 at 10 members, 0.50 at 40).

    The global variance is pooled within records (our reconstruction; the authors' program takes
    that of all values together, in which the differences between records are, too).

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      logit_gaps: `[M T]` log p_y - log sum of the other p; see `logit_gaps` where only the loss
        was recorded. Rows with anything non-finite are left out, repeats of a mask not averaged.
      setting: what shadow models the attacker has.
      variance: by default global with fewer than 64 shadow models, as the authors advise, or
        where a target is included in, or left out of, fewer than 32 subsets, and otherwise per
        record.
      target_examples: `[T]` position of the example that each target is, -1 where it is none: such
        targets have no membership and are left out. By default target t is example t if T == N.

    Raises:
      ValueError: wrong types or shapes, no target that is an example, or one that is included in,
        or left out of, fewer subsets than leave 2 on each side beside the attacked (1 for the
        global variance); offline, values that are lower where the target is included, as losses
        are.
    """
    given = evidence(masks, logit_gaps, target_examples)
    values, included = given.values, given.included
    if variance is None:
        subsets = given.subset.max() + 1
        few = subsets - 1 < _ENOUGH_FOR_PER_RECORD or given.smaller_side().min() < _ENOUGH_ON_A_SIDE
        variance = Variance.GLOBAL if few else Variance.PER_RECORD
    check_both_sides(given, least=3 if variance is Variance.PER_RECORD else 2)
    if setting is Setting.OFFLINE and rises_with_inclusion(given) is False:
        raise ValueError(
            'logit_gaps are lower where a target is included, as losses are (or as under inverted '
            'masks): offline LiRA needs the logit gap, higher there; see logit_gaps(losses)'
        )
    inside, outside = Shadows.of(values, included), Shadows.of(values, ~included)

    scores = np.empty(values.shape, np.float32)
    for members in given.repeats():
        rows, belongs = values[members], included[members[0]]
        z_out, log_out = _standardized(rows, outside.without(rows, ~belongs), variance)
        if setting is Setting.OFFLINE:
            scores[members] = z_out
            continue
        z_in, log_in = _standardized(rows, inside.without(rows, belongs), variance)
        scores[members] = 0.5 * (z_out**2 - z_in**2) + (log_out - log_in)
    return Attack(scores, included, given.targets)


def _standardized(
    rows: Float[np.ndarray, 'k T'], shadows: Shadows, variance: Variance
) -> tuple[Float[np.ndarray, 'k T'], Float[np.ndarray, '1 T']]:
    """The members' distance from the shadows' mean in deviations; the deviation's logarithm."""
    if variance is Variance.PER_RECORD:
        square = shadows.squares / (shadows.members - 1)
    else:
        pooled = shadows.squares.sum() / max((shadows.members - 1).sum(), 1)
        square = np.full(rows.shape[1], pooled)
    deviation = np.maximum(np.sqrt(square), _LEAST_DEVIATION)[None]
    return (rows - shadows.mean[None]) / deviation, np.log(deviation)


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
