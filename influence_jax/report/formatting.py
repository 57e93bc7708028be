"""Numbers as text: how the page and the terminal write influences, ratios, counts."""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int
from rich.text import Text

from influence_jax.text import LONGEST, clean

PLUS_MINUS = '\N{PLUS-MINUS SIGN}'
MINUS = '\N{MINUS SIGN}'
MISSING = '\N{EN DASH}'

_MOST_DIGITS = 5
"""Behind the point."""


def number(value: float | np.floating, digits: int = 2) -> str:
    """Returns '1.25', an infinity sign, a dash for NaN; with a true minus sign."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return '\N{INFINITY}' if value > 0 else MINUS + '\N{INFINITY}'
    text = f'{abs(value):.{digits}f}'
    return MINUS + text if value < 0 and float(text) else text


def measured(value: float | np.floating, standard_error: float | np.floating) -> str:
    """Returns '1.25 +- 0.06', with digits enough to show the error; a dash for NaN."""
    return ' '.join(measured_parts(value, standard_error))


def measured_parts(
    value: float | np.floating, standard_error: float | np.floating
) -> tuple[str, ...]:
    """Returns value and '+- error' apart, to be set in two lines; in powers of ten if tiny."""
    if math.isnan(value):
        return (MISSING,)
    digits = 2
    if 0 < standard_error < 1:
        digits = max(digits, -math.floor(math.log10(standard_error)))
    if digits > _MOST_DIGITS:
        value_text = f'{value:.0e}'.replace('-', MINUS) if value else '0'
        return value_text, f'{PLUS_MINUS} {standard_error:.0e}'.replace('-', MINUS)
    return number(value, digits), f'{PLUS_MINUS} {number(standard_error, digits)}'


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


def printable(text: str, *, most: int = LONGEST, style: str = '') -> Text:
    """Returns text from data for the terminal: neither markup, nor anything that steers it."""
    return Text(clean(text, most=most), style=style)
