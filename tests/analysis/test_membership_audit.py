"""An audit: what its attacks find, which records are at risk, and what cannot be attacked."""

import jax
import numpy as np
import pytest

from influence_jax.analysis import membership
from influence_jax.analysis.membership import Resample, audit

KEY = jax.random.key(0)
M, T = 64, 60


def drawn(members=M, targets=T, *, memorized=(), seed=0):
    """Masks, and losses that are lower where a memorized target is included."""
    rng = np.random.default_rng(seed)
    masks = rng.random((members, targets)) < 0.5
    losses = rng.gamma(4.0, 0.25, masks.shape)
    for target in memorized:
        losses[masks[:, target], target] *= 1e-3
    return masks, losses.astype(np.float32)


def test_it_is_what_the_attacks_say_by_themselves():
    masks, losses = drawn(memorized=(3, 7, 8))
    found = audit(masks, losses, key=KEY)
    gaps = membership.logit_gaps(losses)
    expected = {
        'lira_online': membership.lira(masks, gaps),
        'lira_offline': membership.lira(masks, gaps, setting=membership.Setting.OFFLINE),
        'rmia': membership.rmia(masks, losses),
        'loss': membership.Attack(-losses, masks, np.arange(T)),
    }
    assert [one.name for one in found.attacks] == list(expected)
    rates = membership.auditing.FALSE_POSITIVE_RATES
    for one, attack in zip(found.attacks, expected.values(), strict=True):
        for resample, area in (
            (Resample.MEMBERS, one.auroc_over_members),
            (Resample.TARGETS, one.auroc_over_records),
        ):
            alone = membership.performance(
                attack, key=KEY, false_positive_rates=rates, resample=resample
            )
            np.testing.assert_equal(area, alone.auroc)
            name = 'over_members' if resample is Resample.MEMBERS else 'over_records'
            np.testing.assert_equal(
                [getattr(rate, name) for rate in one.at], alone.true_positive_rates
            )
        curve = membership.roc(attack.scores, attack.included)
        np.testing.assert_array_equal(
            one.true_positive_rates,
            membership.true_positive_rates(curve, one.false_positive_rates),
        )
        assert len(one.false_positive_rates) <= 400
    single = membership.vulnerability(
        expected['lira_online'], false_positive_rate=found.false_positive_rate
    )
    np.testing.assert_array_equal(found.vulnerability, single.success)
    np.testing.assert_array_equal(found.false_alarms, single.false_alarms)
    np.testing.assert_array_equal(found.auroc, single.auroc)
    assert (found.vulnerability_low <= found.vulnerability).all()
    assert (found.vulnerability <= found.vulnerability_high).all()


def test_records_that_are_memorized_are_at_risk_and_no_others():
    found = audit(*drawn(memorized=(3, 7, 8)), key=KEY)
    assert np.flatnonzero(found.at_risk).tolist() == [3, 7, 8]
    assert (found.vulnerability[[3, 7, 8]] > 0.5).all()


def test_where_nothing_is_told_nobody_is_at_risk():
    at_risk = [audit(*drawn(seed=seed), key=KEY).at_risk.sum() for seed in range(10)]
    assert np.count_nonzero(at_risk) <= 1


def test_recorded_logit_gaps_are_taken():
    masks, losses = drawn()
    gaps = np.where(masks, 9, 0) + np.random.default_rng(1).normal(size=losses.shape)
    found = audit(masks, losses, key=KEY, gaps=gaps.astype(np.float32))
    assert found.attacks[0].auroc_over_members.value > 0.99
    assert found.attacks[-1].auroc_over_members.value < 0.6


@pytest.mark.parametrize('shift', [0.0, -5.0])
def test_losses_that_are_no_log_probabilities_are_attacked_by_themselves(shift):
    masks, losses = drawn(memorized=range(T))
    found = audit(masks, losses + np.float32(shift), key=KEY, log_losses=shift < 0)
    assert [one.name for one in found.attacks] == ['loss']
    assert 'no -log p' in found.notes[0]
    assert found.attacks[0].auroc_over_members.value > 0.9


def test_inverted_masks_are_noticed():
    masks, losses = drawn(memorized=range(T))
    found = audit(~masks, losses, key=KEY)
    assert [one.name for one in found.attacks] == ['loss']
    assert 'inverted masks' in found.notes[0]


def test_too_little_is_no_audit():
    masks, losses = drawn()
    least = membership.LEAST_SUBSETS
    assert audit(masks[:least], losses[:least], key=KEY) is not None
    assert audit(masks[: least - 1], losses[: least - 1], key=KEY) is None
    repeated = np.arange(M) % (least - 1)
    assert audit(masks[repeated], losses, key=KEY) is None
    assert audit(masks, losses, key=KEY, target_examples=np.full(T, -1)) is None


def test_targets_that_cannot_be_attacked_are_left_out():
    masks, losses = drawn(memorized=(3,))
    masks[:, 5] = np.arange(M) < 2
    own = np.arange(T)
    own[9] = -1
    found = audit(masks, losses, key=KEY, target_examples=own)
    left_out = np.flatnonzero(np.isnan(found.vulnerability))
    assert left_out.tolist() == np.flatnonzero(np.isnan(found.auroc)).tolist() == [5, 9]
    assert not found.at_risk[left_out].any()
    assert found.at_risk[3]
    assert found.notes[0].startswith('1 of 59 targets are in, or out of, fewer than 3')


def test_large_ones_are_sampled_but_every_record_is_judged():
    masks, losses = drawn(targets=200, memorized=range(0, 200, 2))
    all_of_them = audit(masks, losses, key=KEY)
    found = audit(masks, losses, key=KEY, most_scores=M * 50)
    assert 'of 50 of the 200 targets' in found.notes[0]
    assert np.isfinite(found.vulnerability).all()
    np.testing.assert_array_equal(found.auroc, all_of_them.auroc)
    for one, other in zip(found.attacks, all_of_them.attacks, strict=True):
        assert one.auroc_over_members.value == pytest.approx(
            other.auroc_over_members.value, abs=0.05
        )


@pytest.mark.parametrize('levels', [1, 2, 5])
@pytest.mark.parametrize('log_losses', [True, False])
def test_1797_records_whose_losses_tie(levels, log_losses):
    """As of a table that is fitted to the last digit: the digits of scikit-learn."""
    rng = np.random.default_rng(0)
    masks = rng.random((40, 1797)) < 0.5
    losses = rng.integers(levels, size=masks.shape).astype(np.float32)
    found = audit(masks, losses, key=KEY, log_losses=log_losses)
    assert np.isfinite(found.vulnerability).all()
    by_loss = found.attacks[-1]
    for rate in by_loss.at:
        # A blind attack finds as many as it accuses, also where no threshold reaches the rate.
        assert rate.over_members.value == pytest.approx(rate.false_positive_rate, rel=0.3)
        assert rate.over_members.low <= rate.over_members.value <= rate.over_members.high
    assert not found.at_risk.any()
    assert any('tied scores' in note for note in found.notes) == (not log_losses or levels == 1)


def test_groups_widen_the_intervals_over_records():
    masks, losses = drawn(members=40, targets=40)
    losses[masks[:, :10].repeat(4, axis=1)] *= 0.3
    copies = masks[:, :10].repeat(4, axis=1)
    alone = audit(copies, losses, key=KEY)
    together = audit(copies, losses, key=KEY, groups=np.arange(40) // 4)
    assert np.ptp(together.attacks[0].auroc_over_records[1:]) > np.ptp(
        alone.attacks[0].auroc_over_records[1:]
    )


@pytest.mark.parametrize('members', [M, 40])
def test_gaps_that_are_not_finite_are_derived_from_the_losses(members):
    masks, losses = drawn(memorized=(3,))
    gaps = membership.logit_gaps(losses)
    gaps[:members, 0] = np.inf
    found, expected = audit(masks, losses, gaps=gaps, key=KEY), audit(masks, losses, key=KEY)
    np.testing.assert_equal(found.attacks, expected.attacks)
    assert any(f'{members} of {M} members' in note for note in found.notes)


def test_all_attacks_are_of_the_members_with_finite_losses():
    masks, losses = drawn(memorized=(3,))
    expected = audit(masks[1:], losses[1:], gaps=membership.logit_gaps(losses[1:]), key=KEY)
    gaps = membership.logit_gaps(losses)
    losses[0, :2] = np.nan, -1.0
    gaps[0, 5] = np.nan  # of a member that is left out anyway
    np.testing.assert_equal(audit(masks, losses, gaps=gaps, key=KEY), expected)
    assert 'rmia' in [one.name for one in audit(masks, losses, key=KEY).attacks]


def test_gaps_of_other_targets_are_refused():
    masks, losses = drawn()
    with pytest.raises((ValueError, TypeError), match='gaps'):  # TypeError where types are checked
        audit(masks, losses, gaps=losses[:, 1:], key=KEY)


def test_a_rounded_zero_is_a_loss():
    masks, losses = drawn(memorized=(3,))
    losses[0, 1] = -1e-8
    found = audit(masks, losses, key=KEY)
    assert [one.name for one in found.attacks] == ['lira_online', 'lira_offline', 'rmia', 'loss']
    losses[0, 1] = -0.25
    found = audit(masks, losses, key=KEY)
    assert [one.name for one in found.attacks] == ['loss']
    assert any('-0.25' in note for note in found.notes)
    found = audit(masks, losses, gaps=-losses, key=KEY)
    assert 'rmia' not in [one.name for one in found.attacks]
    assert any('-0.25' in note and 'RMIA' in note for note in found.notes)


def test_few_scores_decide_no_rate_and_none_are_drawn():
    masks, losses = drawn(targets=2)
    (note,) = audit(masks, losses, key=KEY, most_scores=1).notes
    assert 'too few to decide' in note


def test_intervals_over_records_are_of_other_records():
    """Half of the records are told without error, the others not at all: a share of T draws."""
    members, targets = 64, 400
    masks, losses = drawn(members, targets)
    told = np.arange(targets) % 2 == 0
    losses[:, told] = np.where(masks[:, told], 1e-3, 9.0) * (1 + 0.01 * losses[:, told])
    found = audit(masks, losses, key=KEY).attacks[-1]  # by the loss alone
    rate = found.at[0]  # at 1 in 1,000: none of the others' losses is as low
    assert rate.over_records.value == rate.over_members.value == pytest.approx(0.5, abs=0.02)
    half = 1.96 * np.sqrt(0.25 / targets)
    low, high = rate.over_records.value - half, rate.over_records.value + half
    np.testing.assert_allclose(rate.over_records[1:], [low, high], atol=0.25 * half)
    # Other models tell the same records apart: which they are is no draw of theirs.
    assert np.ptp(rate.over_members[1:]) < 0.5 * np.ptp(rate.over_records[1:])
