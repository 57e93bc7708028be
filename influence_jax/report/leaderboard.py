"""The judge's leaderboard: a page, a CSV file, a figure, and a table for the terminal."""

import csv
import io
import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from influence_jax.analysis.judge import Leaderboard, Rise, Row
from influence_jax.analysis.resampling import Interval
from influence_jax.formatting import MISSING
from influence_jax.report import sections
from influence_jax.report.page import rendered
from influence_jax.report.sections import Cell
from influence_jax.report.tables import printable
from influence_jax.report.theme import Theme, empty_axes, legend, picture

NAME = 'leaderboard'
_MIB = 2**20
_COLUMNS_AT_ONCE = 3


class _Column(NamedTuple):
    """A column: its heading, its names in the CSV file, its numbers, and how they are written."""

    heading: str
    names: tuple[str, ...]
    numbers: Callable[[Row], tuple[float, ...] | None]
    cell: Callable[[Row], Cell]


def save(board: Leaderboard, directory: Path | str) -> Path:
    """Writes `leaderboard.html`, `.csv` and `.png`, each as a whole; returns the page's path.

    Raises:
        OSError: the directory cannot be written to.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in render(board).items():
        partial = directory / f'.{name}.partial'
        with partial.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(directory / name)
    return directory / f'{NAME}.html'


def render(board: Leaderboard) -> dict[str, bytes]:
    """Returns the files by their names, the page last."""
    drawn = picture(NAME, _alt(board), figure, board)
    page = rendered(
        f'{NAME}.html.j2',
        title=board.title,
        parts=list(_tables(board)),
        drawn=drawn.markup(),
        strip_columns=1,
        facts_caption='What was judged, and by what.',
        facts=[
            *board.facts.items(),
            *((f'left out: {name}', why) for name, why in board.left_out.items()),
            *(('note', note) for note in board.notes),
        ],
    )
    return {
        f'{NAME}.png': drawn.light,
        f'{NAME}.csv': _csv(board).encode(),
        f'{NAME}.html': page.encode(errors='replace'),
    }


def terminal(board: Leaderboard) -> Group:
    """Returns tables, facts and notes, to be printed."""
    parts: list[RenderableType] = []
    for table in itertools.chain.from_iterable(map(_narrow, _tables(board))):
        lines = Table(title=printable(table.caption), title_justify='left', title_style='bold')
        for place, name in enumerate(table.header):
            justify: Literal['left', 'right'] = 'right' if place else 'left'
            lines.add_column(printable(name), justify=justify, no_wrap=not place)
        for row in table.rows:
            lines.add_row(*(printable(_plain(cell)) for cell in row))
        parts += [lines, Text()]
    parts += [printable(f'{name}: {value}') for name, value in board.facts.items()]
    parts += [printable(f'Left out: {name}: {why}') for name, why in board.left_out.items()]
    parts += [printable(f'Note: {note}') for note in board.notes]
    return Group(*parts)


def _narrow(table: sections.Table) -> Iterator[sections.Table]:
    """Yields the columns some at a time, as a terminal has room for them."""
    for start in range(1, len(table.header), _COLUMNS_AT_ONCE):
        some = [0, *range(start, min(start + _COLUMNS_AT_ONCE, len(table.header)))]
        yield sections.Table(
            table.caption if start == 1 else '',
            [table.header[place] for place in some],
            [[row[place] for place in some] for row in table.rows],
        )


def figure(board: Leaderboard, *, theme: Theme) -> Figure:
    """Draws linear datamodelling scores with their intervals, and the ceilings as lines."""
    rows = board.ranked[::-1]
    canvas, axes = empty_axes(theme, width=7.2, height=1.5 + 0.34 * len(rows))
    for place, row in enumerate(rows):
        found = row.lds.mean.interval()
        axes.plot([found.low, found.high], [place, place], color=theme.positive, linewidth=2)
        axes.plot(found.value, place, 'o', color=theme.positive, markersize=6)
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    if board.ceilings is not None:
        for name, ceiling, style in (
            ('ceiling of linear predictions', board.ceilings.linear, ':'),
            ('ceiling of any prediction', board.ceilings.any, '--'),
        ):
            if math.isfinite(ceiling.value):
                axes.axvline(
                    ceiling.value, color=theme.negative, linestyle=style, linewidth=1.4, label=name
                )
        axes.legend(**legend(theme))
    axes.set_yticks(range(len(rows)), [row.method.title for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel('linear datamodelling score on members that left the target out')
    return canvas


def _tables(board: Leaderboard) -> Iterator[sections.Table]:
    rows = board.ranked
    columns = [column for column in _COLUMNS if any(column.numbers(row) for row in rows)]
    lines = [[Cell(row.method.title), *(column.cell(row) for column in columns)] for row in rows]
    for name, ceiling in (('any prediction', 'any'), ('linear predictions', 'linear')):
        if board.ceilings is None:
            continue
        values = {'lds': getattr(board.ceilings, ceiling)}
        if board.ceilings_all is not None:
            values['lds_all'] = getattr(board.ceilings_all, ceiling)
        lines.append(
            [
                Cell(f'ceiling of {name}'),
                *(
                    _interval(values[of].interval())
                    if (of := column.names[0]) in values
                    else Cell(MISSING)
                    for column in columns
                ),
            ]
        )
    yield sections.Table(
        'Methods, best first (95 % intervals)', ['', *(c.heading for c in columns)], lines
    )
    if board.leave_outs:
        methods = list(board.leave_outs[0].methods)
        yield sections.Table(
            f"Rise of the loss without a target's strongest examples, in {board.unit}",
            ['target', *methods, 'random examples'],
            [
                [
                    Cell(str(one.target)),
                    *map(_rise, (*one.methods.values(), one.random)),
                ]
                for one in board.leave_outs
            ],
        )
    if board.detections:
        yield sections.Table(
            'Detectors of wrong labels',
            ['', 'AUROC', 'found in 10 %', 'found in 20 %', 'seconds'],
            [
                [
                    Cell(one.method.title),
                    _interval(one.scores.auroc),
                    *(Cell(f'{share:.3f}') for share in one.scores.found),
                    Cell(f'{one.cost.seconds:.1f}'),
                ]
                for one in sorted(
                    board.detections, key=lambda one: one.scores.auroc.value, reverse=True
                )
            ],
        )


def _csv(board: Leaderboard) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['method', *(name for column in _COLUMNS for name in column.names)])
    for row in board.ranked:
        cells: list[str] = []
        for column in _COLUMNS:
            numbers = column.numbers(row) or (math.nan,) * len(column.names)
            cells += ['' if math.isnan(value) else f'{value:.6g}' for value in numbers]
        writer.writerow([row.method.name, *cells])
    return text.getvalue()


def _alt(board: Leaderboard) -> str:
    scores = ', '.join(f'{row.method.title} {row.lds.mean.value:.3f}' for row in board.ranked)
    return f'Linear datamodelling scores: {scores}'


def _plain(cell: Cell) -> str:
    return f'{cell.text} ({cell.note})' if cell.note else cell.text


def _interval(found: Interval | None) -> Cell:
    if found is None or math.isnan(found.value):
        return Cell(MISSING)
    if math.isnan(found.low):
        return Cell(f'{found.value:.3f}')
    return Cell(f'{found.value:.3f}', f'{found.low:.3f} to {found.high:.3f}')


def _rise(rise: Rise) -> Cell:
    text = MISSING if math.isnan(rise.value) else f'{rise.value:.3f}'
    error = '' if math.isnan(rise.value) else f'± {rise.standard_error:.3f}'
    diverged = f'{rise.diverged} diverged' if rise.diverged else ''
    return Cell(text, ', '.join(filter(None, [error, diverged])))


def _with_interval(heading: str, name: str, of: Callable[[Row], Interval | None]) -> _Column:
    return _Column(
        heading, (name, f'{name}_low', f'{name}_high'), of, lambda row: _interval(of(row))
    )


def _one(heading: str, name: str, of: Callable[[Row], float | None], form: str = '.3f') -> _Column:
    def numbers(row: Row) -> tuple[float, ...] | None:
        value = of(row)
        return None if value is None else (value,)

    def cell(row: Row) -> Cell:
        value = of(row)
        return Cell(MISSING if value is None or math.isnan(value) else format(value, form))

    return _Column(heading, (name,), numbers, cell)


_COLUMNS = (
    _with_interval('LDS, target left out', 'lds', lambda row: row.lds.mean.interval()),
    _with_interval(
        'over ceiling', 'over_any', lambda row: row.over_any.interval() if row.over_any else None
    ),
    _with_interval(
        'over linear ceiling',
        'over_linear',
        lambda row: row.over_linear.interval() if row.over_linear else None,
    ),
    _with_interval('LDS, all members', 'lds_all', lambda row: row.lds_all.mean.interval()),
    _one('constant targets', 'constant', lambda row: row.lds.constant or None, '.0f'),
    _Column(
        'worth members',
        ('worth', 'worth_low', 'worth_high'),
        lambda row: row.worth and (row.worth.members, row.worth.low, row.worth.high),
        lambda row: Cell(str(row.worth) if row.worth else MISSING),
    ),
    _one('Spearman with ensemble', 'ensemble', lambda row: row.ensemble and row.ensemble.spearman),
    _one(
        'over its reliability',
        'ensemble_over_reliability',
        lambda row: row.ensemble and row.ensemble.over_reliability,
    ),
    _with_interval(
        'AUROC of near-duplicates',
        'near_duplicates_auroc',
        lambda row: row.near_duplicates and row.near_duplicates.auroc,
    ),
    _with_interval(
        'average precision',
        'near_duplicates_precision',
        lambda row: row.near_duplicates and row.near_duplicates.average_precision,
    ),
    _one(
        'twin strongest',
        'twin_first',
        lambda row: row.near_duplicates and row.near_duplicates.twin_first,
    ),
    _with_interval(
        'AUROC of wrong labels',
        'mislabels_auroc',
        lambda row: row.mislabels and row.mislabels.auroc,
    ),
    _one('wrong labels in 10 %', 'found_10', lambda row: row.mislabels and row.mislabels.found[0]),
    _one('wrong labels in 20 %', 'found_20', lambda row: row.mislabels and row.mislabels.found[1]),
    _with_interval(
        'AUROC of wrong labels, by margin',
        'mislabels_margin_auroc',
        lambda row: row.mislabels_by_margin and row.mislabels_by_margin.auroc,
    ),
    _one('random weights', 'random_weights', lambda row: row.sanity and row.sanity.random_weights),
    _one('random labels', 'random_labels', lambda row: row.sanity and row.sanity.random_labels),
    _one('seconds', 'seconds', lambda row: row.cost and row.cost.seconds, '.1f'),
    _one(
        'peak MiB',
        'peak_mib',
        lambda row: row.cost.peak_bytes / _MIB if row.cost and row.cost.peak_bytes else None,
        '.0f',
    ),
)
