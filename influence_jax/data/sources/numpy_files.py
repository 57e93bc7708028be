"""Arrays of `.npy` and `.npz` files, read so that nothing in a file is trusted or can run code.

numpy evaluates the header of an array as Python, which ends in a traceback on `((((`, and believes
its word on how large the array is. So headers are read here, with bounds of our own, before numpy
sees a file, and are compared with the size of the file and the directory of the archive.
"""

import ast
import dataclasses
import math
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from influence_jax import files
from influence_jax.text import escaped, first_line, quoted

MAGIC = b'\x93NUMPY'

_MOST_HEADER_BYTES = 10_000
"""numpy's own limit."""
_MOST_DEPTH = 8
_MOST_AXES = 32
_LENGTHS = {1: '<H', 2: '<I', 3: '<I'}
_PLAIN = re.compile(r'[<>|=]?([biufcSUV][1-9]\d{0,8}|[mM]8(\[\d{0,9}[a-zA-Z]{1,2}\])?)')
_KEYS = {'descr', 'fortran_order', 'shape'}

_SUFFIX = '.npy'
_MOST_MEMBERS = 1_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_CHUNK_BYTES = 2**18
_LISTED = 20
_SMALL_BYTES = 2**25
"""An array of 32 MiB or less may be compressed to any size ..."""
_MOST_EXPANSION = 200
"""... a larger one to no less than a 200th: few images are, and all bombs."""

# What zipfile and zlib raise where a file is not what it says, beside what they mean to.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError,
    RuntimeError, OverflowError, MemoryError,
)  # fmt: skip


@runtime_checkable
class Readable(Protocol):
    """A file that is read in order: one that is open, or a member of an archive."""

    def read(self, size: int, /) -> bytes:
        """Reads the next bytes, fewer at the end."""


class Header(NamedTuple):
    """The description before an array's numbers.

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
        """Size of the numbers in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def order(self) -> Literal['C', 'F']:
        """The order of the axes, as numpy names it."""
        return 'F' if self.fortran_order else 'C'

    def __str__(self) -> str:
        return f'{self.dtype} {list(self.shape)}'


class PythonObjects(ValueError):
    """The array holds Python objects, which could run code and are not read."""


def read_header(file: Readable) -> Header:
    """Reads a header, up to the first number.

    Raises:
      PythonObjects: the array holds Python objects.
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
    if length > _MOST_HEADER_BYTES:
        raise ValueError(
            f'its header claims {length:,} bytes; at most {_MOST_HEADER_BYTES:,} make sense'
        )
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
      ValueError: it holds such code points; arrays of other types are not looked at.
    """
    if array.dtype.kind == 'U' and array.size:
        codes = np.ascontiguousarray(array).view(f'{array.dtype.byteorder}u4')
        if codes.max() > sys.maxunicode:
            raise ValueError('it holds characters that are no text')


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The arrays of an open file, each read when asked for.

    Attributes:
      headers: by the names of the arrays; of one that cannot be read, the reason.
    """

    headers: dict[str, Header | ValueError]
    _archive: zipfile.ZipFile

    def read(self, name: str) -> Shaped[np.ndarray, '...']:
        """Reads an array and checks that it is whole.

        Raises:
          ValueError: it cannot be read, holds Python objects, or is damaged.
        """
        header = self.headers[name]
        if isinstance(header, ValueError):
            raise ValueError(_refusal(name, header)) from header
        try:
            with self._archive.open(f'{name}{_SUFFIX}') as member:
                return _numbers(member, header)
        except _DAMAGE as error:
            raise ValueError(_refusal(name, error)) from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an array; () for one that cannot be read, which `read` refuses."""
        header = self.headers[name]
        return () if isinstance(header, ValueError) else header.shape

    def listed(self) -> str:
        """Returns names, types and shapes, for messages."""
        found = [
            f'{escaped(name)} ({escaped(str(header))})'
            for name, header in sorted(self.headers.items())
        ]
        more = f' and {len(found) - _LISTED} more' if len(found) > _LISTED else ''
        return ', '.join(found[:_LISTED]) + more or 'nothing'


@contextmanager
def opened(path: Path) -> Iterator[Arrays]:
    """Opens a file and reads its directory and the headers of its arrays.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no regular file, no `.npz`, or damaged; one line.
    """
    with files.open_regular(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise ValueError(
                f'{path}: not a complete .npz file ({first_line(error)}); write it with '
                'numpy.savez, or copy it again'
            ) from error
        size = file.seek(0, 2)
        with archive:
            try:
                arrays = Arrays(_headers(archive, size), archive)
            except ValueError as error:
                raise ValueError(f'{path}: {error}; write it with numpy.savez') from error
            yield arrays


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
        raise ValueError(f'its header is {quoted(text)}; it must hold {", ".join(sorted(_KEYS))}')
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


def _headers(archive: zipfile.ZipFile, size: int) -> dict[str, Header | ValueError]:
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f'it holds {len(members):,} files; {_MOST_MEMBERS:,} at most make sense')
    headers: dict[str, Header | ValueError] = {}
    for member in members:
        if not member.filename.endswith(_SUFFIX):
            continue
        name = member.filename.removesuffix(_SUFFIX)
        if name in headers:
            raise ValueError(f'it holds the array {escaped(name)} more than once')
        try:
            headers[name] = _header(archive, member, size)
        except ValueError as error:
            headers[name] = error
    return headers


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> Header:
    """The header of an array, compared with the size of the file and the directory."""
    if member.compress_type not in _METHODS:
        raise ValueError(
            f'compressed by method {member.compress_type}; numpy writes stored or deflated arrays'
        )
    if member.flag_bits & _ENCRYPTED:
        raise ValueError('it is encrypted')
    if not 0 <= member.compress_size <= size:
        raise ValueError(
            f'it claims {member.compress_size:,} bytes, but the whole file has {size:,}'
        )
    try:
        with archive.open(member) as opened_member:
            header = read_header(opened_member)
    except PythonObjects:
        raise
    except _DAMAGE as error:
        raise ValueError(first_line(error)) from error
    if header.offset + header.nbytes != member.file_size:
        raise ValueError(
            f'its header claims {header.nbytes:,} bytes ({escaped(str(header))}), but the '
            f'directory {member.file_size - header.offset:,}'
        )
    most = max(_SMALL_BYTES, member.compress_size * _MOST_EXPANSION)
    if member.file_size > most:
        raise ValueError(
            f'{member.compress_size:,} compressed bytes claim to be {member.file_size:,}; '
            'save it uncompressed with numpy.savez'
        )
    return header


def _numbers(member: Readable, header: Header) -> np.ndarray:
    read_header(member)
    flat = np.empty(header.nbytes, np.uint8)
    for start in range(0, header.nbytes, _CHUNK_BYTES):
        part = flat[start : start + _CHUNK_BYTES]
        content = member.read(len(part))
        if len(content) != len(part):
            raise ValueError('it is cut short')
        part[:] = np.frombuffer(content, np.uint8)
    if member.read(1):  # at the end, and not before, the checksum is compared
        raise ValueError('it is longer than its header says')
    found = flat.view(header.dtype).reshape(header.shape, order=header.order)
    check_characters(found)
    return found


def _refusal(name: str, error: BaseException) -> str:
    return (
        f'array {quoted(name)} cannot be read ({first_line(error)}); it must be '
        'plain numbers or text, no Python objects, and complete'
    )
