"""Sequential stopping: when members are enough, and when to check again."""

import math

import jax
import numpy as np
import pytest

from influence_jax.analysis.convergence import Check, Precision, SequentialStopping, precision
from influence_jax.estimators import adjusted, difference_in_means

KEY = jax.random.key(0)


def arriving(members, total=400, examples=12, seed=0):
    """Noise of standard deviation 1, of which the standard error of M members is 2 / sqrt(M)."""
    generator = np.random.default_rng(seed)
    masks = generator.random((total, examples)) < 0.5
    losses = generator.normal(size=(total, examples)).astype(np.float32)
    losses[members:] = np.nan
    return masks, losses


def test_stops_where_the_standard_error_is_reached_and_not_before():
    stopping = SequentialStopping(0.3, key=KEY)
    members, checked = 0, []
    while True:
        members += 4
        if not stopping.is_due(members):
            continue
        checked.append(members)
        check = stopping.check(*arriving(members), missing=400 - members)
        if check.enough:
            break
    assert 40 <= members <= 60  # (2 / 0.3)^2 = 44
    assert checked[0] == 16 and len(checked) <= 5
    assert precision(*arriving(members), key=KEY).standard_error <= 0.3
    assert check.more == 0


def test_the_same_members_are_measured_once():
    stopping = SequentialStopping(0.3, key=KEY)
    masks, losses = arriving(20)
    first = stopping.check(masks, losses, missing=9)
    again = stopping.check(masks, losses, missing=7)
    assert again.precision is first.precision and again.missing == 7
    assert stopping.check(*arriving(24)).precision.members == 24


def test_incomplete_members_do_not_count_and_any_estimator_is_asked():
    masks, losses = arriving(60)
    losses[::2] = np.nan
    found = SequentialStopping(0.3, key=KEY).check(masks, losses)
    assert found.precision.members == 30

    def mine(masks, losses, *, target_examples=None):
        return difference_in_means(masks, losses, target_examples=target_examples)

    by_mine = SequentialStopping(0.3, mine, key=KEY).check(masks, losses)
    assert by_mine.precision.standard_error == pytest.approx(
        found.precision.standard_error, rel=0.1
    )
    assert not SequentialStopping(0.3, adjusted, key=KEY).is_due(47)
    assert SequentialStopping(0.3, adjusted, key=KEY).is_due(48)


@pytest.mark.parametrize('wanted', [0.0, -1.0, math.inf, math.nan])
def test_a_standard_error_that_cannot_be_reached_is_refused(wanted):
    with pytest.raises(ValueError, match='wanted'):
        SequentialStopping(wanted, key=KEY)


def check(standard_error, *, unknown=0, missing=900):
    return Check(Precision(100, standard_error, unknown), 0.1, missing)


@pytest.mark.parametrize(
    ('seen', 'needed', 'following', 'more'),
    [
        (check(0.12), 144, 149, 44),  # a little beyond the need
        (check(0.102), 105, 110, 5),  # a tenth more at the earliest
        (check(0.3), 900, 200, 800),  # at most twice as many
        (check(0.5), 2500, 200, 900),  # there is no room for so many
        (check(math.inf), None, 200, 900),
        (check(0.09, unknown=3), 81, 110, 1),
        (check(0.09), 81, 110, 0),
    ],
)
def test_when_to_check_again(seen, needed, following, more):
    assert (seen.needed, seen.next_check, seen.more) == (needed, following, more)


def test_a_check_in_words():
    assert str(check(0.09)) == '0.09 nats with 100 members, 0.1 wanted: precise enough'
    assert str(check(0.12)) == '0.12 nats with 100 members, 0.1 takes about 144'
    assert str(check(math.inf)) == 'not known with 100 members'
    assert str(check(0.09, unknown=3)).startswith('not known for 3 examples, in or out of')
    last = str(check(0.12, missing=0))
    assert 'about 144, but all members are trained: allow more' in last
    assert not check(0.09, unknown=1).enough
