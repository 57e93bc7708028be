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
_BYTES_PER_FILE = 2**24
_DTYPES = ('bool', *(f'{kind}{bits}' for kind in ('int', 'uint') for bits in (8, 16, 32, 64)))
_DTYPES += ('float32', 'float64')
_BYTES = UInt8[np.ndarray, ' _']
_SHARED = {'M': 'member', 'N': 'example', 'T': 'target'}
"""Axes that are the same in all records; any other letter is of its own record."""

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
    fields = _convert(_Writer(directory), type(record), record, '', {})
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
        return _convert(_Reader(directory), cls, attributes['record'], '', {})
    except (ValueError, TypeError, KeyError, RunError) as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(
            f'{directory} cannot be read: {reason:.300}; write the report again'
        ) from error


def _convert(codec: '_Writer | _Reader', hint: Any, value: Any, path: str, axes: Axes) -> Any:
    """Writes or reads a value, at a path of the record, as its annotation says; axes must agree.

    `opened` gives the parts of a record, tuple or mapping, `closed` puts converted ones together.
    """
    origin, of = get_origin(hint), get_args(hint)
    if hint is bytes or hasattr(hint, 'dim_str'):
        return codec.array(hint, value, path, axes)
    if origin in (types.UnionType, Union):
        if value is None and type(None) in of:
            return None
        kinds = {kind.__name__: kind for kind in of if kind is not type(None)}
        if len(kinds) > 1:
            return codec.one_of(kinds, value, path, axes)
        (hint,) = kinds.values()
        return _convert(codec, hint, value, path, axes)
    if _is_record(hint):
        hints, fields = _hints(hint), codec.opened(hint, value, path)
        # Of an older report, fields that came later have their defaults.
        if fields.keys() - hints.keys() or hints.keys() - fields.keys() - _optional(hint):
            raise ValueError(f'{path or "the record"} has other fields than this version')
        own = {axis: size for axis, size in axes.items() if axis in _SHARED}
        done = {
            name: _convert(codec, kind, fields[name], f'{path}.{name}'.lstrip('.'), own)
            for name, kind in hints.items()
            if name in fields
        }
        axes.update({axis: size for axis, size in own.items() if axis in _SHARED})
        return codec.closed(hint, done)
    if origin in (tuple, Sequence):
        items = codec.opened(tuple, value, path)
        alike = origin is Sequence or of[1:] == (...,)
        if alike and of[0] is str and all(type(item) is str for item in items):
            return codec.closed(tuple, list(items))  # names of all examples: none by itself
        return codec.closed(
            tuple,
            [
                _convert(codec, kind, one, f'{path}.{i}', axes)
                for i, (kind, one) in enumerate(
                    zip(of[:1] * len(items) if alike else of, items, strict=True)
                )
            ],
        )
    if origin is Mapping:
        return codec.closed(
            dict,
            [
                (_checked(str, key, path), _convert(codec, of[1], one, f'{path}.{i}', axes))
                for i, (key, one) in enumerate(codec.opened(dict, value, path))
            ],
        )
    return codec.leaf(hint, value, path)


@dataclasses.dataclass(frozen=True)
class _Writer:
    """Turns values into JSON, and writes the arrays among them to the directory."""

    directory: Path

    def array(self, hint: Any, value: Any, path: str, axes: Axes) -> Any:
        array = np.frombuffer(value, np.uint8) if hint is bytes else np.asarray(value)
        names = _axes(hint, array.dtype.name, array.shape, path, axes)
        if array.size:
            form = _format(array.dtype.name, array.shape, names, path)
            # Files are read whole, and checked: of one, that takes three times its memory.
            rows = max(1, _BYTES_PER_FILE // form.bytes_per_row)
            form = dataclasses.replace(form, rows_per_file=min(rows, len(array)))
            # Little-endian on every machine, as the digest is.
            RowArray.create(self.directory / path, form).write(array)
        return {'dtype': array.dtype.name, 'shape': list(array.shape), 'sha256': _digest(array)}

    def one_of(self, kinds: dict[str, Any], value: Any, path: str, axes: Axes) -> Any:
        name = next(name for name, kind in kinds.items() if isinstance(value, kind))
        return {name: _convert(self, kinds[name], value, path, axes)}

    def opened(self, kind: type, value: Any, path: str) -> Any:
        if _is_record(kind):
            return {name: getattr(value, name) for name in _hints(kind)}
        return value.items() if kind is dict else value

    def closed(self, kind: type, parts: Any) -> Any:
        return parts

    def leaf(self, kind: Any, value: Any, path: str) -> Any:
        value = _checked(kind, value.item() if isinstance(value, np.generic) else value, path)
        return value if kind is not float or math.isfinite(value) else str(value)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """The way back; anything but what `_Writer` writes is a ValueError, TypeError or KeyError."""

    directory: Path

    def array(self, hint: Any, node: Any, path: str, axes: Axes) -> Any:
        dtype, shape = _checked(dict, node, path)['dtype'], tuple(node['shape'])
        if dtype not in _DTYPES or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f'{path} is no array that is written here')
        names = _axes(hint, dtype, shape, path, axes)
        if 0 in shape:
            array = np.zeros(shape, dtype)
        else:
            form = _format(dtype, shape, names, path)
            # The size of the file is checked before memory is taken: nothing in it is compressed.
            array = RowArray.open(self.directory / path, form).read_written(range(shape[0]))
            if _digest(array) != node['sha256']:
                raise ValueError(f'the checksum of {path} does not match what it holds')
        return array.tobytes() if hint is bytes else array

    def one_of(self, kinds: dict[str, Any], node: Any, path: str, axes: Axes) -> Any:
        ((name, fields),) = _checked(dict, node, path).items()
        return _convert(self, kinds[name], fields, path, axes)

    def opened(self, kind: type, node: Any, path: str) -> Any:
        return _checked(dict if _is_record(kind) else list, node, path)

    def closed(self, kind: type, parts: Any) -> Any:
        return kind(**parts) if _is_record(kind) else kind(parts)

    def leaf(self, kind: Any, node: Any, path: str) -> Any:
        if kind is float and node in ('nan', 'inf', '-inf'):
            return float(node)
        return _checked(kind, node, path)


def _format(dtype: str, shape: tuple[int, ...], axes: Sequence[str], path: str) -> RowFormat:
    """Returns the layout of an array, in one file or more, with names for its axes.

    Shared axes are called alike everywhere, others are of the record's own. All of an array differ,
    as readers want it: an axis that is there twice has a number.
    """
    record = path if '_' in axes else path.rpartition('.')[0]
    names = [_SHARED.get(axis, f'{record}.{axis}') for axis in axes]
    names = [name if name not in names[:i] else f'{name}{i + 1}' for i, name in enumerate(names)]
    fill = 'NaN' if dtype.startswith('float') else False if dtype == 'bool' else 0
    return RowFormat(shape, dtype, fill, rows_per_file=shape[0], dimensions=tuple(names))


def _json_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(array: np.ndarray) -> str:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
    return hashlib.sha256(little.data).hexdigest()


def _axes(hint: Any, dtype: str, shape: tuple[int, ...], path: str, axes: Axes) -> list[str]:
    """Returns the axes of an array's annotation; refuses what it, or an array before, excludes."""
    hint = _BYTES if hint is bytes else hint
    names = hint.dim_str.split()
    if dtype not in hint.dtypes or len(names) != len(shape):
        raise ValueError(f'{path} must be {hint.__name__}, not {dtype} {list(shape)}')
    for name, size in zip(names, shape, strict=True):
        axis, _, less = name.partition('-')
        whole = size + int(less or 0)
        if axis != '_' and axes.setdefault(axis, whole) != whole:
            raise ValueError(
                f'{path} is {list(shape)} [{hint.dim_str.strip()}], '
                f'but {axis} is {axes[axis]} elsewhere'
            )
    return names


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, '_fields'))


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Returns names and annotations of a record's fields."""
    hints = get_type_hints(cls)
    names = getattr(cls, '_fields', None) or [field.name for field in dataclasses.fields(cls)]
    return {name: hints[name] for name in names}


@functools.cache
def _optional(cls: type) -> frozenset[str]:
    """Returns names of a record's fields that have defaults."""
    if not dataclasses.is_dataclass(cls):
        return frozenset(cls._field_defaults)  # type: ignore[attr-defined]
    fields = dataclasses.fields(cls)
    return frozenset(one.name for one in fields if one.default is not dataclasses.MISSING)


def _checked(kind: type, value: Any, path: str) -> Any:
    """Returns a value of exactly this type; a float may be a whole number, a bool is none."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    raise ValueError(f'{path or "the record"} must be {kind.__name__}, not {value!r:.60}')
