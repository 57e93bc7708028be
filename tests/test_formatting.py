"""Numbers as text: digits enough for their scale and their error."""

import math

import pytest

from influence_jax.formatting import count, listing, measured, number


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (1.254, '1.25'),
        (-0.312, '\N{MINUS SIGN}0.31'),
        (0.0, '0.00'),
        (-0.001, '\N{MINUS SIGN}0.0010'),
        (3.14e-7, '3.1e\N{MINUS SIGN}07'),
        (123.456, '123.5'),
        (5234.5, '5,234'),
        (2e8, '2.0e+08'),
        (math.nan, '\N{EN DASH}'),
        (math.inf, '\N{INFINITY}'),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_a_column_of_one_scale_has_digits_of_its_own():
    assert number(-0.001, 2) == '0.00'
    assert number(0.97249, 3) == '0.972'


def test_error_bars_never_read_zero():
    assert measured(1.254, 0.061) == '1.25 ± 0.06'
    assert measured(0.0123456, 0.00234) == '0.012 ± 0.002'
    assert measured(1.5, 0.0) == '1.50 ± 0.00'
    tiny = measured(-3e-7, 2e-9)
    assert tiny == '\N{MINUS SIGN}3.0e\N{MINUS SIGN}07 ± 2.0e\N{MINUS SIGN}09'
    assert measured(5234.2, 45.1) == '5,234 ± 45'
    assert measured(52.21, 4.51) == '52.2 ± 4.5'
    assert measured(1e-4, 0.0) == '0.00010 ± 0.00000'
    assert measured(1.2, math.nan) == '1.20 ± \N{EN DASH}'
    assert measured(math.nan, math.nan) == '\N{EN DASH}'


def test_what_is_infinite_has_its_sign():
    assert measured(math.inf, 1.0) == '\N{INFINITY} ± 1.00'
    assert measured(-math.inf, math.inf) == '\N{MINUS SIGN}\N{INFINITY} ± \N{INFINITY}'
    assert measured(5.0, math.inf) == '5.00 ± \N{INFINITY}'


@pytest.mark.parametrize(
    ('value', 'text'),
    [(1.0, '1.0000'), (-0.731234, '\N{MINUS SIGN}0.73123'), (52.2149, '52.215'), (0.0, '0')],
)
def test_beside_a_tiny_error_a_value_has_five_digits(value, text):
    assert measured(value, 2e-6) == f'{text} ± 2.0e\N{MINUS SIGN}06'


def test_listing_is_short():
    assert listing([3, 7]) == '3, 7'
    assert listing(range(20), longest=2) == '0, 1 and 18 more'
    assert count(1, 'member') == '1 member'
    assert count(1567, 'member') == '1,567 members'
