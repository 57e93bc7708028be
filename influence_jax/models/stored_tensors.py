"""The safetensors files of a folder: one, or several with an index. Nothing else is read."""

import contextlib
import math
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

from influence_jax import files, json_files
from influence_jax.text import escaped, first_line, quoted

ONE_FILE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'

_FLOATS = ('F32', 'F16', 'BF16', 'F64')
_BYTES = {
    'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'I64': 8, 'U64': 8, 'I32': 4, 'U32': 4, 'I16': 2,
    'U16': 2, 'I8': 1, 'U8': 1, 'BOOL': 1, 'F8_E4M3': 1, 'F8_E5M2': 1,
}  # fmt: skip
_MOST_HEADER = 2**24
"""Bytes of a header: room for 100,000 tensors."""
_MOST_AXES = 8
_MOST_NAME = 200
_METADATA = '__metadata__'


class Stored(NamedTuple):
    """A tensor on disk: its file, its name there, its shape and safetensors' name of its type."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def find(folder: Path) -> dict[str, Stored]:
    """All tensors of the folder by name; only the files' headers are read.

    Raises:
        FileNotFoundError: there is no safetensors file, or one that the index names is missing.
        ValueError: a file is damaged, the index is wrong, or the weights are pickles.
    """
    files = _files(folder)
    missing = [escaped(file.name) for file in files if not file.exists()]
    if missing:
        raise FileNotFoundError(
            f'{folder}: {len(missing)} of {len(files)} files of the checkpoint are missing, the '
            f'first is {missing[0]}; copy the folder again'
        )
    found: dict[str, Stored] = {}
    for path in files:
        try:
            tensors = _header(path)
        except ValueError as error:
            raise ValueError(f'{path}: damaged or incomplete ({error}); copy it again') from error
        found |= {name: Stored(path, name, *tensor) for name, tensor in tensors.items()}
    return found


def read(tensors: Mapping[str, Stored]) -> Iterator[tuple[str, Float[np.ndarray, '...']]]:
    """The tensors, one after another, file after file, under the names given.

    Raises:
        ValueError: a tensor holds no floating-point numbers.
    """
    for path in sorted({stored.file for stored in tensors.values()}):
        with _opened(path) as file:
            for name, stored in tensors.items():
                if stored.file == path:
                    if stored.dtype not in _FLOATS:
                        raise ValueError(
                            f'{path}: {escaped(stored.name)} holds {stored.dtype}; only '
                            'floating-point weights can be read, no quantized ones'
                        )
                    yield name, file.get_tensor(stored.name)


def write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one file; transformers asks for the format's name in it."""
    safetensors.numpy.save_file(dict(tensors), path, metadata={'format': 'pt'})


def are_there(folder: Path) -> bool:
    """Whether the folder has its safetensors files, all of them; none is opened."""
    try:
        return all(file.is_file() for file in _files(folder))
    except (FileNotFoundError, ValueError):
        return False


def check(names: Collection[str], *, where: str) -> None:
    """Refuses a checkpoint whose files have these names, but no safetensors among them.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: the weights are pickles.
    """
    if ONE_FILE in names or INDEX in names:
        return
    if any(name.endswith('.bin') for name in names):
        raise ValueError(
            f'{where}: the weights are a pickle (.bin), which could run code and is not read; '
            'convert it once where PyTorch is installed: '
            'transformers.AutoModelForCausalLM.from_pretrained(FOLDER)'
            '.save_pretrained(NEW_FOLDER, safe_serialization=True)'
        )
    raise FileNotFoundError(
        f'{where}: neither {ONE_FILE} nor {INDEX}; give the folder of a checkpoint in '
        'safetensors (pickles, .bin, are not read)'
    )


def _header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each tensor, all of which lie in the file, one behind the other.

    Raises:
        ValueError: the header is damaged, claims more than the file holds, or tensors overlap.
    """
    with files.open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(8)
        if len(start) < 8:
            raise ValueError(f'it has {size} bytes')
        (length,) = struct.unpack('<Q', start)
        if length > min(_MOST_HEADER, size - 8):
            raise ValueError(f'its header claims {length:,} bytes of {size:,} in the file')
        fields = json_files.parse_json(file.read(length), most_depth=4)
    if not isinstance(fields, dict):
        raise ValueError('its header is no object of tensors')
    fields.pop(_METADATA, None)
    placed = sorted((_placed(name, fields[name]) for name in fields), key=lambda one: one[1:])
    end = 0
    for name, begin, stop in placed:
        if begin != end:
            raise ValueError(
                f'tensor {name} begins at {begin:,}, but the one before ends at {end:,}'
            )
        end = stop
    if end != size - 8 - length:
        raise ValueError(f'its tensors take {end:,} bytes, but it holds {size - 8 - length:,}')
    return {name: (tuple(found['shape']), found['dtype']) for name, found in fields.items()}


def _placed(name: str, found: Any) -> tuple[str, int, int]:
    """Name for messages, begin and end of a tensor that the header tells of."""
    shown = quoted(name)
    if not isinstance(found, dict) or found.keys() != {'dtype', 'shape', 'data_offsets'}:
        raise ValueError(f'of tensor {shown} the header tells {quoted(found)}')
    shape, offsets, kind = found['shape'], found['data_offsets'], found['dtype']
    if (
        not isinstance(kind, str)
        or not _whole(shape)
        or len(shape) > _MOST_AXES
        or not _whole(offsets)
        or len(offsets) != 2
    ):
        raise ValueError(f'of tensor {shown} the header tells {quoted(found)}')
    begin, end = offsets
    # Of types that are not known, and refused if they are asked for, the size is not known.
    expected = math.prod(shape) * _BYTES[kind] if kind in _BYTES else end - begin
    if end < begin or end - begin != expected:
        raise ValueError(
            f'tensor {shown} of {quoted(kind)} {quoted(shape)} takes {quoted(end - begin)} bytes'
        )
    return shown, begin, end


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)


def _files(folder: Path) -> list[Path]:
    check([path.name for path in folder.iterdir()], where=str(folder))
    if (folder / ONE_FILE).exists():
        return [folder / ONE_FILE]
    return _indexed(folder / INDEX)


def _indexed(index: Path) -> list[Path]:
    try:
        fields = json_files.read_json(index, most_bytes=_MOST_HEADER)
        names = sorted(set(fields['weight_map'].values()), key=str)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{index}: not an index of safetensors files ({first_line(error)}); copy it again'
        ) from error
    for name in names:
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or not name.endswith('.safetensors')
            or len(name) > _MOST_NAME
        ):
            raise ValueError(
                f'{index}: names {quoted(name)}, which is no safetensors file beside it'
            )
    return [index.with_name(name) for name in names]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework='np') as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(
            f'{path}: damaged or incomplete ({first_line(error)}); copy it again'
        ) from error
