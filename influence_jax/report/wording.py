"""Numbers in words: how the page and the terminal write influences, ratios, counts."""

import math
from collections.abc import Sequence

PLUS_MINUS = '\N{PLUS-MINUS SIGN}'
MINUS = '\N{MINUS SIGN}'
MISSING = '\N{EN DASH}'


def number(value: float, digits: int = 2) -> str:
    """'1.25', an infinity sign, a dash for NaN; a true minus sign before negative numbers."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return '\N{INFINITY}' if value > 0 else MINUS + '\N{INFINITY}'
    text = f'{abs(value):.{digits}f}'
    return MINUS + text if value < 0 and float(text) else text


def measured(value: float, standard_error: float) -> str:
    """'1.25 +- 0.06', with digits enough to show the error; a dash for NaN."""
    return ' '.join(measured_parts(value, standard_error))


def measured_parts(value: float, standard_error: float) -> tuple[str, ...]:
    """Value and '+- error' apart, to be set in two lines."""
    if math.isnan(value):
        return (MISSING,)
    digits = 2
    if 0 < standard_error < 1:
        digits = max(digits, -math.floor(math.log10(standard_error)))
    return number(value, digits), f'{PLUS_MINUS} {number(standard_error, digits)}'


def plus_minus(mean: float, deviation: float, digits: int) -> str:
    """'1.410 +- 0.568': a mean and a standard deviation, both with so many digits."""
    return f'{number(mean, digits)} {PLUS_MINUS} {number(deviation, digits)}'


def count(amount: int, noun: str) -> str:
    """'1 member', '1,567 members'."""
    return f'{amount:,} {noun}' if amount == 1 else f'{amount:,} {noun}s'


def listing(indices: Sequence[int], longest: int = 12) -> str:
    """'3, 7, 12 and 40 more'."""
    shown = ', '.join(str(int(index)) for index in indices[:longest])
    rest = len(indices) - longest
    return f'{shown} and {rest} more' if rest > 0 else shown
