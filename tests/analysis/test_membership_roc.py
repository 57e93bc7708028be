import jax
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_jax.analysis import membership
from influence_jax.analysis.membership import Attack, Resample

KEY = jax.random.key(0)


def attack_of(scores, included):
    return Attack(scores.astype(np.float32), included, np.arange(scores.shape[1]))


def normal_attack(rng, members=60, targets=50, shift=1.0, by_member=0.0, by_target=0.0):
    """Scores whose quality differs from member to member, or from target to target."""
    included = rng.random((members, targets)) < 0.5
    gain = shift + by_member * rng.normal(size=(members, 1))
    gain = gain + by_target * rng.normal(size=(1, targets))
    return attack_of(gain * included + rng.normal(size=included.shape), included)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30).filter(
        lambda pairs: len({truth for _, truth in pairs}) == 2
    ),
    st.floats(0, 1),
)
def test_the_curve_equals_the_loops(pairs, rate):
    scores, included = np.array(pairs, float).T
    included = included > 0
    curve = membership.roc(scores, included)
    points = reference.roc_points(scores, included)
    corners = np.array(sorted({x for x, _ in points} | {rate}))
    np.testing.assert_allclose(
        membership.true_positive_rates(curve, corners),
        [reference.largest_true_positive_rate(points, x) for x in corners],
        atol=1e-9,
    )
    assert membership.area(curve) == pytest.approx(reference.auroc(scores, included))
    assert membership.balanced_accuracy(curve) == pytest.approx(
        max((1 + y - x) / 2 for x, y in points)
    )


def test_a_perfect_and_a_blind_attack():
    included = np.arange(1000) < 500
    rates = np.array([0.0, 0.002, 0.5, 1.0])
    perfect = membership.roc(included.astype(float), included)
    np.testing.assert_array_equal(membership.true_positive_rates(perfect, rates), 1)
    assert membership.area(perfect) == membership.balanced_accuracy(perfect) == 1
    blind = membership.roc(np.zeros(1000), included)
    np.testing.assert_allclose(membership.true_positive_rates(blind, rates), rates)
    assert membership.area(blind) == membership.balanced_accuracy(blind) == 0.5


def test_a_whole_number_of_false_positives_is_allowed_in_full():
    """In binary 0.29 * 100 is less than 29."""
    scores, included = np.arange(200) // 2 + 0.5 * (np.arange(200) % 2), np.arange(200) % 2 == 0
    curve = membership.roc(scores, included)  # below each left out lies one included
    rates = np.arange(1, 100) / 100
    np.testing.assert_array_equal(membership.true_positive_rates(curve, rates), rates)


def test_performance_reports_the_exact_rates():
    attack = normal_attack(np.random.default_rng(0), members=50, targets=48)
    found = membership.performance(attack, key=KEY, false_positive_rates=(0.1, 0.01))
    points = reference.roc_points(attack.scores, attack.included)
    assert found.false_positive_rates == (0.1, 0.01)
    for rate, interval in zip((0.1, 0.01), found.true_positive_rates, strict=True):
        expected = reference.largest_true_positive_rate(points, rate)
        assert interval.value == pytest.approx(expected)
        assert interval.low < interval.value < interval.high
    assert found.notes == ()


def test_rates_that_too_few_records_decide_are_not_told():
    attack = normal_attack(np.random.default_rng(0))
    found = membership.performance(attack, key=KEY, false_positive_rates=(0.01, 0.001))
    told, untold = found.true_positive_rates
    assert told.value > 0.01
    assert np.isnan(untold).all()
    (note,) = found.notes
    assert note.startswith('a true-positive rate at 0.001 false positives needs 10,000 scores')
    assert found.auroc.low < found.auroc.value < found.auroc.high


@pytest.mark.parametrize('resample', Resample)
def test_intervals_cover_what_another_draw_would_give(resample):
    """Quality differs between the units that are drawn anew: their spread must be seen."""
    heterogeneous = {'by_member' if resample is Resample.MEMBERS else 'by_target': 0.7}
    draws = [
        membership.performance(
            normal_attack(np.random.default_rng(seed), **heterogeneous),
            key=jax.random.key(seed),
            false_positive_rates=(0.05,),
            resample=resample,
            resamples=100,
        )
        for seed in range(100)
    ]
    table = np.array([(*d.true_positive_rates, d.auroc, d.balanced_accuracy) for d in draws])
    truth = table[:, :, 0].mean(axis=0)
    covered = ((table[:, :, 1] < truth) & (truth < table[:, :, 2])).mean(axis=0)
    # The best threshold is chosen on the resample itself: its accuracy is a little too high.
    assert np.all(covered >= [0.86, 0.86, 0.8]), covered


def test_the_other_axis_would_give_intervals_that_are_too_narrow():
    attack = normal_attack(np.random.default_rng(0), by_target=1.0)
    widths = [
        np.ptp(membership.performance(attack, key=KEY, resample=r).auroc[1:]) for r in Resample
    ]
    assert widths[0] < 0.6 * widths[1]


def test_members_of_one_mask_are_drawn_together():
    """What the members of a mask share is seen once, however many there are."""
    rng = np.random.default_rng(0)
    once = normal_attack(rng, members=40, targets=30, by_member=0.7)
    four = attack_of(np.repeat(once.scores, 4, axis=0), np.repeat(once.included, 4, axis=0))
    found = membership.performance(four, key=KEY, false_positive_rates=(0.05,))
    expected = membership.performance(once, key=KEY, false_positive_rates=(0.05,))
    for one, other in zip(
        (*found.true_positive_rates, found.auroc, found.balanced_accuracy),
        (*expected.true_positive_rates, expected.auroc, expected.balanced_accuracy),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=3e-3)


def test_targets_of_one_group_are_drawn_together():
    rng = np.random.default_rng(0)
    once = normal_attack(rng, targets=30, by_target=1.0)
    five = attack_of(np.repeat(once.scores, 5, axis=1), np.repeat(once.included, 5, axis=1))

    def area(attack, groups=None):
        return membership.performance(
            attack, key=KEY, resample=Resample.TARGETS, groups=groups, false_positive_rates=(0.1,)
        ).auroc

    np.testing.assert_allclose(area(five, np.arange(150) // 5), area(once), rtol=3e-3)
    assert np.ptp(area(five)[1:]) < 0.7 * np.ptp(area(once)[1:])


@pytest.mark.unchecked
def test_bad_input_is_refused():
    scores, included = np.arange(4.0), np.array([True, False, True, False])
    with pytest.raises(ValueError, match='bool truth of the same shape'):
        membership.roc(scores, included[:3])
    with pytest.raises(ValueError, match='bool truth of the same shape'):
        membership.roc(scores, included.astype(int))
    with pytest.raises(ValueError, match='4 of 4 records are included'):
        membership.roc(scores, np.ones(4, bool))
    with pytest.raises(ValueError, match='NaN'):
        membership.roc(np.array([0, 1, np.nan, 3]), included)
    with pytest.raises(ValueError, match='must lie in 0'):
        membership.true_positive_rates(membership.roc(scores, included), np.array([1.5]))
    attack = normal_attack(np.random.default_rng(0))
    with pytest.raises(ValueError, match='false-positive rates'):
        membership.performance(attack, key=KEY, false_positive_rates=(0.0,))
    with pytest.raises(ValueError, match='resamples'):
        membership.performance(attack, key=KEY, resamples=1)
    with pytest.raises(ValueError, match=r'groups \[49\]'):
        membership.performance(attack, key=KEY, resample=Resample.TARGETS, groups=np.arange(49))
    with pytest.raises(ValueError, match='MEMBERS'):
        membership.performance(attack, key=KEY, groups=np.arange(50))
    with pytest.raises(ValueError, match='level'):
        membership.performance(attack, key=KEY, level=1.0)
