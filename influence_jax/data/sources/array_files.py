"""Arrays and ids from single files, read so that nothing in them can run code."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from influence_jax import files, json_files
from influence_jax.data.sources import numpy_files
from influence_jax.text import quoted

_ZIP = b'PK'
_PICKLE = b'\x80'
_SURROGATE = re.compile('[\ud800-\udfff]')


def array(path: str | Path, *, remedy: str) -> Shaped[np.ndarray, '...']:
    """Returns the array of a `.npy` file, mapped into memory rather than read.

    Args:
      path: as `numpy.save` writes it; checked to be whole.
      remedy: what to save instead of Python objects.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is something else, holds Python objects, or is damaged or cut short.
    """
    file = _existing(path)
    with files.open_regular(file) as opened:
        start = opened.read(len(numpy_files.MAGIC))
        if start != numpy_files.MAGIC:
            raise ValueError(f'{path} {_what_else(start)}')
        opened.seek(0)
        try:
            header = numpy_files.read_header(opened)
        except numpy_files.PythonObjects as error:
            raise ValueError(
                f'{path} holds Python objects, which are not read because they can run code: '
                f'save {remedy}'
            ) from error
        except ValueError as error:
            raise ValueError(f'{path} is damaged: {error}; copy or save it again') from error
        size = opened.seek(0, os.SEEK_END)
        surplus = size - header.offset - header.nbytes
        if surplus < 0:
            raise ValueError(
                f'{path} is cut short, it holds only {size:,} bytes of '
                f'{header.offset + header.nbytes:,}: copy or save it again'
            )
        if surplus:
            raise ValueError(
                f'{path} holds {surplus:,} bytes after the array: save one array alone in it'
            )
        if not header.nbytes:  # nothing to map
            return np.empty(header.shape, header.dtype, header.order)
        try:
            values = np.memmap(opened, header.dtype, 'r', header.offset, header.shape, header.order)
            numpy_files.check_characters(values)
        except (OSError, ValueError, OverflowError) as error:
            raise ValueError(f'{path} cannot be read ({error}): copy or save it again') from error
        return values


def ids(path: str | Path, *, what: str, expected: int) -> tuple[str, ...]:
    """Returns names from a `.json` (a list), a `.npy` (text or integers) or a text file (by lines).

    Args:
      path: of the file; its ending says which of the three it is.
      what: what they are of, for messages: 'example'.
      expected: how many there must be.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read as ids, or as in `check_ids`.
    """
    read = {'.npy': _from_npy, '.json': _from_json}.get(Path(path).suffix.lower(), _from_text)
    return check_ids(read(path), source=str(path), what=what, expected=expected)


def check_ids(found: Iterable[object], *, source: str, what: str, expected: int) -> tuple[str, ...]:
    """Returns ids as texts; refuses (ValueError) another number, empty ones, repeated ones."""
    names = tuple(map(str, found))
    if len(names) != expected:
        raise ValueError(
            f'{source} holds {len(names):,} {what} ids, but there are {expected:,} {what}s: '
            f'give one id for each, in their order'
        )
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        if not name.strip():
            raise ValueError(f'{source}: {what} id {position} is empty')
        if _SURROGATE.search(name):
            raise ValueError(
                f'{source}: {what} id {position} ({quoted(name)}) holds half of a surrogate pair, '
                f'which is no text: save it again'
            )
        if first.setdefault(name, position) != position:
            raise ValueError(
                f'{source}: {what} id {quoted(name)} occurs twice, at {first[name]} and at '
                f'{position} (counted from 0): each must have an id of its own'
            )
    return names


def _from_text(path: str | Path) -> list[str]:
    try:
        text = _content(path).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no UTF-8 text: save ids one a line') from error
    # Not splitlines: an id may hold what that takes for the end of a line.
    lines = text.removesuffix('\n').split('\n') if text else []
    return [line.removesuffix('\r') for line in lines]


def _from_json(path: str | Path) -> list[str]:
    content = _content(path)
    try:
        found = json_files.parse_json(content)
    except ValueError as error:
        raise ValueError(f'{path}: {error}; save a list of ids') from error
    if not isinstance(found, list) or not all(type(one) in (str, int) for one in found):
        raise ValueError(f'{path} must hold one list of texts or integers')
    return [str(one) for one in found]


def _from_npy(path: str | Path) -> list[str]:
    found = array(path, remedy='ids.astype(str)')
    if found.ndim != 1 or found.dtype.kind not in 'Uiu':
        raise ValueError(
            f'{path} must hold a vector of texts or integers, not {found.dtype} {list(found.shape)}'
        )
    try:
        return [str(one) for one in found.tolist()]
    except ValueError as error:  # code points that do not exist
        raise ValueError(f'{path} holds characters that are no text: save it again') from error


def _content(path: str | Path) -> bytes:
    with files.open_regular(_existing(path)) as file:
        return file.read()


def _existing(path: str | Path) -> Path:
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f'{path}: no such file')
    return file


def _what_else(start: bytes) -> str:
    if not start:
        return 'is empty: copy or save it again'
    if start.startswith(_ZIP):
        return (
            'is an archive (.npz or .pt), not a .npy file: save each array by itself with '
            'numpy.save'
        )
    if start.startswith(_PICKLE):
        return 'is a pickle, which could run code: save the array with numpy.save instead'
    return 'is not a .npy file: save the array with numpy.save'
