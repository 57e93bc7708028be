"""What an audit of membership finds: curves and rates of each attack, and every record's risk."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.membership.evidence import Attack
from influence_jax.analysis.membership.record_rates import Vulnerability
from influence_jax.analysis.resampling import Interval
from influence_jax.estimators.ensemble import numbered_repeats

LEVEL = 0.95
"""Of all intervals."""

_FALSE_DISCOVERIES = 0.05


class TruePositiveRate(NamedTuple):
    """The share of included records that an attack finds, where it accuses few others.

    Where the threshold falls among ties, the attack takes as many of them at random as the
    false-positive rate allows: the rate is interpolated. NaN where fewer than 10 false positives
    would decide.

    false_positive_rate: share of the records left out that is accused.
    over_members: the rate, and its interval over other models on these records.
    over_records: the same rate, and its interval over other records under these models.
    """

    false_positive_rate: float
    over_members: Interval
    over_records: Interval


class AttackResults(NamedTuple):
    """What one attack finds over all members and records.

    name: such as 'lira_online'.
    title: for people.
    false_positive_rates: `[P]` of the curve, ascending to 1, spaced for log axes; begins where 10
        false positives decide.
    true_positive_rates: `[P]` at these.
    auroc_over_members: area under the whole curve, and its interval over other models.
    auroc_over_records: the same area, and its interval over other records.
    at: true-positive rates at low false-positive rates.
    """

    name: str
    title: str
    false_positive_rates: Float[np.ndarray, ' P']
    true_positive_rates: Float[np.ndarray, ' P']
    auroc_over_members: Interval
    auroc_over_records: Interval
    at: tuple[TruePositiveRate, ...]


class MembershipResults(NamedTuple):
    """How well attacks infer membership, and which records are at risk.

    What is by target is by the first attack, at one threshold for all targets; NaN, and not at
    risk, where a target is no example.

    attacks: the best-informed first.
    false_positive_rate: of the threshold.
    vulnerability: `[T]` share of the members that include the target that the attack finds.
    vulnerability_standard_error: `[T]` of that.
    vulnerability_low, vulnerability_high: `[T]` its 95 % interval.
    false_alarms: `[T]` share of the members that leave the target out that the attack accuses.
    auroc: `[T]` probability that a member that includes the target scores higher than one that
        does not; 0.5 for chance.
    auroc_standard_error: `[T]` of that.
    at_risk: `[T]` whether members that include the target are found more often than others are
        accused, beyond chance: at most 5 % of these targets are there by chance, on average.
    notes: what could not be attacked or measured, and why.
    """

    attacks: tuple[AttackResults, ...]
    false_positive_rate: float
    vulnerability: Float[np.ndarray, ' T']
    vulnerability_standard_error: Float[np.ndarray, ' T']
    vulnerability_low: Float[np.ndarray, ' T']
    vulnerability_high: Float[np.ndarray, ' T']
    false_alarms: Float[np.ndarray, ' T']
    auroc: Float[np.ndarray, ' T']
    auroc_standard_error: Float[np.ndarray, ' T']
    at_risk: Bool[np.ndarray, ' T']
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        attacks: tuple[AttackResults, ...],
        first: Attack,
        single: Vulnerability,
        *,
        targets: int,
        notes: tuple[str, ...],
    ) -> 'MembershipResults':
        """Puts together what all attacks find and what the first finds of each target.

        Args:
          attacks: the best-informed first.
          first: scores of the first, on all targets that can be attacked.
          single: what these say of each target.
          targets: T.
          notes: as in `MembershipResults`.
        """
        one_of_each = np.unique(numbered_repeats(first.included), return_index=True)[1]
        low, high = _wilson(single.success, first.included[one_of_each].sum(axis=0))
        discovered = scipy.stats.false_discovery_control(single.p_value)

        def spread(values: np.ndarray) -> Float[np.ndarray, ' T']:
            full = np.full(targets, np.nan)
            full[single.targets] = values
            return full

        return cls(
            attacks,
            single.false_positive_rate,
            spread(single.success),
            spread(single.success_standard_error),
            spread(low),
            spread(high),
            spread(single.false_alarms),
            spread(single.auroc),
            spread(single.auroc_standard_error),
            spread(discovered) <= _FALSE_DISCOVERIES,
            notes,
        )


def _wilson(
    share: Float[np.ndarray, ' T'], trials: Int[np.ndarray, ' T']
) -> tuple[Float[np.ndarray, ' T'], Float[np.ndarray, ' T']]:
    """Wilson's interval of a share; members that repeat a mask count as one trial."""
    z = scipy.stats.norm.isf((1 - LEVEL) / 2)
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    half /= 1 + z**2 / trials
    # Of 0 and of 1 an end is the share itself, but for rounding.
    return np.clip(center - half, 0, share), np.clip(center + half, share, 1)
