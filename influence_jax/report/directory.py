"""Writes a report: everything into a hidden sibling first, then moved into place at once."""

import contextlib
import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from influence_jax.report.gathering import gather
from influence_jax.report.kept import TENSORS, KeptTensors
from influence_jax.report.membership import Targets, vulnerability_csv
from influence_jax.report.origin import ORIGIN, write_origin
from influence_jax.report.page import make_page
from influence_jax.report.results import PAGE, REPORT, RESULTS, Results
from influence_jax.report.run import ReportedRun
from influence_jax.report.tables import attribution_csv, pairs_csv, records_csv, targets_csv
from influence_jax.store import RunError
from influence_jax.store.files import locked

FIGURES = 'figures'
TARGETS = 'targets.csv'
PAIRS = 'pairs.csv'
RECORDS = 'records.csv'
ATTRIBUTION = 'attribution.csv'
VULNERABILITY = 'vulnerability.csv'

_CSV = {TARGETS, PAIRS, RECORDS, ATTRIBUTION, VULNERABILITY}
_PARTS = {PAGE, FIGURES, *_CSV, RESULTS, TENSORS, ORIGIN}

_FROM_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""


def write(run: ReportedRun, *, directory: Path | str | None = None, **arguments: Any) -> Path:
    """Estimates influence from a run and writes its report: `gather`, then `save`.

    Args:
        run: anything with the attributes of a run: `store.open_run(DIR)`, an `ArrayRun` ...
        directory: of the report alone; new, empty, or holding an earlier report. By default
            `run.directory / 'report'`.
        **arguments: of `gather`: `estimator`, `measurement`, `unit`, `title`, `shown` ...

    Returns:
        Path of the page.

    Raises:
        ValueError: as in `gather`, or a run without a directory and no `directory`.
        FileExistsError: the directory holds anything but an earlier report.
        OSError: it cannot be written; the message says why.
    """
    if directory is None:
        if getattr(run, 'directory', None) is None:
            raise ValueError('the run has no directory of its own: give directory=')
        directory = run.directory / REPORT  # type: ignore[attr-defined]
    check_directory(directory)  # before minutes are spent
    return save(gather(run, **arguments), directory)


def save(
    results: Results,
    directory: Path | str,
    *,
    tensors: KeptTensors | None = None,
    origin: str | None = None,
) -> Path:
    """Writes `results.zarr`, and all files that `render` makes of it, and returns the page's path.

    The page needs nothing but itself: images are inside it, it fetches nothing and runs no script.
    A report that is already there is replaced as a whole, as `replaced_at_once` does.

    Args:
        results: from `gather`, or of an earlier report by `Results.load`.
        directory: as in `write`.
        tensors: kept beside the report, for the explorer: of results that no run directory has.
        origin: what it is made from, from `origin_of` before `gather`, for `is_unchanged`.

    Raises:
        ValueError: a section names a picture as another is named.
        FileExistsError: the directory holds anything but an earlier report.
        OSError: it cannot be written; the message says why.
    """
    check_directory(directory)
    directory = Path(directory).resolve()
    files = render(results)
    try:
        with replaced_at_once(directory) as partial:
            _write(partial, results, files, tensors)
            if origin is not None:
                write_origin(partial, origin, files)
    except (OSError, RunError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise OSError(
            getattr(error, 'errno', None) or errno.EIO,
            f'cannot write the report to {directory}: {reason}; '
            f'free space there or choose another directory',
        ) from error
    return directory / PAGE


def render(results: Results) -> dict[str, bytes]:
    """Returns the files of a report by their names: the same ones of the same results.

    Raises:
        ValueError: a section names a picture as another is named.
    """
    page = make_page(results)
    texts = {TARGETS: targets_csv(results), PAIRS: pairs_csv(results), PAGE: page.html}
    if results.text:
        texts[RECORDS] = records_csv(results)
    if results.attributed:
        texts[ATTRIBUTION] = attribution_csv(results)
    if results.membership:
        texts[VULNERABILITY] = vulnerability_csv(results.membership, Targets.of(results))
    return {
        **{name: text.encode(errors='replace') for name, text in texts.items()},
        **{f'{FIGURES}/{picture.name}.png': picture.light for picture in page.figures},
    }


def check_directory(directory: Path | str) -> None:
    """Refuses a directory to which `save` would not write a report.

    Replacing a directory removes what it holds, so it may hold nothing but a report.

    Raises:
        FileExistsError: it is a file, is inside one, or holds anything but an earlier report.
    """
    directory = Path(directory).resolve()
    parent = next(path for path in directory.parents if path.exists())
    for path in (parent, directory):
        if path.exists() and not path.is_dir():
            raise FileExistsError(f'{path} is a file; choose another directory for the report')
    if not directory.exists():
        return
    others = {entry.name for entry in directory.iterdir()} - _PARTS
    if others:
        raise FileExistsError(
            f'{directory} holds {sorted(others)[0]!r}, which is no part of a report; '
            f'choose a directory of its own for the report'
        )


@contextlib.contextmanager
def replaced_at_once(directory: Path) -> Iterator[Path]:
    """Gives a hidden sibling to be filled, which then takes the directory's place at once.

    After an error the directory is what it was; a kill at any moment leaves it as it was, or the
    new one. Where the file system cannot exchange two names (network file systems), a kill between
    two renames leaves the old one under a hidden name, from which the next call brings it back. Of
    several processes, one waits until the other is done.

    Args:
        directory: resolved; what it holds is removed.

    Raises:
        OSError: it cannot be written.
    """
    partial, old, lock = (
        directory.with_name(f'.{directory.name}.{end}') for end in ('partial', 'old', 'lock')
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock, what=directory, wait=True):
        if old.exists() and not directory.exists():  # an earlier process ended between two renames
            old.rename(directory)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            yield partial
            _put_in_place(partial, directory, old)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _put_in_place(partial: Path, directory: Path, old: Path) -> None:
    if directory.exists():
        if _exchanged(partial, directory):
            return
        directory.rename(old)  # a rename cannot replace a directory that is not empty
    try:
        partial.rename(directory)
    except OSError:
        if old.exists():
            old.rename(directory)
        raise


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges the names of two directories at once; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), 'renameat2', None) if sys.platform == 'linux' else None
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(rename(_FROM_HERE, names[0], _FROM_HERE, names[1], _EXCHANGE) == 0)


def _write(
    partial: Path, results: Results, files: Mapping[str, bytes], tensors: KeptTensors | None
) -> None:
    partial.mkdir()
    results.save(partial)
    if tensors is not None:
        tensors.save(partial)
    for name, data in files.items():
        path = partial / name
        if path.parent != partial:  # it is there, and is not made again if it is taken away
            path.parent.mkdir(exist_ok=True)
        with path.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
