"""Numbers as text: digits that follow the scale and the error, one way everywhere."""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

PLUS_MINUS = '\N{PLUS-MINUS SIGN}'
MINUS = '\N{MINUS SIGN}'
MISSING = '\N{EN DASH}'

_MOST_DIGITS = 5
"""Behind the point; beyond, and of `_LARGE` numbers, powers of ten are written."""

_LARGE = 1e7
_SMALL = 1e-3


def decimals(scale: float | np.floating, *, least: int = 2, most: int = 4) -> int:
    """Returns how many digits behind the point show a number of this scale.

    Two, or fewer where that would show more than `most` significant digits, or more where that
    would show fewer than `least`: a table of squared errors of 1e-4 must not read 0.00.
    """
    scale = float(scale)
    if not (scale and math.isfinite(scale)):
        return 2
    exponent = math.floor(math.log10(abs(scale)))
    return max(0, min(2, most - 1 - exponent), least - 1 - exponent)


def number(value: float | np.floating, digits: int | None = None) -> str:
    """Returns '1.25', '0.00031', '5,230', '3.1e-07', an infinity sign, or a dash for NaN.

    Args:
      value: any.
      digits: behind the point, as for shares and for a column of one scale; by default as many as
        the value's own scale asks for.
    """
    value = float(value)
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return '\N{INFINITY}' if value > 0 else MINUS + '\N{INFINITY}'
    if digits is None:
        digits = decimals(value)
    if digits > _MOST_DIGITS or abs(value) >= _LARGE:
        return _power(value)
    text = f'{abs(value):,.{digits}f}'
    return MINUS + text if value < 0 and text.strip('0.') else text


def measured(value: float | np.floating, standard_error: float | np.floating) -> str:
    """Returns '1.25 +- 0.06', with digits enough to show the error; a dash for NaN."""
    return ' '.join(filter(None, measured_parts(value, standard_error)))


def measured_parts(
    value: float | np.floating, standard_error: float | np.floating
) -> tuple[str, str]:
    """Returns value and '+- error' apart, to be set in two lines; in powers of ten if tiny.

    The error has one digit that is not zero at least, and the value as many behind the point;
    where the error is not known, or not finite, the value alone says how many. Beside an error too
    small for that, in powers of ten, the value has five significant digits at most.
    """
    value, standard_error = float(value), float(standard_error)
    if math.isnan(value):
        return MISSING, ''
    if not (math.isfinite(value) and math.isfinite(standard_error)):
        return number(value), f'{PLUS_MINUS} {number(standard_error)}'
    digits = decimals(standard_error, least=1, most=2) if standard_error else decimals(value)
    if digits > _MOST_DIGITS or max(abs(value), standard_error) >= _LARGE:
        plain = _SMALL <= abs(value) < _LARGE and standard_error < _SMALL
        shown = number(value, min(_MOST_DIGITS, decimals(value, least=5))) if plain else None
        return shown or _power(value), f'{PLUS_MINUS} {_power(standard_error)}'
    return number(value, digits), f'{PLUS_MINUS} {number(standard_error, digits)}'


def _power(value: float | np.floating) -> str:
    return f'{value:.1e}'.replace('-', MINUS) if value else '0'


def plus_minus(mean: float | np.floating, deviation: float | np.floating, digits: int) -> str:
    """Returns '1.410 +- 0.568': a mean and a standard deviation, both with so many digits."""
    return f'{number(mean, digits)} {PLUS_MINUS} {number(deviation, digits)}'


def count(amount: int, noun: str) -> str:
    """Returns '1 member', '1,567 members'."""
    return f'{amount:,} {noun}' if amount == 1 else f'{amount:,} {noun}s'


def listing(indices: Iterable[int] | Int[np.ndarray, ' K'], longest: int = 12) -> str:
    """Returns '3, 7, 12 and 40 more'."""
    listed = list(indices)
    shown = ', '.join(str(int(index)) for index in listed[:longest])
    rest = len(listed) - longest
    return f'{shown} and {rest} more' if rest > 0 else shown
