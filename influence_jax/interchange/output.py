"""Where exports go: a path that holds nothing, or an earlier export, is written as a whole.

An export bears a mark (a CSV file its header), by which it is told from a file of somebody else's,
which is never replaced; nothing is written into a run or a report.
"""

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from influence_jax import files
from influence_jax.report.results import RESULTS
from influence_jax.store.files import make_directory, replacing

MARK = 'exported_by_influence_jax'
"""Stands in every export that is no CSV file."""

_SEARCHED = 2**16
"""Bytes at either end of a file where its mark is."""

_MANIFEST = 'manifest.json'
_CSV_MARK = b'example,example_name,'
"""How the headers of all CSV files begin that are exported."""


def check_output(path: str | Path, *, csv: bool = False) -> Path:
    """Returns a path at which nothing is, or an earlier export.

    Args:
        path: of a file.
        csv: whether it is to be a CSV file, known by its header instead of the mark.

    Raises:
        FileExistsError: something else is there, or it is inside a report or a run.
        ValueError: it is no regular file.
    """
    path = Path(path)
    _check_outside(path)
    if not path.exists():
        return path
    with files.open_regular(path) as file:
        begin = file.read(_SEARCHED)
        file.seek(max(os.fstat(file.fileno()).st_size - _SEARCHED, 0))
        end = file.read(_SEARCHED)
    is_own = begin.startswith(_CSV_MARK) if csv else MARK.encode() in begin + end
    if not is_own:
        raise FileExistsError(
            f'{path} is no earlier export of this kind: remove it, or give another --output'
        )
    return path


def _check_outside(path: Path) -> None:
    """Refuses a path in a report, which holds such files of its own, or directly in a run."""
    parent, *further = path.resolve().parents
    inside = [one for one in (parent, *further) if one.name == RESULTS or (one / RESULTS).is_dir()]
    if (parent / _MANIFEST).exists():
        inside.append(parent)
    if inside:
        raise FileExistsError(
            f'{path} is inside {inside[0]}, which holds a report or a run and nothing else: give '
            f'another --output'
        )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that is there, with its folder, as a whole or not at all."""
    make_directory(path.parent)
    with replacing(path) as file:
        yield file


def required(name: str, install: str) -> Any:
    """Imports a module; ImportError says how to install what is not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{name.partition(".")[0]} is needed and not installed: {install}', name=name
        ) from error
