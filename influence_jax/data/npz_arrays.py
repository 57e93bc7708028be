"""The arrays of a `.npz` file; neither its directory nor a header is taken at its word."""

import dataclasses
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Shaped

from influence_jax import files
from influence_jax.data import npy_header
from influence_jax.data.npy_header import Header
from influence_jax.text import escaped, first_line, quoted

_SUFFIX = '.npy'
_MOST_MEMBERS = 1_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_READ_AT_ONCE = 2**18
_TOLD = 20
_FREE_BYTES = 2**25
"""An array of 32 MiB or less may be compressed to any size ..."""
_MOST_EXPANSION = 200
"""... a larger one to no less than a 200th: few images are, and all bombs."""

# What zipfile and zlib raise where a file is not what it says, beside what they mean to.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError,
    RuntimeError, OverflowError, MemoryError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Arrays:
    """What a file holds, before any array of it is read.

    Attributes:
      headers: of the arrays by their names; of those that cannot be read, why.
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
        """Of an array that can be read; () of others, which `read` refuses."""
        header = self.headers[name]
        return () if isinstance(header, ValueError) else header.shape

    def told(self) -> str:
        """Names, types and shapes, for messages."""
        found = [
            f'{escaped(name)} ({escaped(str(header))})'
            for name, header in sorted(self.headers.items())
        ]
        more = f' and {len(found) - _TOLD} more' if len(found) > _TOLD else ''
        return ', '.join(found[:_TOLD]) + more or 'nothing'


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
    """Of an array that its file's size and the directory bear out."""
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
            header = npy_header.read(opened_member)
    except npy_header.PythonObjects:
        raise
    except _DAMAGE as error:
        raise ValueError(first_line(error)) from error
    if header.offset + header.nbytes != member.file_size:
        raise ValueError(
            f'its header tells of {header.nbytes:,} bytes ({escaped(str(header))}), but the '
            f'directory of {member.file_size - header.offset:,}'
        )
    most = max(_FREE_BYTES, member.compress_size * _MOST_EXPANSION)
    if member.file_size > most:
        raise ValueError(
            f'{member.compress_size:,} compressed bytes claim to be {member.file_size:,}; '
            'save it uncompressed with numpy.savez'
        )
    return header


def _numbers(member: IO[bytes], header: Header) -> np.ndarray:
    npy_header.read(member)
    flat = np.empty(header.nbytes, np.uint8)
    for start in range(0, header.nbytes, _READ_AT_ONCE):
        part = flat[start : start + _READ_AT_ONCE]
        content = member.read(len(part))
        if len(content) != len(part):
            raise ValueError('it is cut short')
        part[:] = np.frombuffer(content, np.uint8)
    if member.read(1):  # at the end, and not before, the checksum is compared
        raise ValueError('it is longer than its header says')
    found = flat.view(header.dtype).reshape(header.shape, order=header.order)
    npy_header.check_characters(found)
    return found


def _refusal(name: str, error: BaseException) -> str:
    return (
        f'array {quoted(name)} cannot be read ({first_line(error)}); it must be '
        'plain numbers or text, no Python objects, and complete'
    )
