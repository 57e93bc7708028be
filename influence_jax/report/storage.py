"""Records of arrays and texts as one zarr 3 group: an array a field, all else as attributes.

A record is a dataclass or a NamedTuple whose annotations say what its fields are: arrays
(jaxtyping), numbers, texts, bytes, tuples, mappings from texts, records, unions of these. Writing
and reading walk the annotations in the same way, and both check everything against them, so what
comes back is what could have been written. Nothing read can run code.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from jaxtyping import UInt8

from influence_jax.json_files import read_json
from influence_jax.store import RunError
from influence_jax.store.arrays import RowArray, RowFormat

FORMAT = 1
"""Version of the layout; another one is refused."""

_GROUP = 'zarr.json'
_MOST_BYTES, _MOST_DEPTH = 2**30, 32
_DTYPES = ('bool', *(f'{kind}{bits}' for kind in ('int', 'uint') for bits in (8, 16, 32, 64)))
_DTYPES += ('float32', 'float64')
_SHARED = {'M': 'member', 'N': 'example', 'T': 'target'}
"""Axes that are the same in all records; any other letter is of its own record."""
_BYTES = UInt8[np.ndarray, ' _']

Record = TypeVar('Record')
Axes: TypeAlias = dict[str, int]
"""Sizes of the axes that have been seen, by letter."""


def save(directory: Path, record: Any) -> None:
    """Writes a record to a new directory; durable on return.

    Args:
        directory: where; made with its parents.
        record: what.

    Raises:
        ValueError: a field is not what its annotation says; names it.
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True)
    fields = _Writer(directory).convert(type(record), record, '', {})
    attributes = {'format': FORMAT, 'record': fields}
    attributes['checksum'] = _json_digest(attributes)
    group = {'zarr_format': 3, 'node_type': 'group', 'attributes': attributes}
    with (directory / _GROUP).open('x', encoding='utf-8') as file:
        json.dump(group, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def load(directory: Path, cls: type[Record]) -> Record:
    """Reads a record of a class from a directory that `save` has written.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, of another version, or not such a record; one line.
    """
    group = read_json(directory / _GROUP, most_bytes=_MOST_BYTES, most_depth=_MOST_DEPTH)
    try:
        attributes = dict(group['attributes'])
        checksum, version = attributes.pop('checksum'), attributes['format']
        if version != FORMAT:
            raise ValueError(f'format {version!r:.40}, but this version reads format {FORMAT}')
        if checksum != _json_digest(attributes):
            raise ValueError('its checksum does not match what it holds')
        return _Reader(directory).convert(cls, attributes['record'], '', {})
    except (ValueError, TypeError, KeyError, RunError) as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(
            f'{directory} cannot be read: {reason:.300}; write the report again'
        ) from error


class _Walk:
    """Converts a value at a path of the record as its annotation says; axes must agree."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def convert(self, hint: Any, value: Any, path: str, axes: Axes) -> Any:
        origin, of = get_origin(hint), get_args(hint)
        if hint is bytes:
            return self.bytes(value, path)
        if hasattr(hint, 'dim_str'):
            return self.array(hint, value, path, axes)
        if origin in (types.UnionType, Union):
            kinds = [kind for kind in of if kind is not type(None)]
            if value is None and type(None) in of:
                return None
            if len(kinds) == 1:
                return self.convert(kinds[0], value, path, axes)
            return self.one_of({kind.__name__: kind for kind in kinds}, value, path, axes)
        if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, '_fields')):
            hints, values = _hints(hint), self.fields(hint, value, path)
            if values.keys() != hints.keys():
                raise ValueError(f'{path or "the record"} has other fields than this version')
            own = {axis: size for axis, size in axes.items() if axis in _SHARED}
            done = {
                name: self.convert(kind, values[name], f'{path}.{name}' if path else name, own)
                for name, kind in hints.items()
            }
            axes.update({axis: size for axis, size in own.items() if axis in _SHARED})
            return self.record(hint, done)
        if origin in (tuple, Sequence):
            values = self.items(value, path)
            alike = origin is Sequence or of[1:] == (...,)
            kinds = of[:1] * len(values) if alike else of
            return tuple(
                self.convert(kind, one, f'{path}.{i}', axes)
                for i, (kind, one) in enumerate(zip(kinds, values, strict=True))
            )
        if origin is Mapping:
            return self.mapping(
                (_checked(str, key, path), self.convert(of[1], one, f'{path}.{i}', axes))
                for i, (key, one) in enumerate(self.pairs(value, path))
            )
        return self.leaf(hint, value, path)


class _Writer(_Walk):
    """Turns values into JSON, and writes the arrays among them to the directory."""

    def bytes(self, value: bytes, path: str) -> Any:
        return self.array(_BYTES, np.frombuffer(value, np.uint8), path, {})

    def array(self, hint: Any, value: Any, path: str, axes: Axes) -> Any:
        array = np.asarray(value)
        _check_array(hint, array.dtype.name, array.shape, path, axes)
        if array.size:
            form = _format(array.dtype.name, array.shape, _dimensions(hint, path))
            # Little-endian on every machine, as the digest is.
            RowArray.create(self._directory / path, form).write(array)
        return {'dtype': array.dtype.name, 'shape': list(array.shape), 'sha256': _digest(array)}

    def one_of(self, kinds: dict[str, Any], value: Any, path: str, axes: Axes) -> Any:
        name = next(name for name, kind in kinds.items() if isinstance(value, kind))
        return {name: self.convert(kinds[name], value, path, axes)}

    def fields(self, cls: type, value: Any, path: str) -> dict[str, Any]:
        return {name: getattr(value, name) for name in _hints(cls)}

    def record(self, cls: type, fields: dict[str, Any]) -> Any:
        return fields

    def items(self, value: Any, path: str) -> Any:
        return value

    def pairs(self, value: Any, path: str) -> Any:
        return value.items()

    def mapping(self, pairs: Any) -> Any:
        return list(pairs)

    def leaf(self, kind: Any, value: Any, path: str) -> Any:
        value = _checked(kind, value.item() if isinstance(value, np.generic) else value, path)
        return value if kind is not float or math.isfinite(value) else str(value)


class _Reader(_Walk):
    """The way back; anything but what `_Writer` writes is a ValueError, TypeError or KeyError."""

    def bytes(self, node: Any, path: str) -> Any:
        return self.array(_BYTES, node, path, {}).tobytes()

    def array(self, hint: Any, node: Any, path: str, axes: Axes) -> Any:
        dtype, shape = _checked(dict, node, path)['dtype'], tuple(node['shape'])
        if dtype not in _DTYPES or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f'{path} is no array that is written here')
        _check_array(hint, dtype, shape, path, axes)
        if not math.prod(shape):
            return np.zeros(shape, dtype)
        form = _format(dtype, shape, _dimensions(hint, path))
        # The size of the file is checked before memory is taken: nothing in it is compressed.
        array = RowArray.open(self._directory / path, form).read_written(range(shape[0]))
        if _digest(array) != node['sha256']:
            raise ValueError(f'the checksum of {path} does not match what it holds')
        return array

    def one_of(self, kinds: dict[str, Any], node: Any, path: str, axes: Axes) -> Any:
        ((name, fields),) = _checked(dict, node, path).items()
        return self.convert(kinds[name], fields, path, axes)

    def fields(self, cls: type, node: Any, path: str) -> dict[str, Any]:
        return _checked(dict, node, path)

    def record(self, cls: type, fields: dict[str, Any]) -> Any:
        return cls(**fields)

    def items(self, node: Any, path: str) -> Any:
        return _checked(list, node, path)

    pairs = items
    mapping = dict

    def leaf(self, kind: Any, node: Any, path: str) -> Any:
        if kind is float and node in ('nan', 'inf', '-inf'):
            return float(node)
        return _checked(kind, node, path)


def _format(dtype: str, shape: tuple[int, ...], dimensions: tuple[str, ...]) -> RowFormat:
    fill = 'NaN' if dtype.startswith('float') else False if dtype == 'bool' else 0
    return RowFormat(shape, dtype, fill, rows_per_file=shape[0], dimensions=dimensions)


def _json_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(array: np.ndarray) -> str:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
    return hashlib.sha256(little.tobytes()).hexdigest()


def _check_array(hint: Any, dtype: str, shape: tuple[int, ...], path: str, axes: Axes) -> None:
    """Refuses an array that its annotation does not allow, given the axes of those before."""
    names = hint.dim_str.split()
    if dtype not in hint.dtypes or len(names) != len(shape):
        raise ValueError(f'{path} must be {hint.__name__}, not {dtype} {list(shape)}')
    for name, size in zip(names, shape, strict=True):
        axis, _, less = name.partition('-')
        if axis == '_':
            continue
        whole = size + int(less or 0)
        if axes.setdefault(axis, whole) != whole:
            raise ValueError(
                f'{path} is {list(shape)} [{hint.dim_str.strip()}], '
                f'but {axis} is {axes[axis]} elsewhere'
            )


def _dimensions(hint: Any, path: str) -> tuple[str, ...]:
    """Returns names of axes for zarr: shared ones alike everywhere, others of the record's own.

    All of an array differ, as readers want it: an axis that is there twice has a number.
    """
    axes = hint.dim_str.split()
    record = path if '_' in axes else path.rpartition('.')[0]
    names = [_SHARED.get(axis, f'{record}.{axis}') for axis in axes]
    return tuple(
        name if name not in names[:i] else f'{name}{i + 1}' for i, name in enumerate(names)
    )


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Returns names and annotations of a record's fields."""
    hints = get_type_hints(cls)
    names = getattr(cls, '_fields', None) or [field.name for field in dataclasses.fields(cls)]
    return {name: hints[name] for name in names}


def _checked(kind: type, value: Any, path: str) -> Any:
    """Returns a value of exactly this type; a float may be a whole number, a bool is none."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    raise ValueError(f'{path or "the record"} must be {kind.__name__}, not {value!r:.60}')
