"""The likelihood ratio attack, LiRA (Carlini et al. 2022, arXiv 2112.03570)."""

import enum

import numpy as np
from jaxtyping import Float, Int

from influence_jax.analysis.membership.attack import Attack, check_both_sides, evidence
from influence_jax.analysis.membership.shadows import Shadows
from influence_jax.types import AnyArray, Masks, Measurement

_ENOUGH_FOR_PER_RECORD = 64

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
    target_examples: Int[AnyArray, 'T'] | None = None,
) -> Attack:
    """Attacks every member with all other members as its shadow models.

    Online, the score is log N(x; mean_in, s_in) - log N(x; mean_out, s_out) of the attacked
    member's logit gap x, with means and deviations over the shadow models that include, or leave
    out, the record (their section V). Offline it is (x - mean_out) / s_out, in the order of their
    one-sided test Pr[N(mean_out, s_out) < x].

    The global variance is pooled within records (our reconstruction; the authors' program takes
    that of all values together, in which the differences between records are, too).

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      logit_gaps: `[M T]` log p_y - log sum of the other p; see `logit_gaps` where only the loss
        was recorded. Rows with anything non-finite are left out.
      setting: what shadow models the attacker has.
      variance: by default global with fewer than 64 shadow models, as the authors advise, and
        otherwise per record.
      target_examples: `[T]` position of the example that each target is, -1 where it is none: such
        targets have no membership and are left out. By default target t is example t if T == N.

    Raises:
      ValueError: wrong types or shapes, no target that is an example, or one that is included in,
        or left out of, fewer members than leave 2 shadow models on each side (1 for the global
        variance).
    """
    given = evidence(masks, logit_gaps, target_examples)
    values, included, targets = given
    if variance is None:
        few = len(values) - 1 < _ENOUGH_FOR_PER_RECORD
        variance = Variance.GLOBAL if few else Variance.PER_RECORD
    check_both_sides(given, least=3 if variance is Variance.PER_RECORD else 2)
    inside, outside = Shadows.of(values, included), Shadows.of(values, ~included)

    scores = np.empty(values.shape, np.float32)
    for member, (row, belongs) in enumerate(zip(values, included, strict=True)):
        z_out, log_out = _standardized(row, outside.without(row, ~belongs), variance)
        if setting is Setting.OFFLINE:
            scores[member] = z_out
            continue
        z_in, log_in = _standardized(row, inside.without(row, belongs), variance)
        scores[member] = 0.5 * (z_out**2 - z_in**2) + (log_out - log_in)
    return Attack(scores, included, targets)


def _standardized(
    row: Float[np.ndarray, 'T'], shadows: Shadows, variance: Variance
) -> tuple[Float[np.ndarray, 'T'], Float[np.ndarray, 'T']]:
    """The member's distance from the shadows' mean in deviations; the deviation's logarithm."""
    if variance is Variance.PER_RECORD:
        square = shadows.squares / (shadows.members - 1)
    else:
        pooled = shadows.squares.sum() / max((shadows.members - 1).sum(), 1)
        square = np.full(len(row), pooled)
    deviation = np.maximum(np.sqrt(square), _LEAST_DEVIATION)
    return (row - shadows.mean) / deviation, np.log(deviation)
