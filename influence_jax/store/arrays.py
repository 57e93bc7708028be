"""Arrays on the disk, a few rows a file: zarr 3 with checksums, through tensorstore.

An array may have more rows on the disk than its reader asks for: a run grows by making room in its
arrays first, and what a reader knows of is the manifest's rows.
"""

import dataclasses
import errno
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped

from influence_jax import files
from influence_jax.json_files import read_json
from influence_jax.store.files import (
    CorruptRun,
    RunError,
    StorageFailed,
    os_errors,
    refuse_irregular,
    storage_failed,
)

_RAISED = (ValueError, OSError, NotImplementedError)
"""What tensorstore raises; mostly ValueError, whatever happened."""
_CRC_BYTES = 4
_MOST_METADATA_BYTES, _MOST_METADATA_DEPTH = 2**16, 16
_SHOWN = 300
_BYTES_AT_ONCE = 2**20
"""Of rows that are read together; a file is read whole."""
_METADATA = 'zarr.json'


@dataclasses.dataclass(frozen=True)
class RowFormat:
    """Shape and layout of an array.

    shape: `[M ...]`, M being the least number of rows that the array must have.
    fill: what is read where nothing was written, as zarr 3 writes it.
    rows_per_file: the most rows that are written, and lost, together; an array that was created
        with fewer rows has files of as many.
    compressed: whether files are compressed.
    dimensions: names of the axes, for readers such as xarray; none by default.
    """

    shape: tuple[int, ...]
    dtype: str
    fill: Any
    rows_per_file: int = 1
    compressed: bool = False
    dimensions: tuple[str, ...] = ()

    def _metadata(self) -> dict[str, Any]:
        """Returns all zarr 3 metadata that any such array has; opening checks every field."""
        codecs: list[dict[str, Any]] = [
            {'name': 'bytes', 'configuration': {'endian': 'little'}}
            if np.dtype(self.dtype).itemsize > 1
            else {'name': 'bytes'}
        ]
        if self.compressed:
            codecs.append({'name': 'zstd', 'configuration': {'level': 3}})
        codecs.append({'name': 'crc32c'})
        return {
            'data_type': self.dtype,
            # One folder for all files: a folder a member would be one more thing to sync.
            'chunk_key_encoding': {'name': 'default', 'configuration': {'separator': '.'}},
            'fill_value': self.fill,
            'codecs': codecs,
            **({'dimension_names': list(self.dimensions)} if self.dimensions else {}),
        }

    def spec(self, path: Path, *, create: bool) -> dict[str, Any]:
        """Returns what tensorstore creates; or opens, with the rows that are on the disk."""
        metadata = self._metadata()
        if create:
            chunk = [min(self.rows_per_file, self.shape[0]), *self.shape[1:]]
            metadata['shape'] = list(self.shape)
            metadata['chunk_grid'] = {'name': 'regular', 'configuration': {'chunk_shape': chunk}}
        return {
            'driver': 'zarr3',
            'kvstore': {'driver': 'file', 'path': f'{path}/', 'file_io_sync': True},
            'metadata': metadata,
            # A row that happens to equal the fill value (all NaN) is data, too.
            'store_data_equal_to_fill_value': True,
        }

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one row's values."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def bytes_per_file(self) -> tuple[int, int]:
        """The least and the most bytes that a file of this format has, checksum included."""
        values = self.rows_per_file * self.bytes_per_row
        if not self.compressed:
            return values + _CRC_BYTES, values + _CRC_BYTES
        # What cannot be compressed is a little longer: RFC 8878 has 3 bytes a block of 128 KB.
        return _CRC_BYTES + 1, values + values // 128 + 512


class RowArray:
    """An array of M rows on the disk."""

    def __init__(self, path: Path, form: RowFormat, store: ts.TensorStore) -> None:
        self.path = path
        self._form = form
        self._store = store

    @classmethod
    def create(cls, path: Path, form: RowFormat) -> 'RowArray':
        """Creates an empty array; what was at the path is deleted."""
        return cls._open(path, form, ts.OpenMode(create=True, delete_existing=True))

    @classmethod
    def open(cls, path: Path, form: RowFormat) -> 'RowArray':
        """Opens the array at the path; CorruptRun where it is absent or not of this format."""
        return cls._open(path, form, ts.OpenMode(open=True))

    @classmethod
    def _open(cls, path: Path, form: RowFormat, mode: ts.OpenMode) -> 'RowArray':
        file = path / _METADATA
        if mode.open:
            _check_metadata(file)
        try:
            spec = form.spec(path, create=bool(mode.create))
            store = ts.open(spec, open_mode=mode).result()
        except _RAISED as error:
            raise _storage_failed(error, file) or _damaged_metadata(file, _reason(error)) from error
        shape, chunk = list(store.shape), list(store.chunk_layout.read_chunk.shape or [])
        least, most = list(form.shape), form.rows_per_file
        if not (shape and shape[0] >= least[0] and shape[1:] == least[1:]):
            raise _damaged_metadata(file, f'its shape is {shape}, expected {least}')
        if not (chunk and 1 <= (rows := chunk[0] or 0) <= most and chunk[1:] == least[1:]):
            raise _damaged_metadata(file, f'a file has {chunk}, expected at most {most} rows')
        return cls(path, dataclasses.replace(form, rows_per_file=rows), store)

    def grow(self, rows: int) -> None:
        """Makes room for so many rows, where there are fewer; durable on return."""
        if self._store.shape[0] >= rows:
            return
        file = self.path / _METADATA
        _clear_for(file)
        resized = self._store.resize(
            exclusive_max=[rows, *self._form.shape[1:]], expand_only=True, resize_metadata_only=True
        )
        _wait([resized], file)
        self._store = resized.result()

    def file_of(self, row: int) -> Path:
        """Returns the file that holds a row."""
        indices = [row // self._form.rows_per_file] + [0] * (len(self._form.shape) - 1)
        return self.path / '.'.join(['c', *map(str, indices)])

    def is_in_place(self) -> bool:
        """Whether the directory still holds this array."""
        return (self.path / _METADATA).exists()

    def files(self) -> list[int]:
        """Returns the rows for which a file is there, ascending; of one row a file."""
        ends = '.0' * (len(self._form.shape) - 1)
        name = re.compile(rf'c\.(0|[1-9][0-9]{{0,17}}){re.escape(ends)}')
        with os_errors(self.path):
            names = [name.fullmatch(path.name) for path in self.path.iterdir()]
        return sorted(int(found[1]) for found in names if found)

    def read_written(self, rows: Sequence[int]) -> Shaped[np.ndarray, 'R ...']:
        """Reads rows that have been written; CorruptRun as `blocks`."""
        # Before memory is taken: a shape is a claim.
        self.check_files(rows)
        values = np.empty((len(rows), *self._form.shape[1:]), self._form.dtype)
        start = 0
        for block in self._blocks(rows):
            values[start : start + len(block)] = block
            start += len(block)
        return values

    def blocks(self, rows: Sequence[int]) -> Iterator[Shaped[np.ndarray, 'R ...']]:
        """Reads rows that have been written, in turn, some MB at a time.

        Raises:
            CorruptRun: names the first file that is gone, damaged, no file, or not of this format.
        """
        self.check_files(rows)
        yield from self._blocks(rows)

    def _blocks(self, rows: Sequence[int]) -> Iterator[Shaped[np.ndarray, 'R ...']]:
        at_once = max(1, _BYTES_AT_ONCE // max(1, self._form.bytes_per_row))
        # Whole files, as far as rows ascend: none is read twice.
        per_file = self._form.rows_per_file
        at_once = max(per_file, at_once // per_file * per_file)
        for start in range(0, len(rows), at_once):
            yield self._read(rows[start : start + at_once])

    def check_files(self, rows: Sequence[int]) -> None:
        """Raises CorruptRun unless the rows' files are there, regular and of the right size."""
        checked = None
        for row in rows:
            if checked == (number := row // self._form.rows_per_file):
                continue
            checked = number
            self._check_file(row)

    def _check_file(self, row: int) -> None:
        # tensorstore would read a file that is gone, or a directory, as rows of the fill value,
        # wait for a pipe's writer, and leave alone what follows a row.
        file = self.file_of(row)
        try:
            size = files.check_regular(file).st_size
        except files.NotRegular as error:
            raise self._corrupt(row, f'it is {error.kind}, not a file') from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._corrupt(row, 'it is missing') from error
        except OSError as error:
            raise storage_failed(file, error.errno or errno.EIO) from error
        least, most = self._form.bytes_per_file
        if size < least:
            raise self._corrupt(row, f'it is truncated, to {size:,} of {least:,} bytes')
        if size > most:
            raise self._corrupt(row, f'it has {size:,} bytes, more than {most:,}')

    def _read(self, rows: Sequence[int]) -> Shaped[np.ndarray, 'R ...']:
        try:
            values = self._store[list(rows)].read().result()
        except _RAISED as first:
            # Reading them one after another shows which file it was.
            for row in rows:
                try:
                    self._store[row].read().result()
                except _RAISED as error:
                    raise self._translated(error, row) from error
            raise RunError(f'{self.path}: {_reason(first)}; repeat the command') from first
        if values.dtype == np.bool_ and (bad := values.view(np.uint8) > 1).any():
            row = rows[int(np.argwhere(bad)[0, 0])]
            raise self._corrupt(row, 'it holds bytes that are neither true nor false')
        return values

    def _translated(self, error: Exception, row: int) -> RunError:
        failed = _storage_failed(error, self.file_of(row))
        return failed or self._corrupt(row, _reason(error))

    def _corrupt(self, row: int, reason: str) -> CorruptRun:
        file = self.file_of(row)
        if self._form.rows_per_file > 1:
            return CorruptRun(f'{file} is damaged: {reason}', file=file)
        return CorruptRun(f'{file} of member {row} is damaged: {reason}', file=file, member=row)

    def write(self, values: Shaped[np.ndarray, 'R ...'], *, start: int = 0) -> None:
        """Writes consecutive rows; durable on return. Other rows of their files are kept."""
        stop, per_file = start + len(values), self._form.rows_per_file
        # One row of each file: of a million rows in one, naming it for each would take minutes.
        for row in range(start // per_file * per_file, stop, per_file):
            _clear_for(self.file_of(row))
        _wait([self._store[start:stop].write(values)], self.path)


def write_rows(
    rows: Iterable[int], arrays: Iterable[tuple[RowArray, Shaped[np.ndarray, 'C ...']]]
) -> None:
    """Writes the same rows of several arrays of one row a file, at once; durable on return."""
    rows = list(rows)
    arrays = list(arrays)
    for array, _ in arrays:
        for row in rows:
            _clear_for(array.file_of(row))
    futures = []
    path = None
    for array, values in arrays:
        path = path or array.path
        # Row by row: each write covers its file, so none is read first and damage is replaced.
        futures += [array._store[row].write(value) for row, value in zip(rows, values, strict=True)]
    if path is not None:
        _wait(futures, path)


def lock_of(file: Path) -> Path:
    """Returns where tensorstore writes what is then renamed to the file."""
    return file.with_name(f'{file.name}.__lock')


def _clear_for(file: Path) -> None:
    """Removes what a kill has left where tensorstore writes: it would keep the end of that."""
    left = lock_of(file)
    refuse_irregular(left)
    with os_errors(left):
        left.unlink(missing_ok=True)


def _wait(futures: Sequence[Any], path: Path) -> None:
    # All of them, also after one has failed: nothing may be under way once the caller goes on.
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors[:1]:
        raise (_storage_failed(error, path) or RunError(f'{path}: {_reason(error)}')) from error


def _check_metadata(file: Path) -> None:
    """Raises CorruptRun unless it is small JSON: tensorstore recurses as deep as it is nested."""
    try:
        read_json(file, most_bytes=_MOST_METADATA_BYTES, most_depth=_MOST_METADATA_DEPTH)
    except files.NotRegular as error:
        raise _damaged_metadata(file, f'it is {error.kind}, not a file') from error
    except ValueError as error:
        reason = str(error).removeprefix(f'{file}').lstrip(': ')[:_SHOWN]
        raise _damaged_metadata(file, reason) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _damaged_metadata(file, 'it is missing') from error
    except OSError as error:
        raise storage_failed(file, error.errno or errno.EIO) from error


def _damaged_metadata(file: Path, reason: str) -> CorruptRun:
    return CorruptRun(f'{file} is damaged: {reason}', file=file)


def _storage_failed(error: BaseException, path: Path) -> StorageFailed | None:
    code = re.search(r"os_error_code='(\d+)'|OS error (\d+)", str(error))
    return storage_failed(path, int(code[1] or code[2])) if code else None


def _reason(error: BaseException) -> str:
    text = str(error).split(' [tensorstore_spec=')[0]
    if 'Digest mismatch' in text:
        return 'its checksum does not match'
    if 'Not enough data' in text:
        return 'it is truncated'
    if 'does not exist' in text:
        return 'it is missing'
    return text if len(text) <= _SHOWN else f'{text[:_SHOWN]} ...'
