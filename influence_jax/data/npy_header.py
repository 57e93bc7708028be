"""The header of a `.npy` file, read with bounds of our own before numpy sees the file.

numpy evaluates it as Python, which ends in a traceback on `((((`, and takes its word for how
large the array is.
"""

import ast
import math
import re
import struct
import sys
from typing import IO, Literal, NamedTuple

import numpy as np

from influence_jax.text import quoted

MAGIC = b'\x93NUMPY'

_MOST_BYTES = 10_000
"""Of a header; numpy's own limit."""
_MOST_DEPTH = 8
_MOST_AXES = 32
_LENGTHS = {1: '<H', 2: '<I', 3: '<I'}
_PLAIN = re.compile(r'[<>|=]?([biufcSUV][1-9]\d{0,8}|[mM]8(\[\d{0,9}[a-zA-Z]{1,2}\])?)')
_KEYS = {'descr', 'fortran_order', 'shape'}


class Header(NamedTuple):
    """What stands before an array's numbers.

    shape: of the array.
    dtype: of its numbers; never Python objects, and without named fields.
    fortran_order: whether the first axis is the one that varies fastest.
    offset: bytes before the first number.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """Of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def order(self) -> Literal['C', 'F']:
        """As numpy calls it."""
        return 'F' if self.fortran_order else 'C'

    def __str__(self) -> str:
        return f'{self.dtype} {list(self.shape)}'


class PythonObjects(ValueError):
    """The array holds Python objects, which could run code and are not read."""


def read(file: IO[bytes]) -> Header:
    """Reads a header and leaves the file behind it.

    Raises:
      PythonObjects: the array holds such.
      ValueError: there is no header, or a damaged one; the message says what is wrong and does
        not name the file.
    """
    start = file.read(len(MAGIC) + 2)
    if start[: len(MAGIC)] != MAGIC or len(start) < len(MAGIC) + 2:
        raise ValueError('it does not begin as a .npy file does')
    version = start[-2]
    if version not in _LENGTHS:
        raise ValueError(f'its format is of version {version}; 1 to 3 are known')
    packed = file.read(struct.calcsize(_LENGTHS[version]))
    if len(packed) < struct.calcsize(_LENGTHS[version]):
        raise ValueError('its header is cut short')
    (length,) = struct.unpack(_LENGTHS[version], packed)
    if length > _MOST_BYTES:
        raise ValueError(f'its header claims {length:,} bytes; at most {_MOST_BYTES:,} make sense')
    content = file.read(length)
    if len(content) < length:
        raise ValueError('its header is cut short')
    fields = _fields(content.decode('latin-1' if version < 3 else 'utf-8', errors='replace'))
    dtype = _dtype(fields['descr'])
    return Header(
        _shape(fields['shape'], dtype.itemsize),
        dtype,
        _order(fields['fortran_order']),
        len(start) + len(packed) + length,
    )


def check_characters(array: np.ndarray) -> None:
    """Refuses text with code points beyond Unicode, on which numpy fails with a SystemError.

    Raises:
      ValueError: it holds such; nothing is looked at in arrays of other types.
    """
    if array.dtype.kind == 'U' and array.size:
        codes = np.ascontiguousarray(array).view(f'{array.dtype.byteorder}u4')
        if codes.max() > sys.maxunicode:
            raise ValueError('it holds characters that are no text')


def _fields(text: str) -> dict[str, object]:
    depth = deepest = 0
    for character in text:
        depth += (character in '([{') - (character in ')]}')
        deepest = max(deepest, depth)
    if deepest > _MOST_DEPTH:
        raise ValueError(f'its header is nested more than {_MOST_DEPTH} levels deep')
    try:
        fields = ast.literal_eval(text.strip())
    # What Python's parser makes of text that is none of its own.
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f'its header is {quoted(text)}, no description of an array') from error
    if not isinstance(fields, dict) or fields.keys() != _KEYS:
        raise ValueError(f'its header is {quoted(text)}; it must tell {", ".join(sorted(_KEYS))}')
    return fields


def _shape(found: object, itemsize: int) -> tuple[int, ...]:
    if (
        not isinstance(found, tuple)
        or len(found) > _MOST_AXES
        or not all(type(length) is int and length >= 0 for length in found)
        # Without axes of length 0, whose product would hide the others'.
        or itemsize * math.prod(filter(None, found)) >= 2**62
    ):
        raise ValueError(f'its header gives the shape {quoted(found)}')
    return found


def _dtype(found: object) -> np.dtype:
    if isinstance(found, list):
        raise ValueError('it holds records of named fields; save each field as an array')
    if isinstance(found, str) and re.fullmatch(r'[<>|=]?O\d{0,2}', found):
        raise PythonObjects('it holds Python objects')
    if not isinstance(found, str) or not _PLAIN.fullmatch(found):
        raise ValueError(f'its header gives the type {quoted(found)}')
    try:
        return np.dtype(found)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'its header gives the type {quoted(found)}') from error


def _order(found: object) -> bool:
    if not isinstance(found, bool):
        raise ValueError(f'its header gives fortran_order as {quoted(found)}')
    return found
