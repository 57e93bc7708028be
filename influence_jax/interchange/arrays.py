"""Matrices of members from files of any usual kind, with the names of rows and columns they have.

    FILE.npy                     one array
    FILE.npz:NAME                an array of an archive; NAME may be left out where it holds one
    FILE.pt:NAME                 a tensor of torch.save; likewise
    FILE.safetensors:NAME        a tensor; likewise
    FILE.csv                     a table: names of columns first, then a row a member
    FILE.parquet                 the same; a column of texts names the members
    FILE.parquet:NAME            a column of lists, a list a member, as Hugging Face datasets keep
                                 them; also a folder of `Dataset.save_to_disk`

Several files, separated by commas, are shards of the same columns.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from influence_jax import files
from influence_jax.data.sources import array_files, numpy_files
from influence_jax.interchange.torch_file import torch_arrays
from influence_jax.text import first_line, quoted

_TABLES = "pip install 'influence_jax[tables]'"
_MOST_LISTED = 20
_INDEX = {'', 'member', 'index', 'id', 'unnamed: 0'}
"""Headings of a first column that names rows, whatever it holds."""
_PANDAS_INDEX = '__index_level_0__'


class Matrix(NamedTuple):
    """Numbers of members, as they are in files.

    values: `[M ...]`, or lists of positions of different lengths.
    rows: names of the members, where the files have them.
    columns: names of the columns, likewise.
    """

    values: Shaped[np.ndarray, 'M ...'] | list[list[int]]
    rows: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None


def read_matrix(source: str) -> Matrix:
    """Reads one or several files; see the module for how they are named.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: a Parquet file, and pyarrow is not installed.
        ValueError: a file of another kind, without the array that is named, or damaged; or shards
            of different columns.
    """
    parts = [(one, _read(one)) for one in source.split(',') if one]
    if not parts:
        raise ValueError('no file is named')
    (_, first), *others = parts
    if not others:
        return first
    for name, part in others:
        if isinstance(part.values, list) or isinstance(first.values, list):
            continue
        if part.values.shape[1:] != first.values.shape[1:] or part.columns != first.columns:
            raise ValueError(
                f'{name} has columns {list(part.values.shape[1:])} and {parts[0][0]} '
                f'{list(first.values.shape[1:])}, or of other names: shards must be of the same '
                f'columns'
            )
    rows = [part.rows for _, part in parts]
    named = tuple(name for of in rows for name in of or ()) if all(rows) else None
    values = [part.values for _, part in parts]
    if any(isinstance(one, list) for one in values):
        joined: Any = [list(row) for one in values for row in one]
    else:
        joined = np.concatenate(values)
    return Matrix(joined, named, first.columns)


def _read(source: str) -> Matrix:
    path, name = source, None
    if not Path(path).exists() and ':' in path:
        path, _, name = source.rpartition(':')
    if not Path(path).exists():
        raise FileNotFoundError(f'{source}: no such file')
    suffix = '' if Path(path).is_dir() else Path(path).suffix.lower()
    match suffix:
        case '.npy':
            _require_no_name(path, name)
            return Matrix(array_files.array(path, remedy='array.astype(numpy.float32)'))
        case '.npz':
            with numpy_files.opened(Path(path)) as arrays:
                return Matrix(arrays.read(_chosen(path, name, list(arrays.headers))))
        case '.pt' | '.pth':
            tensors = torch_arrays(path)
            return Matrix(tensors[_chosen(path, name, list(tensors))])
        case '.safetensors':
            return Matrix(_safetensors(path, name))
        case '.csv':
            _require_no_name(path, name)
            return _csv(path)
        case '.parquet' | '.arrow' | '':
            return _table(path, name)
    raise ValueError(
        f'{path} is of no kind that is read: give .npy, .npz, .pt, .safetensors, .csv or .parquet'
    )


def _require_no_name(path: str, name: str | None) -> None:
    if name is not None:
        raise ValueError(f'{path} holds one table alone: leave out :{name}')


def _chosen(path: str, name: str | None, names: Sequence[str]) -> str:
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in names:
        shown = ', '.join(map(quoted, sorted(names)[:_MOST_LISTED])) or 'nothing'
        asked = 'say which array, as in FILE:NAME' if name is None else f'it has no {quoted(name)}'
        raise ValueError(f'{path}: {asked}; it holds {shown}')
    return name


def _safetensors(path: str, name: str | None) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='np') as file:
            return np.asarray(file.get_tensor(_chosen(path, name, list(file.keys()))))
    except (SafetensorError, TypeError) as error:
        raise ValueError(
            f'{path} cannot be read ({first_line(error)}): copy or save it again'
        ) from error


def _csv(path: str) -> Matrix:
    with files.open_regular(Path(path)) as opened:
        try:
            text = opened.read().decode('utf-8-sig')
        except UnicodeDecodeError as error:
            raise ValueError(f'{path} is no UTF-8 text: save it as CSV again') from error
    try:
        lines = [line for line in csv.reader(text.splitlines()) if line]
    except csv.Error as error:
        raise ValueError(f'{path} is no CSV ({error}): save it again') from error
    if len(lines) < 2:
        raise ValueError(f'{path} must hold a line of names and a line for each member')
    header, rows = lines[0], lines[1:]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f'{path}: line {number} has {len(row)} cells, and the first {len(header)}'
            )
    first = [row[0] for row in rows]
    named = not all(map(_is_number, first)) or header[0].strip().lower() in _INDEX
    body = [row[1:] if named else row for row in rows]
    if bad := next((cell for row in body for cell in row if not _is_number(cell)), None):
        raise ValueError(f'{path} holds {quoted(bad)} where there must be a number')
    values = np.array([[float(cell) if cell.strip() else np.nan for cell in row] for row in body])
    whole = np.isfinite(values).all() and (values == np.rint(values)).all()
    values = values.astype(np.int64) if whole else values  # positions, classes
    return Matrix(values, tuple(first) if named else None, tuple(header[named:]))


def _is_number(cell: str) -> bool:
    try:
        float(cell or 'nan')
    except ValueError:
        return False
    return True


def _table(path: str, name: str | None) -> Matrix:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f'{path} is read with pyarrow: {_TABLES}') from error
    try:
        if Path(path).suffix == '.parquet':
            table = pyarrow.parquet.read_table(path)
        else:
            streams = sorted(Path(path).glob('*.arrow')) if Path(path).is_dir() else [Path(path)]
            if not streams:
                raise ValueError(f'{path} is a folder without .arrow files')
            table = pyarrow.concat_tables([_stream(one) for one in streams])
    except pyarrow.ArrowException as error:
        raise ValueError(
            f'{path} cannot be read ({first_line(error)}): copy or save it again'
        ) from error
    lists = [
        one.name
        for one in table.schema
        if pyarrow.types.is_list(one.type) or pyarrow.types.is_large_list(one.type)
    ]
    texts = [
        one.name
        for one in table.schema
        if pyarrow.types.is_string(one.type) or pyarrow.types.is_large_string(one.type)
    ]
    if _PANDAS_INDEX in table.column_names:
        texts = [_PANDAS_INDEX]
    rows = tuple(map(str, table[texts[0]].to_pylist())) if len(texts) == 1 else None
    if name is not None or lists:
        rest = [one.name for one in table.schema if one.name not in texts]
        chosen = _chosen(path, name, rest if name is not None else lists)
        if chosen not in lists:
            return Matrix(table[chosen].to_numpy(), rows)
        found = table[chosen].to_pylist()
        if any(row is None for row in found):
            raise ValueError(f'{path}: a row of {quoted(name or lists[0])} is empty')
        if len({len(row) for row in found}) == 1:
            return Matrix(np.array(found), rows)
        return Matrix(found, rows)
    columns = [one.name for one in table.schema if one.name not in texts]
    if len(texts) > 1 or not columns:
        raise ValueError(
            f'{path} must have columns of numbers, and at most one of texts, the names of members'
        )
    values = np.column_stack([table[one].to_numpy() for one in columns])
    return Matrix(values, rows, tuple(columns))


def _stream(path: Path) -> Any:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        try:
            return pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(source).read_all()
