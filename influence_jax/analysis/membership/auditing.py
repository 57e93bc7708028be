"""An audit: how well all usual attacks tell who trained on a record, and which are at risk.

Everything that a report says of membership, from masks and measurements.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.membership.attacks import Setting, lira_of, rmia_of
from influence_jax.analysis.membership.audit_results import (
    LEVEL,
    AttackResults,
    MembershipResults,
    TruePositiveRate,
)
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
from influence_jax.analysis.membership.record_rates import vulnerability
from influence_jax.estimators.ensemble import (
    examples_of_targets,
    finite_members,
    finite_rows,
)
from influence_jax.types import AnyArray, Masks, Measurement, PRNGKey

FALSE_POSITIVE_RATES = (1e-3, 1e-2, 1e-1)
LEAST_SUBSETS = 32
"""With fewer, the spread of a record's logits is hardly known."""

_LEAST_ON_A_SIDE = 3

_ROUNDING = 1e-6
"""Below zero by no more, of the mean loss or of 1 nat, a loss is a rounded zero."""


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
    given = _attackable(masks, losses, target_examples, notes)
    if given is None:
        return None
    kinds = _kinds(given, losses, gaps, log_losses=log_losses, notes=notes)
    whole, chosen = kinds[0].attack(kinds[0].evidence), np.arange(given.targets.size)
    count = chosen.size if most_scores is None else max(most_scores // len(whole.scores), 2)
    if count < chosen.size:
        chosen = np.sort(resampling.host_generator(key).choice(chosen, count, replace=False))
        notes.append(
            f'Curves and rates are of {count:,} of the {whole.targets.size:,} targets, drawn at '
            f'random.'
        )
    together = None if groups is None else np.asarray(groups)[given.targets[chosen]]
    # A column of its own for each target, in any attack: only RMIA looks at others.
    part = Attack(whole.scores[:, chosen], whole.included[:, chosen], whole.targets[chosen])
    curve = roc(part.scores, part.included)
    rate = _lowest_rate(curve, notes)
    single = vulnerability(whole, false_positive_rate=rate, curve=curve)
    done = [_results(kinds[0], part, curve, key=key, groups=together)]
    for kind in kinds[1:]:
        part = kind.attack(kind.evidence.at(chosen))
        curve = roc(part.scores, part.included)
        done.append(_results(kind, part, curve, key=key, groups=together))
    return MembershipResults.of(
        tuple(done), whole, single, targets=losses.shape[1], notes=tuple(notes)
    )


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
        gaps = gaps[finite_rows(losses)]
    lacking = int((~finite_rows(gaps)).sum())
    if not lacking:
        return _Usable(*usable, np.asarray(gaps), [])
    note = (
        f'{lacking:,} of {len(gaps):,} members have logit gaps that are not finite: the recorded '
        f'ones are not used.'
    )
    return _Usable(*usable, None, [note])


def _attackable(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    target_examples: Int[AnyArray, ' T'] | None,
    notes: list[str],
) -> Evidence | None:
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
        return given
    notes.append(
        f'{(~enough).sum():,} of {enough.size:,} targets are in, or out of, fewer than '
        f'{_LEAST_ON_A_SIDE} different subsets, and are not attacked.'
    )
    return given.at(np.flatnonzero(enough))


class _Kind(NamedTuple):
    """A kind of attack, and what it is made of."""

    name: str
    title: str
    attack: Callable[[Evidence], Attack]
    evidence: Evidence


def _kinds(
    given: Evidence,
    losses: Float[np.ndarray, 'M T'],
    gaps: Float[np.ndarray, 'M T'] | None,
    *,
    log_losses: bool,
    notes: list[str],
) -> list[_Kind]:
    """Returns what can be attacked by, the best informed first; notes say what cannot, and why."""
    reason = 'The losses are no -log p'
    if log_losses and (lowest := float(losses.min())) < 0:
        if lowest >= -_ROUNDING * max(1.0, float(np.abs(losses).mean(dtype=np.float64))):
            given = given._replace(values=np.maximum(given.values, 0))
        else:
            log_losses, reason = False, f'Losses as low as {lowest:.3g} are no -log p'
            if gaps is not None:
                notes.append(f'{reason}: RMIA was not made.')
    by_gaps = None
    if gaps is not None:
        every = given.targets.size == gaps.shape[1]
        by_gaps = given._replace(values=gaps if every else gaps[:, given.targets])
    elif log_losses:
        by_gaps = given._replace(values=logit_gaps(given.values))
    alone = _Kind('loss', 'loss alone', _by_loss, given)
    if by_gaps is None:
        notes.append(f'{reason}: no attack but the one by the loss was made.')
        return [alone]
    if rises_with_inclusion(given) is True or rises_with_inclusion(by_gaps) is False:
        notes.append(
            'Members do worse on what they trained on, as under inverted masks: no attack but the '
            'one by the loss was made.'
        )
        return [alone]
    by_lira = [
        _Kind(
            f'lira_{setting.value}',
            f'LiRA, {setting.value}',
            functools.partial(lira_of, setting=setting),
            by_gaps,
        )
        for setting in Setting
    ]
    return [*by_lira, *([_Kind('rmia', 'RMIA', rmia_of, given)] if log_losses else []), alone]


def _by_loss(given: Evidence) -> Attack:
    return Attack(-given.values, given.included, given.targets)


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
            level=LEVEL,
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
