"""The attacks: LiRA (Carlini et al. 2022) and RMIA (Zarifzadeh et al. 2024).

arXiv 2112.03570 and 2312.03262.
"""

import enum
import math

import numpy as np
from jaxtyping import Float, Int

from influence_jax.analysis.membership.evidence import (
    Attack,
    Evidence,
    Shadows,
    by_targets,
    check_both_sides,
    check_losses,
    evidence,
    rises_with_inclusion,
)
from influence_jax.types import AnyArray, Masks, Measurement

_ENOUGH_FOR_PER_RECORD = 64
_ENOUGH_ON_A_SIDE = 32

# Far below any spread of real logits: only keeps records without any from a division by zero.
_LEAST_VARIANCE = 1e-12


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
    return lira_of(evidence(masks, logit_gaps, target_examples), setting=setting, variance=variance)


def lira_of(
    given: Evidence, *, setting: Setting = Setting.ONLINE, variance: Variance | None = None
) -> Attack:
    """As `lira`, of logit gaps that have been checked."""
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
    order, starts = given.by_subset()
    subset = given.subset[order]

    def sums(targets: slice) -> Float[np.ndarray, '2 2 G']:
        _, *sides = _attacked(given, targets, order, starts)
        return np.array([[s.squares.sum(axis=1), (s.members - 1).sum(axis=1)] for s in sides])

    pooled = [None, None]
    if variance is Variance.GLOBAL:  # within records, of what each subset's shadows measure
        found = np.sum(by_targets(sums, *given.values.shape), axis=0)
        pooled = [(squares / np.maximum(freedom, 1))[:, None] for squares, freedom in found]
    scores = np.empty(given.values.shape, np.float32)

    def score(targets: slice) -> None:
        x, inside, outside = _attacked(given, targets, order, starts)
        of_in, of_out = (
            np.maximum(s.squares / (s.members - 1) if of is None else of, _LEAST_VARIANCE)[subset]
            for s, of in ((inside, pooled[0]), (outside, pooled[1]))
        )
        above = x - outside.mean[subset]
        if setting is Setting.OFFLINE:
            scores[order, targets] = above / np.sqrt(of_out)
            return
        log_ratio = above**2 / of_out - (x - inside.mean[subset]) ** 2 / of_in
        scores[order, targets] = (log_ratio + np.log(of_out / of_in)) / 2

    by_targets(score, *given.values.shape)
    return Attack(scores, given.included, given.targets)


def _attacked(
    given: Evidence, targets: slice, order: Int[np.ndarray, ' M'], starts: Int[np.ndarray, ' G']
) -> tuple[Float[np.ndarray, 'M t'], Shadows, Shadows]:
    """Returns what members measure, subset after subset, and the shadows of each subset."""
    values = given.values[order, targets].astype(np.float64)
    included = given.included[order, targets]
    inside, outside = (
        Shadows.of(values, side).without_each(values, side, starts)
        for side in (included, ~included)
    )
    return values, inside, outside


_ROUNDING = float(np.finfo(np.float64).eps)
_AT_ONCE = 2**20


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
    return rmia_of(evidence(masks, losses, target_examples), gamma=gamma)


def rmia_of(given: Evidence, *, gamma: float = 2.0) -> Attack:
    """As `rmia`, of losses that are checked to be finite."""
    if not 0 < gamma < math.inf:
        raise ValueError(f'{gamma=} must be positive and finite')
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
    order, starts = given.by_subset()
    ends = np.append(starts, len(order))
    at_once = max(1, _AT_ONCE // targets.size)
    for first in range(0, len(starts), at_once):
        some = ends[first : first + at_once + 1]
        members = order[some[0] : some[-1]]
        rows, belongs = probability[members], included[members]
        mean_in, mean_out = (
            whole.without_each(rows, side, some[:-1] - some[0]).mean
            for whole, side in ((inside, belongs), (outside, ~belongs))
        )
        log_mean = np.log(np.maximum((mean_in + mean_out) / 2, _ROUNDING))
        for member, log_of_subset in zip(
            members, np.repeat(log_mean, np.diff(some), axis=0), strict=True
        ):
            ratio = least - values[member] - log_of_subset
            outdone = np.searchsorted(np.sort(ratio), ratio - math.log(gamma), side='right')
            itself = gamma <= 1
            scores[member] = (outdone - itself) / (targets.size - 1)
    return Attack(scores, included, targets)
