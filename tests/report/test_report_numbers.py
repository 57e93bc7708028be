import math

import pytest

from influence_jax.report import sections


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (1.254, '1.25'),
        (-0.312, '\N{MINUS SIGN}0.31'),
        (-0.001, '0.00'),
        (math.nan, '\N{EN DASH}'),
        (math.inf, '\N{INFINITY}'),
    ],
)
def test_number(value, text):
    assert sections.number(value) == text


def test_error_bars_never_read_zero():
    assert sections.measured(1.254, 0.061) == '1.25 ± 0.06'
    assert sections.measured(0.0123456, 0.00234) == '0.012 ± 0.002'
    assert sections.measured(1.5, 0.0) == '1.50 ± 0.00'
    assert sections.measured(-3e-7, 2e-9) == '\N{MINUS SIGN}3e\N{MINUS SIGN}07 ± 2e\N{MINUS SIGN}09'
    assert sections.measured(math.nan, math.nan) == '\N{EN DASH}'


def test_listing_is_short():
    assert sections.listing([3, 7]) == '3, 7'
    assert sections.listing(range(20), longest=2) == '0, 1 and 18 more'
    assert sections.count(1, 'member') == '1 member'
    assert sections.count(1567, 'member') == '1,567 members'
