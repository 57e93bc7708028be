"""Records of arrays and texts as one zarr 3 group: an array a field, all else as attributes.

A record is a dataclass or a NamedTuple whose annotations say what its fields are: arrays
(jaxtyping), numbers, texts, bytes, tuples, mappings from texts, records, unions of these. Reading
checks everything against the annotations, so what comes back is what could have been written.
Nothing read can run code.
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
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

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


Replaced = Mapping[tuple[type, str], Any]
"""Annotations to take in place of a record's own: of a class and a field."""


def save(directory: Path, record: Any, *, replaced: Replaced | None = None) -> None:
    """Writes a record to a new directory; durable on return.

    Args:
        directory: where; made with its parents.
        record: what.
        replaced: annotations of fields whose own cannot be stored.

    Raises:
        ValueError: a field is not what its annotation says; names it.
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True)
    fields = _Writer(directory, replaced or {}).encode(type(record), record, '', {})
    attributes = {'format': FORMAT, 'record': fields}
    attributes['checksum'] = _json_digest(attributes)
    group = {'zarr_format': 3, 'node_type': 'group', 'attributes': attributes}
    with (directory / _GROUP).open('x', encoding='utf-8') as file:
        json.dump(group, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def load(directory: Path, cls: type[Record], *, replaced: Replaced | None = None) -> Record:
    """Reads a record of a class from a directory that `save` has written; arguments as there.

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
        return _Reader(directory, replaced or {}).decode(cls, attributes['record'], '', {})
    except (ValueError, TypeError, KeyError, RunError) as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ValueError(
            f'{directory} cannot be read: {reason:.300}; write the report again'
        ) from error


class _Writer:
    """Turns values into JSON, and writes the arrays among them to a directory."""

    def __init__(self, directory: Path, replaced: Replaced) -> None:
        self._directory, self._replaced = directory, replaced

    def encode(self, hint: Any, value: Any, path: str, axes: dict[str, int]) -> Any:
        """Returns the JSON of a value that is at a path of the record."""
        if hint is bytes:
            return self._array(_BYTES, np.frombuffer(value, np.uint8), path, {})
        if _is_array(hint):
            return self._array(hint, np.asarray(value), path, axes)
        if _is_union(hint):
            if value is None:
                return None
            kinds = _kinds(hint)
            if len(kinds) == 1:
                return self.encode(kinds[0], value, path, axes)
            kind = next(kind for kind in kinds if isinstance(value, kind))
            return {kind.__name__: self.encode(kind, value, path, axes)}
        if _is_record(hint):
            own = {axis: size for axis, size in axes.items() if axis in _SHARED}
            fields = {
                name: self.encode(of, getattr(value, name), _join(path, name), own)
                for name, of in _fields(hint, self._replaced).items()
            }
            axes.update({axis: size for axis, size in own.items() if axis in _SHARED})
            return fields
        if get_origin(hint) is tuple or get_origin(hint) is Sequence:
            return [
                self.encode(of, one, _join(path, i), axes)
                for i, (of, one) in enumerate(zip(_items(hint, len(value)), value, strict=True))
            ]
        if get_origin(hint) is Mapping:
            of = get_args(hint)[1]
            return [
                [_checked(str, key, path), self.encode(of, one, _join(path, i), axes)]
                for i, (key, one) in enumerate(value.items())
            ]
        value = _checked(hint, value.item() if isinstance(value, np.generic) else value, path)
        return value if hint is not float or math.isfinite(value) else str(value)

    def _array(self, hint: Any, array: np.ndarray, path: str, axes: dict[str, int]) -> Any:
        _check_array(hint, array.dtype.name, array.shape, path, axes)
        if array.size:
            form = _format(array.dtype.name, array.shape, _dimensions(hint, path))
            # Little-endian on every machine, as the digest is.
            RowArray.create(self._directory / path, form).write(array)
        return {'dtype': array.dtype.name, 'shape': list(array.shape), 'sha256': _digest(array)}


class _Reader:
    """The way back; anything but what `_Writer` writes is a ValueError, TypeError or KeyError."""

    def __init__(self, directory: Path, replaced: Replaced) -> None:
        self._directory, self._replaced = directory, replaced

    def decode(self, hint: Any, node: Any, path: str, axes: dict[str, int]) -> Any:
        """Returns the value of a node that is at a path of the record."""
        if hint is bytes:
            return self._array(_BYTES, node, path, {}).tobytes()
        if _is_array(hint):
            return self._array(hint, node, path, axes)
        if _is_union(hint):
            if node is None and type(None) in get_args(hint):
                return None
            kinds = _kinds(hint)
            if len(kinds) == 1:
                return self.decode(kinds[0], node, path, axes)
            ((name, fields),) = _checked(dict, node, path).items()
            return self.decode({kind.__name__: kind for kind in kinds}[name], fields, path, axes)
        if _is_record(hint):
            own = {axis: size for axis, size in axes.items() if axis in _SHARED}
            hints = _fields(hint, self._replaced)
            if _checked(dict, node, path).keys() != hints.keys():
                raise ValueError(f'{path or "the record"} has other fields than this version')
            fields = {
                name: self.decode(of, node[name], _join(path, name), own)
                for name, of in hints.items()
            }
            axes.update({axis: size for axis, size in own.items() if axis in _SHARED})
            return hint(**fields)
        if get_origin(hint) is tuple or get_origin(hint) is Sequence:
            items = _items(hint, len(_checked(list, node, path)))
            return tuple(
                self.decode(of, one, _join(path, i), axes)
                for i, (of, one) in enumerate(zip(items, node, strict=True))
            )
        if get_origin(hint) is Mapping:
            of = get_args(hint)[1]
            return {
                _checked(str, key, path): self.decode(of, one, _join(path, i), axes)
                for i, (key, one) in enumerate(_checked(list, node, path))
            }
        if hint is float and node in ('nan', 'inf', '-inf'):
            return float(node)
        return _checked(hint, node, path)

    def _array(self, hint: Any, node: Any, path: str, axes: dict[str, int]) -> np.ndarray:
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


def _format(dtype: str, shape: tuple[int, ...], dimensions: tuple[str, ...]) -> RowFormat:
    fill = 'NaN' if dtype.startswith('float') else False if dtype == 'bool' else 0
    return RowFormat(shape, dtype, fill, rows_per_file=shape[0], dimensions=dimensions)


def _json_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(array: np.ndarray) -> str:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
    return hashlib.sha256(little.tobytes()).hexdigest()


def _check_array(
    hint: Any, dtype: str, shape: tuple[int, ...], path: str, axes: dict[str, int]
) -> None:
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


def _is_array(hint: Any) -> bool:
    return hasattr(hint, 'dim_str')


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (types.UnionType, Union)


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, '_fields'))


def _kinds(hint: Any) -> tuple[Any, ...]:
    return tuple(kind for kind in get_args(hint) if kind is not type(None))


def _items(hint: Any, length: int) -> Sequence[Any]:
    of = get_args(hint)
    if get_origin(hint) is Sequence:
        return of * length
    return of[:1] * length if len(of) == 2 and of[1] is ... else of


def _fields(cls: type, replaced: Replaced) -> dict[str, Any]:
    """Returns names and annotations of a record's fields."""
    hints = _hints(cls)
    return {name: replaced.get((cls, name), of) for name, of in hints.items()}


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    names = (
        [field.name for field in dataclasses.fields(cls)]
        if dataclasses.is_dataclass(cls)
        else cls._fields  # type: ignore[attr-defined]
    )
    return {name: hints[name] for name in names}


def _checked(kind: type, value: Any, path: str) -> Any:
    """Returns a value of exactly this type; a float may be a whole number, a bool is none."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    raise ValueError(f'{path or "the record"} must be {kind.__name__}, not {value!r:.60}')


def _join(path: str, name: object) -> str:
    return f'{path}.{name}' if path else str(name)
