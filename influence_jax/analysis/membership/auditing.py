"""An audit: how well all usual attacks tell who trained on a record, and which are at risk.

Everything that a report says of membership, from masks and measurements.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.membership.attacks import Setting, lira, rmia
from influence_jax.analysis.membership.evidence import (
    Attack,
    Evidence,
    evidence,
    logit_gaps,
    rises_with_inclusion,
)
from influence_jax.analysis.membership.rates import (
    FALSE_POSITIVES_NEEDED,
    Resample,
    Roc,
    performance,
    points,
    roc,
    threshold,
)
from influence_jax.analysis.membership.record_rates import Vulnerability, vulnerability
from influence_jax.analysis.resampling import Interval
from influence_jax.estimators.ensemble import (
    examples_of_targets,
    finite,
    finite_members,
    numbered_repeats,
)
from influence_jax.types import AnyArray, Masks, Measurement, PRNGKey

FALSE_POSITIVE_RATES = (1e-3, 1e-2, 1e-1)
LEAST_SUBSETS = 32
"""With fewer, the spread of a record's logits is hardly known."""

_LEAST_ON_A_SIDE = 3
_LEVEL = 0.95
_FALSE_DISCOVERIES = 0.05

_ROUNDING = 1e-6
"""Below zero by no more, of the mean loss or of 1 nat, a loss is a rounded zero."""


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


def audit(
    masks: Masks,
    losses: Measurement,
    *,
    key: PRNGKey,
    log_losses: bool = True,
    gaps: Measurement | None = None,
    target_examples: Int[AnyArray, ' T'] | None = None,
    groups: Int[AnyArray, ' T'] | None = None,
    most_scores: int | None = 1_000_000,
) -> MembershipResults | None:
    """Attacks every member with all others as shadow models: LiRA online and offline, RMIA, loss.

    Targets that fewer than 3 subsets include or leave out are not attacked.

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      losses: `[M T]`, lower being better.
      key: draws the resamples of the intervals.
      log_losses: whether losses are -log p of the truth, nats. Of any others the attack by the
        loss alone is all that can be made, unless there are `gaps`.
      gaps: `[M T]` logit gaps, where they were recorded; derived from losses that are -log p, also
        where members with finite losses have gaps that are not finite.
      target_examples: as in `lira`.
      groups: `[T]` the same number for targets that are drawn together, such as near-duplicates,
        in the intervals over records. By default each by itself.
      most_scores: curves and rates are of as many targets, drawn at random, as make so many
        scores; None for all. What is by target is always of all.

    Returns:
      None where fewer than 32 different subsets have finite measurements, or fewer than 2 targets
      can be attacked.

    Raises:
      ValueError: arguments of wrong types or shapes.
    """
    masks, losses, gaps, notes = _usable(masks, losses, gaps)
    problem = _problem(masks, losses, target_examples)
    if problem is None:
        return None
    given, self_index = problem.given, problem.self_index
    notes += problem.notes
    reason = 'The losses are no -log p'
    if log_losses and (lowest := float(losses.min())) < 0:
        if lowest >= -_ROUNDING * max(1.0, float(np.abs(losses).mean(dtype=np.float64))):
            losses = np.maximum(losses, 0)
        else:
            log_losses, reason = False, f'Losses as low as {lowest:.3g} are no -log p'
            if gaps is not None:
                notes.append(f'{reason}: RMIA was not made.')
    if gaps is None and log_losses:
        gaps = logit_gaps(losses)
    if gaps is None:
        notes.append(f'{reason}: no attack but the one by the loss was made.')
    elif (
        rises_with_inclusion(given) is True
        or rises_with_inclusion(evidence(masks, gaps, self_index)) is False
    ):
        gaps = None
        notes.append(
            'Members do worse on what they trained on, as under inverted masks: no attack but the '
            'one by the loss was made.'
        )
    first, *others = _attacks(masks, losses, gaps, log_losses=log_losses)
    whole, chosen = first.make(self_index), np.arange(given.targets.size)
    count = chosen.size if most_scores is None else max(most_scores // len(whole.scores), 2)
    if count < chosen.size:
        chosen = resampling.host_generator(key).choice(chosen, count, replace=False)
        notes.append(
            f'Curves and rates are of {count:,} of the {whole.targets.size:,} targets, drawn at '
            f'random.'
        )
    # A column of its own for each target, in any attack: only RMIA looks at others.
    sampled = np.full_like(self_index, -1)
    sampled[given.targets[chosen]] = self_index[given.targets[chosen]]
    chosen = np.sort(chosen)
    together = None if groups is None else np.asarray(groups)[given.targets[chosen]]
    part = Attack(whole.scores[:, chosen], whole.included[:, chosen], whole.targets[chosen])
    curve = roc(part.scores, part.included)
    rate = _lowest_rate(curve, notes)
    single = vulnerability(whole, false_positive_rate=rate, curve=curve)
    done = [_results(first, part, curve, key=key, groups=together)]
    for kind in others:
        part = kind.make(sampled)
        curve = roc(part.scores, part.included)
        done.append(_results(kind, part, curve, key=key, groups=together))
    return _by_target(tuple(done), whole, single, targets=len(self_index), notes=notes)


class _Usable(NamedTuple):
    """Members whose losses are all finite: every attack is of these."""

    masks: Bool[np.ndarray, 'M N']
    losses: Float[np.ndarray, 'M T']
    gaps: Float[np.ndarray, 'M T'] | None
    notes: list[str]


def _usable(masks: Masks, losses: Measurement, gaps: Measurement | None) -> _Usable:
    """Leaves out members, and all gaps where they would leave out further ones."""
    usable = finite_members(masks, losses)
    if gaps is None:
        return _Usable(*usable, None, [])
    gaps, shape = np.asarray(gaps), np.shape(losses)
    if gaps.shape != shape:
        raise ValueError(
            f'gaps are {list(gaps.shape)} and losses {list(shape)}: give both of the same members '
            f'and targets'
        )
    if len(usable.losses) < len(gaps):
        gaps = gaps[finite(losses).all(axis=1)]
    lacking = int((~finite(gaps).all(axis=1)).sum())
    if not lacking:
        return _Usable(*usable, gaps, [])
    note = (
        f'{lacking:,} of {len(gaps):,} members have logit gaps that are not finite: the recorded '
        f'ones are not used.'
    )
    return _Usable(*usable, None, [note])


class _Problem(NamedTuple):
    """What is attacked: `given` of the targets that `self_index` has an example for."""

    given: Evidence
    self_index: Int[np.ndarray, ' T']
    notes: list[str]


def _problem(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    target_examples: Int[AnyArray, ' T'] | None,
) -> _Problem | None:
    """Leaves out targets that cannot be attacked; None where too little is left."""
    self_index = examples_of_targets(
        target_examples, examples=masks.shape[1], targets=losses.shape[1]
    )
    if not (self_index >= 0).any():
        return None
    given = evidence(masks, losses, self_index)
    enough = given.smaller_side() >= _LEAST_ON_A_SIDE
    if given.subset.max() + 1 < LEAST_SUBSETS or enough.sum() < 2:
        return None
    if enough.all():
        return _Problem(given, self_index, [])
    note = (
        f'{(~enough).sum():,} of {enough.size:,} targets are in, or out of, fewer than '
        f'{_LEAST_ON_A_SIDE} different subsets, and are not attacked.'
    )
    self_index = self_index.copy()
    self_index[given.targets[~enough]] = -1
    return _Problem(evidence(masks, losses, self_index), self_index, [note])


class _Kind(NamedTuple):
    """A kind of attack, to be made on the targets that have an example."""

    name: str
    title: str
    make: Callable[[Int[np.ndarray, ' T']], Attack]


def _attacks(
    masks: Masks, losses: Measurement, gaps: Measurement | None, *, log_losses: bool
) -> Iterator[_Kind]:
    """Yields what can be attacked by, the best informed first."""

    def by_loss(self_index: Int[np.ndarray, ' T']) -> Attack:
        given = evidence(masks, losses, self_index)
        return Attack(-given.values, given.included, given.targets)

    if gaps is not None:
        for setting in Setting:
            make = functools.partial(_lira, masks, gaps, setting)
            yield _Kind(f'lira_{setting.value}', f'LiRA, {setting.value}', make)
        if log_losses:
            yield _Kind('rmia', 'RMIA', lambda index: rmia(masks, losses, target_examples=index))
    yield _Kind('loss', 'loss alone', by_loss)


def _lira(
    masks: Masks, gaps: Measurement, setting: Setting, self_index: Int[np.ndarray, ' T']
) -> Attack:
    return lira(masks, gaps, setting=setting, target_examples=self_index)


def _lowest_rate(curve: Roc, notes: list[str]) -> float:
    """Returns the lowest rate that enough records left out decide."""
    decided = [
        rate
        for rate in FALSE_POSITIVE_RATES
        if curve.left_out.size * rate >= FALSE_POSITIVES_NEEDED * (1 - 1e-9)
    ]
    rate = decided[0] if decided else FALSE_POSITIVE_RATES[-1]
    if not decided:
        notes.append(
            f'{curve.left_out.size:,} scores of records left out are too few to decide at any of '
            f'these false-positive rates: single records are judged at {rate:g} all the same.'
        )
    elif rate > FALSE_POSITIVE_RATES[0]:
        notes.append(
            f'{curve.left_out.size:,} scores of records left out decide at no false-positive rate '
            f'below {rate:g}: single records are judged at that one.'
        )
    at = threshold(curve, rate)
    tied = int((curve.left_out == at.score).sum())
    if tied > 1 and at.share > 0:
        notes.append(
            f'At a false-positive rate of {rate:g} the threshold falls among {tied:,} tied scores '
            f'of records left out: a share of {at.share:.2g} of all that are tied is accused.'
        )
    return rate


def _results(
    kind: _Kind,
    attack: Attack,
    curve: Roc,
    *,
    key: PRNGKey,
    groups: Int[np.ndarray, ' T'] | None,
) -> AttackResults:
    members, records = (
        performance(
            attack,
            key=key,
            false_positive_rates=FALSE_POSITIVE_RATES,
            resample=resample,
            groups=groups if resample is Resample.TARGETS else None,
            level=_LEVEL,
            curve=curve,
        )
        for resample in (Resample.MEMBERS, Resample.TARGETS)
    )
    return AttackResults(
        kind.name,
        kind.title,
        *points(curve),
        members.auroc,
        records.auroc,
        tuple(
            TruePositiveRate(*rate)
            for rate in zip(
                FALSE_POSITIVE_RATES,
                members.true_positive_rates,
                records.true_positive_rates,
                strict=True,
            )
        ),
    )


def _by_target(
    attacks: tuple[AttackResults, ...],
    first: Attack,
    single: Vulnerability,
    *,
    targets: int,
    notes: list[str],
) -> MembershipResults:
    one_of_each = np.unique(numbered_repeats(first.included), return_index=True)[1]
    low, high = _wilson(single.success, first.included[one_of_each].sum(axis=0))
    discovered = scipy.stats.false_discovery_control(single.p_value)

    def spread(values: np.ndarray) -> Float[np.ndarray, ' T']:
        full = np.full(targets, np.nan)
        full[single.targets] = values
        return full

    return MembershipResults(
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
        tuple(notes),
    )


def _wilson(
    share: Float[np.ndarray, ' T'], trials: Int[np.ndarray, ' T']
) -> tuple[Float[np.ndarray, ' T'], Float[np.ndarray, ' T']]:
    """Wilson's interval of a share; members that repeat a mask count as one trial."""
    z = scipy.stats.norm.isf((1 - _LEVEL) / 2)
    center = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    half /= 1 + z**2 / trials
    # Of 0 and of 1 an end is the share itself, but for rounding.
    return np.clip(center - half, 0, share), np.clip(center + half, share, 1)
