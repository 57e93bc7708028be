"""Unique against near-duplicated, and which score tells them: for the page and the terminal."""

import math
from collections.abc import Iterable

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table as TerminalTable
from rich.text import Text

from influence_jax.analysis.near_duplicate_comparison import Comparison, Row, Spread
from influence_jax.analysis.scores import Prediction
from influence_jax.report.figure_style import UNIT
from influence_jax.report.sections import Cell, Interval, Table
from influence_jax.report.tables import printable
from influence_jax.report.wording import MISSING, number, plus_minus


def comparison_table(comparison: Comparison, *, beside_paper: bool, unit: str = UNIT) -> Table:
    """Each score of the two kinds of targets.

    Args:
        comparison: of the run.
        beside_paper: show what the paper found of texts, too; it has no such table of images.
        unit: of influences.
    """

    def row(of: Row) -> list[Cell]:
        digits = _digits(of)
        ours = [_spread(spread, digits) for spread in (of.unique, of.near_duplicated)]
        means = _ratio(of.unique.mean, of.near_duplicated.mean)
        medians = _ratio(of.unique.median, of.near_duplicated.median)
        papers = map(Cell, _paper(of)) if beside_paper and comparison.reference else ()
        return [Cell(of.score.name), *ours, Cell(means, medians), *papers]

    caption = (
        'Mean ± standard deviation over the targets of a kind, the median below; ratio: unique '
        f'over near-duplicated, of the means and of the medians. Influences in {unit}.'
    )
    columns = ('unique', 'near-duplicated', 'ratio')
    rows = [row(of) for of in comparison.rows]
    if not beside_paper or comparison.reference is None:
        return Table(caption, header=('', *columns), rows=rows)
    return Table(
        f'{caption} The paper: {comparison.reference.source}.',
        groups=(('', 1), ('this run', 3), ('the paper', 3)),
        header=('', *columns, *columns),
        rows=rows,
    )


def told_table(comparison: Comparison) -> Table:
    """AUROC of each score, with intervals, for each kind of targets that is sought."""
    of_extractable = {of.score.name: of for of in comparison.of_extractable}
    found = int(comparison.near_duplicated.sum())
    header = ['', 'what is said to mark them', f'has near-duplicates ({found:,})']
    caption = f'{comparison.level:.0%} intervals; the stroke in the middle is chance.'
    if comparison.extractable is not None:
        header.append(f'extractable ({int(comparison.extractable.sum()):,})')
        caption = (
            'Extractable: the decoded answer matches exactly or reaches a BLEU of '
            f'{comparison.extractable_bleu:g}, and is not nearer to a near-duplicate. {caption}'
        )

    def cells(of: Prediction) -> Iterable[Cell]:
        yield Cell(of.score.name)
        yield Cell('low values' if of.score.low_marks else 'high values')
        yield _auroc_cell(of)
        if comparison.extractable is not None:
            other = of_extractable.get(of.score.name)
            yield Cell('') if other is None else _auroc_cell(other)

    rows = [list(cells(of)) for of in comparison.of_near_duplicated]
    return Table(caption, header=header, rows=rows)


def terminal_comparison(comparison: Comparison, *, beside_paper: bool, unit: str = UNIT) -> Group:
    """Both tables, for `rich.console.Console.print`; arguments as of `comparison_table`."""
    lines = _terminal_table(
        f'Unique and near-duplicated targets (influences in {unit})',
        ('unique', 'median', 'near-duplicated', 'median', 'ratio'),
    )
    for row in comparison.rows:
        digits = _digits(row)
        cells = (
            cell
            for spread in (row.unique, row.near_duplicated)
            for cell in (_both(spread, digits), number(spread.median, digits))
        )
        lines.add_row(
            printable(row.score.name), *cells, _ratio(row.unique.mean, row.near_duplicated.mean)
        )
        if beside_paper and row.score.reference is not None:
            unique, near_duplicated, ratio = _paper(row)
            lines.add_row('  the paper', unique, '', near_duplicated, '', ratio, style='dim')
    sought = ['has near-duplicates']
    if comparison.extractable is not None:
        sought.append('extractable')
    told = _terminal_table(f'AUROC, {comparison.level:.0%} intervals', sought)
    of_extractable = {of.score.name: of for of in comparison.of_extractable}
    for of in comparison.of_near_duplicated:
        other = of_extractable.get(of.score.name)
        values = (_auroc(of), MISSING if other is None else _auroc(other))
        told.add_row(printable(of.score.name), *values[: len(sought)])
    parts: list[RenderableType] = [Text(), lines, Text(), told]
    return Group(*parts)


def _terminal_table(title: str, columns: Iterable[str]) -> TerminalTable:
    lines = TerminalTable(
        title=Text(title, style='bold'), title_justify='left', box=None, pad_edge=False
    )
    lines.add_column('', overflow='fold')  # narrowed before numbers are
    for name in columns:
        lines.add_column(name, justify='right', no_wrap=True)
    return lines


def _digits(row: Row) -> int:
    """So many that small numbers differ and large ones stay short."""
    largest = max(np.nan_to_num(np.abs([row.unique.mean, row.near_duplicated.mean])))
    return 3 if largest < 2 else 2 if largest < 100 else 1


def _spread(spread: Spread, digits: int) -> Cell:
    note = f'median {number(spread.median, digits)}'
    if spread.infinite:
        note += f', {spread.infinite:,} infinite'
    return Cell(_both(spread, digits), note)


def _both(spread: Spread, digits: int) -> str:
    if not spread.targets:
        return MISSING
    return plus_minus(spread.mean, spread.standard_deviation, digits)


def _ratio(unique: float, near_duplicated: float) -> str:
    """Unique over near-duplicated; a dash where that says nothing."""
    if not (unique > 0 and near_duplicated > 0):
        return MISSING
    return number(unique / near_duplicated if math.isfinite(near_duplicated) else math.nan, 2)


def _paper(row: Row) -> tuple[str, str, str]:
    paper = row.score.reference
    if paper is None:
        return '', '', ''
    unique, near_duplicated = (
        plus_minus(of.mean, of.standard_deviation, paper.digits)
        for of in (paper.unique, paper.near_duplicated)
    )
    return unique, near_duplicated, _ratio(paper.unique.mean, paper.near_duplicated.mean)


def _auroc(of: Prediction) -> str:
    value, low, high = of.auroc
    if math.isnan(value):
        return MISSING
    return f'{number(value, 3)} ({number(low, 3)} to {number(high, 3)})'


def _auroc_cell(of: Prediction) -> Cell:
    value, low, high = of.auroc
    if math.isnan(value):
        return Cell(MISSING)
    drawn = Interval(value, low, high) if math.isfinite(low) else None
    return Cell(number(value, 3), f'{number(low, 3)} to {number(high, 3)}', drawn)
