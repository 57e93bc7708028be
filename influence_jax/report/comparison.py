"""Unique against near-duplicated targets, and which score tells them apart: sections and tables."""

import math
from collections.abc import Iterable

import numpy as np
from rich.console import RenderableType
from rich.table import Table as TerminalTable
from rich.text import Text

from influence_jax.analysis.near_duplicate_comparison import Comparison, ScoreComparison, Spread
from influence_jax.analysis.resampling import Interval
from influence_jax.report.formatting import MISSING, count, number, plus_minus, printable
from influence_jax.report.results import Reference, Results
from influence_jax.report.sections import Cell, Section, Table


def kinds_section(results: Results, comparison: Comparison) -> Section:
    """Returns the section on unique and near-duplicated examples."""
    nouns, duplicated = f'{results.shown.noun}s', comparison.near_duplicated
    clusters = count(len(np.unique(comparison.groups[duplicated])), 'cluster')
    unique = count(int((~duplicated).sum()), results.shown.noun)
    if results.text is None:
        lead = (
            f'{unique} written once and {int(duplicated.sum()):,} in {clusters}, each an original '
            f'and its changed variants. Where those of a cluster stand in for one another, '
            f'self-influence is low, as models know the {results.shown.noun} without this version '
            f'of it; a low margin shows why.'
        )
    elif results.reference is None:
        lead = (
            f'{unique} without and {int(duplicated.sum()):,} with near-duplicates, these in '
            f'{clusters}. Where those of a cluster stand in for one another, self-influence is '
            f'low; a low margin shows why.'
        )
    else:
        lead = (
            f'{unique} without and {int(duplicated.sum()):,} with near-duplicates, these in '
            f'{clusters}, beside the numbers of {results.reference.name}. There, records with '
            f'near-duplicates have low self-influence, as each stands in for the others, and are '
            f'given back all the same; a low margin shows why.'
        )
    table = comparison_table(comparison, reference=results.reference, unit=results.unit)
    return Section(f'Unique and near-duplicated {nouns}', lead, [table])


def auroc_section(comparison: Comparison) -> Section:
    """Returns the section on which scores mark targets with near-duplicates, and how well."""
    return Section(
        'Which score marks them',
        'AUROC of each score by itself: the probability that a record of the kind sought is '
        'ranked before another, 0.5 for chance; below it the opposite of what is said marks them. '
        f'Intervals of {comparison.level:.0%} are by bootstrap over clusters.',
        [auroc_table(comparison)],
    )


def comparison_table(comparison: Comparison, *, reference: Reference | None, unit: str) -> Table:
    """Returns each score of the two kinds of targets, beside published numbers if there are any."""

    def row(score: ScoreComparison) -> list[Cell]:
        digits = _digits(score)
        ours = [_spread(spread, digits) for spread in (score.unique, score.near_duplicated)]
        means = _ratio(score.unique.mean, score.near_duplicated.mean)
        medians = _ratio(score.unique.median, score.near_duplicated.median)
        published = map(Cell, _published(score, reference)) if reference else ()
        return [Cell(score.name), *ours, Cell(means, medians), *published]

    caption = (
        'Mean ± standard deviation over the targets of a kind, the median below; ratio: unique '
        f'over near-duplicated, of the means and of the medians. Influences in {unit}.'
    )
    columns = ('unique', 'near-duplicated', 'ratio')
    rows = [row(score) for score in comparison.scores]
    if reference is None:
        return Table(caption, header=('', *columns), rows=rows)
    return Table(
        f'{caption} {reference.name.capitalize()}: {reference.source}.',
        groups=(('', 1), ('this run', 3), (reference.name, 3)),
        header=('', *columns, *columns),
        rows=rows,
    )


def auroc_table(comparison: Comparison) -> Table:
    """Returns the AUROC of each score, with intervals, for each kind of targets that is sought."""
    duplicated = int(comparison.near_duplicated.sum())
    header = ['', 'what is said to mark them', f'has near-duplicates ({duplicated:,})']
    caption = f'{comparison.level:.0%} intervals; the stroke in the middle is chance.'
    if comparison.extractable is not None:
        header.append(f'extractable ({int(comparison.extractable.sum()):,})')
        caption = (
            'Extractable: the decoded answer matches exactly or reaches a BLEU of '
            f'{comparison.extractable_bleu:g}, and is not nearer to a near-duplicate. {caption}'
        )

    def cells(score: ScoreComparison) -> Iterable[Cell]:
        yield Cell(score.name)
        yield Cell('low values' if score.low_marks else 'high values')
        yield _auroc_cell(score.near_duplicates_auroc)
        if comparison.extractable is not None:
            other = score.extractable_auroc
            yield Cell('') if other is None else _auroc_cell(other)

    return Table(caption, header=header, rows=[list(cells(one)) for one in comparison.scores])


def terminal_comparison(
    comparison: Comparison, *, reference: Reference | None, unit: str
) -> Iterable[RenderableType]:
    """Yields both tables, for `rich.console.Console.print`."""
    lines = _terminal_table(
        f'Unique and near-duplicated targets (influences in {unit})',
        ('unique', 'median', 'near-duplicated', 'median', 'ratio'),
    )
    for score in comparison.scores:
        digits = _digits(score)
        cells = (
            cell
            for spread in (score.unique, score.near_duplicated)
            for cell in (_both(spread, digits), number(spread.median, digits))
        )
        ratio = _ratio(score.unique.mean, score.near_duplicated.mean)
        lines.add_row(printable(score.name), *cells, ratio)
        if reference and score.name in reference.rows:
            unique, near_duplicated, ratio = _published(score, reference)
            name = printable(f'  {reference.name}')
            lines.add_row(name, unique, '', near_duplicated, '', ratio, style='dim')
    yield lines
    yield Text()
    sought = ['has near-duplicates']
    if comparison.extractable is not None:
        sought.append('extractable')
    aurocs = _terminal_table(f'AUROC, {comparison.level:.0%} intervals', sought)
    for score in comparison.scores:
        other = score.extractable_auroc
        values = (_auroc(score.near_duplicates_auroc), MISSING if other is None else _auroc(other))
        aurocs.add_row(printable(score.name), *values[: len(sought)])
    yield aurocs


def _terminal_table(title: str, columns: Iterable[str]) -> TerminalTable:
    lines = TerminalTable(
        title=printable(title, style='bold'), title_justify='left', box=None, pad_edge=False
    )
    lines.add_column('', overflow='fold')  # narrowed before numbers are
    for name in columns:
        lines.add_column(name, justify='right', no_wrap=True)
    return lines


def _digits(score: ScoreComparison) -> int:
    """Returns so many that small numbers differ and large ones stay short."""
    largest = max(np.nan_to_num(np.abs([score.unique.mean, score.near_duplicated.mean])))
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
    """Returns unique over near-duplicated; a dash where that says nothing."""
    if not (unique > 0 and near_duplicated > 0):
        return MISSING
    return number(unique / near_duplicated if math.isfinite(near_duplicated) else math.nan, 2)


def _published(score: ScoreComparison, reference: Reference) -> tuple[str, str, str]:
    row = reference.rows.get(score.name)
    if row is None:
        return '', '', ''
    unique, near_duplicated = (
        plus_minus(of.mean, of.standard_deviation, row.digits)
        for of in (row.unique, row.near_duplicated)
    )
    return unique, near_duplicated, _ratio(row.unique.mean, row.near_duplicated.mean)


def _auroc(found: Interval) -> str:
    value, low, high = found
    if math.isnan(value):
        return MISSING
    return f'{number(value, 3)} ({number(low, 3)} to {number(high, 3)})'


def _auroc_cell(found: Interval) -> Cell:
    value, low, high = found
    if math.isnan(value):
        return Cell(MISSING)
    drawn = found if math.isfinite(low) else None
    return Cell(number(value, 3), f'{number(low, 3)} to {number(high, 3)}', drawn)
