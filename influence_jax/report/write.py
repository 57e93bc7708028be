"""Writes a report: everything into a hidden sibling first, then moved into place at once."""

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from influence_jax.analysis.views import Overview
from influence_jax.report.content import Content, named
from influence_jax.report.csv_files import pairs_csv, targets_csv
from influence_jax.report.drawing import draw
from influence_jax.report.figure_style import UNIT
from influence_jax.report.page import render
from influence_jax.report.sections import Section, check_names
from influence_jax.report.thumbnails import Show, thumbnails

PAGE = 'index.html'
FIGURES = 'figures'
TARGETS = 'targets.csv'
PAIRS = 'pairs.csv'
RECORDS = 'records.csv'


def write(
    directory: Path | str,
    *,
    overview: Overview,
    facts: Mapping[str, str],
    target_ids: Sequence[str],
    example_ids: Sequence[str],
    example_names: Sequence[str],
    example_labels: Sequence[str],
    show: Show | UInt8[np.ndarray, 'N H W C'],
    title: str,
    near_duplicates: Bool[np.ndarray, ' T'] | None = None,
    mean_loss: Float[np.ndarray, ' T'] | None = None,
    missing: Sequence[int] = (),
    diverged: Sequence[int] = (),
    stopped_early: str | None = None,
    notes: Sequence[str] = (),
    unit: str = UNIT,
    sections: Sequence[Section] = (),
    records_csv: str | None = None,
) -> Path:
    """Writes the report of an ensemble: `index.html`, `figures/*.png`, `targets.csv`, `pairs.csv`.

    The page needs nothing but itself: images are inside it, it fetches nothing and runs no script.
    Names and text are escaped. A report that is already there is replaced as a whole; a kill
    at any moment leaves the old report, the new one or none, never half of one.

    Args:
        directory: of the report alone; new, empty, or holding an earlier report.
        overview: from `analysis.overview`.
        facts: the run's settings and outcomes, shown as a table in this order.
        target_ids: `[T]`.
        example_ids: `[N]`.
        example_names: `[N]` for people.
        example_labels: `[N]` class or kind of each, '' where there is none.
        show: markup of the example of an index, or `[N H W C]` uint8 images.
        title: heading of the page.
        near_duplicates: `[T]` targets known to have a near-duplicate, highlighted where given.
        mean_loss: `[T]` mean loss of each target over all members (nats), for the table.
        missing: members that have not been trained.
        diverged: members that were trained and left out of every estimate.
        stopped_early: a sentence on why the missing members need not be trained, shown instead
            of the advice to train them.
        notes: more sentences on what to know before believing the page.
        unit: of what was measured, for labels; matplotlib reads `$` in it as mathematics.
        sections: further pieces of the page, before all others; their pictures are written too.
        records_csv: text of `records.csv`, of a run on texts.

    Returns:
        Path of the page.

    Raises:
        ValueError: where the numbers of ids, names or images do not fit the overview, or a section
            names a picture as another is named.
        FileExistsError: where the directory holds anything but an earlier report.
        OSError: where it cannot be written; the message says why.
    """
    if isinstance(show, np.ndarray):
        show = thumbnails(show, example_names)
    content = Content(
        title=title,
        overview=overview,
        facts=facts,
        target_ids=target_ids,
        example_ids=example_ids,
        example_names=example_names,
        example_labels=example_labels,
        show=show,
        near_duplicates=None if near_duplicates is None else np.asarray(near_duplicates, bool),
        mean_loss=None if mean_loss is None else np.asarray(mean_loss),
        missing=missing,
        diverged=diverged,
        stopped_early=stopped_early,
        notes=notes,
        unit=unit,
        sections=sections,
    )
    check_directory(directory)
    directory = Path(directory).resolve()
    shown = dataclasses.replace(
        content,
        example_names=list(map(named, example_names)),
        example_labels=list(map(named, example_labels)),
        target_ids=list(map(named, target_ids)),
    )
    pictures = draw(shown)
    drawn = (*pictures.all(), *(one for section in sections for one in section.pictures))
    check_names(drawn)
    files = {
        TARGETS: targets_csv(content).encode(errors='replace'),
        PAIRS: pairs_csv(content).encode(errors='replace'),
        **({} if records_csv is None else {RECORDS: records_csv.encode(errors='replace')}),
        PAGE: render(shown, pictures).encode(errors='replace'),
        **{f'{FIGURES}/{picture.name}.png': picture.light for picture in drawn},
    }
    try:
        _write_at_once(directory, files.items())
    except OSError as error:
        raise OSError(
            error.errno,
            f'cannot write the report to {directory}: {error.strerror}; '
            f'free space there or choose another directory',
        ) from error
    return directory / PAGE


def check_directory(directory: Path | str) -> None:
    """Refuses a directory to which `write` would not write a report.

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
    others = {entry.name for entry in directory.iterdir()} - {
        PAGE,
        FIGURES,
        TARGETS,
        PAIRS,
        RECORDS,
    }
    if others:
        raise FileExistsError(
            f'{directory} holds {sorted(others)[0]!r}, which is no part of a report; '
            f'choose a directory of its own for the report'
        )


def _write_at_once(directory: Path, files: Iterable[tuple[str, bytes]]) -> None:
    partial = directory.with_name(f'.{directory.name}.partial')
    old = directory.with_name(f'.{directory.name}.old')
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for name, data in files:
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
