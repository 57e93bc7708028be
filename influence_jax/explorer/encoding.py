"""Documents as JSON: numbers that JSON lacks become null, long columns become base64."""

import base64
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from influence_jax.text import LONGEST, LONGEST_NAME, clean
from influence_jax.types import AnyArray

_DIGITS = 5


def dump(document: Any) -> bytes:
    """Returns a document as UTF-8; ValueError where it holds a number that JSON lacks."""
    return json.dumps(document, allow_nan=False, separators=(',', ':')).encode()


def floats(values: Float[AnyArray, '*axes']) -> dict[str, str]:
    """Returns `{'f4': ...}`: little-endian float32, row by row; NaN and infinities as they are."""
    return {'f4': _base64(values, '<f4')}


def integers(values: Shaped[AnyArray, '*axes']) -> dict[str, str]:
    """Returns `{'i4': ...}`: little-endian int32, row by row."""
    return {'i4': _base64(values, '<i4')}


def quantized(values: Float[np.ndarray, ' M']) -> dict[str, Any]:
    """Returns `{'u2': ..., 'low', 'high'}`: uint16, from the least value to the largest.

    0 is `low` and 65535 `high`: half the size of float32, and finer than any figure shows.
    """
    low, high = float(values.min()), float(values.max())
    steps = np.round((values - low) / ((high - low) or 1) * 65535)
    return {'u2': _base64(steps, '<u2'), 'low': low, 'high': high}


def bits(values: Bool[np.ndarray, ' M']) -> dict[str, str]:
    """Returns `{'bits': ...}`: eight values a byte, the first in the highest bit."""
    return {'bits': _base64(np.packbits(values), 'u1')}


def number(value: float | np.number, digits: int = _DIGITS) -> float | None:
    """Returns a number to so many significant digits; None where it is not finite."""
    value = float(value)
    return float(f'{value:.{digits}g}') if math.isfinite(value) else None


def numbers(values: Iterable[float | np.number], digits: int = _DIGITS) -> list[float | None]:
    """Returns `number` of each."""
    return [number(value, digits) for value in values]


def name(text: str) -> str:
    """Returns an id or a name on one line, with nothing invisible in it, and not endless."""
    return clean(text, most=LONGEST_NAME)


def prose(text: str) -> str:
    """Returns a longer text likewise, with its line breaks."""
    return clean(text, most=LONGEST, keep='\n')


def token(text: str) -> str:
    """Returns a token with its line breaks and tabs, which the page makes visible."""
    return clean(text, most=LONGEST_NAME, keep='\n\t')


def positions(values: Int[AnyArray, ' n']) -> list[int]:
    """Returns whole numbers as JSON has them."""
    return np.asarray(values).tolist()


def _base64(values: Shaped[AnyArray, '*axes'], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
