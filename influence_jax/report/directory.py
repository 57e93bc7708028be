"""Writes a report: everything into a hidden sibling first, then moved into place at once."""

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from influence_jax.estimators import EstimatorLike
from influence_jax.report.csv_files import pairs_csv, records_csv, targets_csv
from influence_jax.report.gathering import gather
from influence_jax.report.page import make_page
from influence_jax.report.results import RESULTS, Results
from influence_jax.report.run import ReportedRun
from influence_jax.report.sections import Section
from influence_jax.report.theme import UNIT
from influence_jax.store import RunError, Shown

PAGE = 'index.html'
FIGURES = 'figures'
TARGETS = 'targets.csv'
PAIRS = 'pairs.csv'
RECORDS = 'records.csv'
REPORT = 'report'
"""Name of the report's directory in that of a run."""

_PARTS = {PAGE, FIGURES, TARGETS, PAIRS, RECORDS, RESULTS}


def write(
    run: ReportedRun,
    *,
    estimator: EstimatorLike | None = None,
    directory: Path | str | None = None,
    measurement: str = 'loss',
    unit: str = UNIT,
    title: str | None = None,
    shown: Shown | None = None,
    near_duplicates: Bool[np.ndarray, ' T'] | None = None,
    facts: Mapping[str, str] | None = None,
    sections: Sequence[Section] = (),
) -> Path:
    """Estimates influence from a run and writes its report: `gather`, then `save`.

    Args:
        run: anything with the attributes of a run: `store.open_run(DIR)`, an `ArrayRun` ...
        estimator: by default the adjusted difference of means, or the plain one with few members.
        directory: of the report alone; new, empty, or holding an earlier report. By default
            `run.directory / 'report'`.
        measurement: of which influence is estimated; less of it is better.
        unit: of the measurement.
        title: heading of the page.
        shown: what to show of the examples; by default what the run keeps of them.
        near_duplicates: `[T]` targets known to have a near-duplicate.
        facts: further rows of the table of facts.
        sections: further pieces of the page.

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
    results = gather(
        run,
        estimator=estimator,
        measurement=measurement,
        unit=unit,
        title=title,
        shown=shown,
        near_duplicates=near_duplicates,
        facts=facts,
        sections=sections,
    )
    return save(results, directory)


def save(results: Results, directory: Path | str) -> Path:
    """Writes `results.zarr`, and all files that `render` makes of it, and returns the page's path.

    The page needs nothing but itself: images are inside it, it fetches nothing and runs no script.
    A report that is already there is replaced as a whole; a kill at any moment leaves the old
    report or the new one, never half of one (between two renames the old one has a hidden name,
    and the next save brings it back if it fails).

    Args:
        results: from `gather`, or of an earlier report by `Results.load`.
        directory: as in `write`.

    Raises:
        ValueError: a section names a picture as another is named.
        FileExistsError: the directory holds anything but an earlier report.
        OSError: it cannot be written; the message says why.
    """
    check_directory(directory)
    directory = Path(directory).resolve()
    files = render(results)
    try:
        _write_at_once(directory, results, files)
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
    return {
        **{name: text.encode(errors='replace') for name, text in texts.items()},
        **{f'{FIGURES}/{picture.name}.png': picture.light for picture in page.figures},
    }


def check_directory(directory: Path | str) -> None:
    """Refuses a directory to which `save` would not write a report.

    Replacing a directory removes what it holds, so it may hold nothing but a report.

    Raises:
        FileExistsError: it is a file, lies in one, or holds anything but an earlier report.
    """
    directory = Path(directory).resolve()
    parent = next(path for path in directory.parents if path.exists())
    if not parent.is_dir():
        raise FileExistsError(f'{parent} is a file; choose another directory for the report')
    if not directory.exists():
        return
    if not directory.is_dir():
        raise FileExistsError(f'{directory} is a file; choose another directory for the report')
    others = {entry.name for entry in directory.iterdir()} - _PARTS
    if others:
        raise FileExistsError(
            f'{directory} holds {sorted(others)[0]!r}, which is no part of a report; '
            f'choose a directory of its own for the report'
        )


def _write_at_once(directory: Path, results: Results, files: Mapping[str, bytes]) -> None:
    partial = directory.with_name(f'.{directory.name}.partial')
    old = directory.with_name(f'.{directory.name}.old')
    if old.exists() and not directory.exists():  # an earlier process ended between two renames
        old.rename(directory)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        results.save(partial)
        for name, data in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open('wb') as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        # A rename cannot replace a directory that is not empty: the old report steps aside.
        if directory.exists():
            directory.rename(old)
        try:
            partial.rename(directory)
        except OSError:
            if old.exists():
                old.rename(directory)
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
