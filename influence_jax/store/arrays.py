"""Arrays on the disk, a few rows a file: zarr 3 with checksums, through tensorstore."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped

from influence_jax.store.errors import CorruptRun, RunError, StorageFailed
from influence_jax.store.files import os_errors, storage_failed

_RAISED = (ValueError, OSError, NotImplementedError)
"""What tensorstore raises; mostly ValueError, whatever happened."""


@dataclasses.dataclass(frozen=True)
class RowFormat:
    """Shape and layout of an array of M rows.

    rows_per_file: rows that are written, and lost, together.
    fill: what is read where nothing was written, as zarr 3 writes it.
    compressed: whether files are compressed.
    """

    shape: tuple[int, ...]
    dtype: str
    fill: Any
    rows_per_file: int = 1
    compressed: bool = False

    def metadata(self) -> dict[str, Any]:
        """The zarr 3 metadata, complete: opening checks every field of it."""
        codecs: list[dict[str, Any]] = [
            {'name': 'bytes', 'configuration': {'endian': 'little'}}
            if np.dtype(self.dtype).itemsize > 1
            else {'name': 'bytes'}
        ]
        if self.compressed:
            codecs.append({'name': 'zstd', 'configuration': {'level': 3}})
        codecs.append({'name': 'crc32c'})
        chunk = [self.rows_per_file, *self.shape[1:]]
        return {
            'shape': list(self.shape),
            'data_type': self.dtype,
            'chunk_grid': {'name': 'regular', 'configuration': {'chunk_shape': chunk}},
            # One folder for all files: a folder a member would be one more thing to sync.
            'chunk_key_encoding': {'name': 'default', 'configuration': {'separator': '.'}},
            'fill_value': self.fill,
            'codecs': codecs,
        }


class RowArray:
    """An array of M rows on the disk."""

    def __init__(self, path: Path, form: RowFormat, store: ts.TensorStore) -> None:
        self.path = path
        self._form = form
        self._store = store

    @classmethod
    def create(cls, path: Path, form: RowFormat) -> Self:
        """A new array, empty; what was at the path is deleted."""
        return cls._open(path, form, ts.OpenMode(create=True, delete_existing=True))

    @classmethod
    def open(cls, path: Path, form: RowFormat) -> Self:
        """The array at the path; CorruptRun where it is absent or not of this format."""
        return cls._open(path, form, ts.OpenMode(open=True))

    @classmethod
    def _open(cls, path: Path, form: RowFormat, mode: ts.OpenMode) -> Self:
        spec = {
            'driver': 'zarr3',
            'kvstore': {'driver': 'file', 'path': f'{path}/', 'file_io_sync': True},
            'metadata': form.metadata(),
            # A row that happens to equal the fill value (all NaN) is data, too.
            'store_data_equal_to_fill_value': True,
        }
        file = path / 'zarr.json'
        try:
            return cls(path, form, ts.open(spec, open_mode=mode).result())
        except _RAISED as error:
            raise _storage_failed(error, file) or CorruptRun(
                f'{file} is damaged: {_reason(error)}', file=file
            ) from error

    def file_of(self, row: int) -> Path:
        """The file that holds a row."""
        indices = [row // self._form.rows_per_file] + [0] * (len(self._form.shape) - 1)
        return self.path / '.'.join(['c', *map(str, indices)])

    def read(self) -> Shaped[np.ndarray, 'M ...']:
        """All rows, the fill value where nothing was written; CorruptRun as `read_written`."""
        return self._read(range(self._form.shape[0]))

    def read_written(self, rows: Sequence[int]) -> Shaped[np.ndarray, 'R ...']:
        """Rows that have been written; CorruptRun names the first file damaged or gone."""
        for row in rows:
            # tensorstore would read a file that is gone as rows of the fill value.
            file = self.file_of(row)
            with os_errors(file):
                present = file.exists()
            if not present:
                raise self._corrupt(row, 'it is missing')
        return self._read(rows)

    def _read(self, rows: Sequence[int]) -> Shaped[np.ndarray, 'R ...']:
        if not len(rows):
            return np.empty((0, *self._form.shape[1:]), self._form.dtype)
        try:
            return self._store[list(rows)].read().result()
        except _RAISED:
            # Which file it was is found by reading them one after another.
            for row in rows:
                try:
                    self._store[row].read().result()
                except _RAISED as error:
                    raise self._translated(error, row) from error
            raise

    def _translated(self, error: Exception, row: int) -> RunError:
        failed = _storage_failed(error, self.file_of(row))
        return failed or self._corrupt(row, _reason(error))

    def _corrupt(self, row: int, reason: str) -> CorruptRun:
        file = self.file_of(row)
        if self._form.rows_per_file > 1:
            return CorruptRun(f'{file} is damaged: {reason}', file=file)
        return CorruptRun(f'{file} of member {row} is damaged: {reason}', file=file, member=row)

    def write(self, values: Shaped[np.ndarray, 'M ...']) -> None:
        """Writes all rows; durable on return."""
        _wait([self._store.write(values)], self.path)


def write_rows(
    rows: Iterable[int], arrays: Iterable[tuple[RowArray, Shaped[np.ndarray, 'C ...']]]
) -> None:
    """Writes the same rows of several arrays of one row a file, at once; durable on return."""
    rows = list(rows)
    futures = []
    path = None
    for array, values in arrays:
        path = path or array.path
        # Row by row: each write covers its file, so none is read first and damage is replaced.
        futures += [array._store[row].write(value) for row, value in zip(rows, values, strict=True)]
    if path is not None:
        _wait(futures, path)


def _wait(futures: Sequence[Any], path: Path) -> None:
    # All of them, also after one has failed: nothing may be under way once the caller goes on.
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors[:1]:
        raise (_storage_failed(error, path) or RunError(f'{path}: {_reason(error)}')) from error


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
    return text
