"""The tables of a run on texts, for the page and for the terminal."""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Group, RenderableType
from rich.table import Table as TerminalTable
from rich.text import Text

from influence_jax.analysis.extraction import Average, Extraction, HeldOrNot
from influence_jax.analysis.near_duplicate_comparison import Comparison, Row, Spread
from influence_jax.analysis.score_prediction import Prediction
from influence_jax.analysis.scores import PAPER_SOURCE, PaperRow
from influence_jax.report.figure_style import UNIT
from influence_jax.report.sections import Cell, Interval, Table
from influence_jax.report.tables import printable
from influence_jax.report.wording import MISSING, PLUS_MINUS, number


def comparison_table(comparison: Comparison, unit: str = UNIT) -> Table:
    """Each score of the two kinds of records, with what the paper found beside it."""

    def row(of: Row) -> list[Cell]:
        digits = _digits(of)
        ours = [_spread(spread, digits) for spread in (of.unique, of.near_duplicated)]
        means = _ratio(of.unique.mean, of.near_duplicated.mean)
        medians = _ratio(of.unique.median, of.near_duplicated.median)
        return [Cell(of.score.name), *ours, Cell(means, medians), *map(Cell, _paper(of))]

    return Table(
        caption=(
            'Mean ± standard deviation over the records of a kind, the median below; ratio: unique '
            f'over near-duplicated, of the means and of the medians. Influences in {unit}. '
            f'The paper: {PAPER_SOURCE}.'
        ),
        groups=(('', 1), ('this run', 3), ('the paper', 3)),
        header=('', *('unique', 'near-duplicated', 'ratio') * 2),
        rows=[row(of) for of in comparison.rows],
    )


def extraction_table(
    extraction: Extraction, near_duplicated: Bool[np.ndarray, 'T'], held: HeldOrNot | None
) -> Table:
    """How well the two kinds of records are given back, by whom."""

    def row(name: str, values: Float[np.ndarray, 'T']) -> list[Cell]:
        kinds = (values[~near_duplicated], values[near_duplicated])
        return [Cell(name), *(Cell(_mean(of)) for of in kinds)]

    def average(name: str, of: Average) -> list[Cell]:
        name_cell, *kinds = row(name, of.mean)
        errors = (of.standard_error[~near_duplicated], of.standard_error[near_duplicated])
        notes = (_standard_error(error) for error in errors)
        return [name_cell, *(cell._replace(note=n) for cell, n in zip(kinds, notes, strict=True))]

    exact = (extraction.exact_match[~near_duplicated], extraction.exact_match[near_duplicated])
    rows = [
        row('BLEU, a model trained on everything', extraction.bleu),
        [Cell('exact match'), *(Cell(f'{of.mean():.1%}' if of.size else MISSING) for of in exact)],
        row('longest common string, share of the answer', extraction.longest_common_share),
    ]
    if held is not None:
        rows += [
            average('BLEU, members that held the record', held.held),
            average('BLEU, members that did not', held.left_out),
        ]
    return Table(
        caption=(
            'Mean ± standard deviation over the records of a kind. Exact match leaves case, '
            'punctuation and articles out of account.'
        ),
        header=('', 'unique', 'near-duplicated'),
        rows=rows,
    )


def told_table(comparison: Comparison) -> Table:
    """AUROC of each score, with intervals, for both kinds of records that are sought."""
    of_extractable = {of.score.name: of for of in comparison.of_extractable}
    found = int(comparison.near_duplicated.sum())
    header = ['', 'what is said to mark them', f'has near-duplicates ({found:,})']
    if comparison.extractable is not None:
        header.append(f'extractable ({int(comparison.extractable.sum()):,})')

    def cells(of: Prediction) -> Iterable[Cell]:
        yield Cell(of.score.name)
        yield Cell('low values' if of.score.low_marks else 'high values')
        yield _auroc_cell(of)
        if comparison.extractable is not None:
            other = of_extractable.get(of.score.name)
            yield Cell('') if other is None else _auroc_cell(other)

    return Table(
        caption=(
            'Extractable: the decoded answer matches exactly or reaches a BLEU of '
            f'{comparison.extractable_bleu:g}. {comparison.level:.0%} intervals; the stroke in the '
            'middle is chance.'
        ),
        header=header,
        rows=[list(cells(of)) for of in comparison.of_near_duplicated],
    )


def language_table(comparison: Comparison, unit: str = UNIT) -> Group:
    """The paper's table and the AUROCs, for `rich.console.Console.print`."""
    lines = _terminal_table(
        f'Unique and near-duplicated records (influences in {unit})',
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
        if row.score.paper is not None:
            unique, near_duplicated, ratio = _paper(row)
            lines.add_row('  the paper', unique, '', near_duplicated, '', ratio, style='dim')
    told = _terminal_table(
        f'AUROC, {comparison.level:.0%} intervals', ('has near-duplicates', 'extractable')
    )
    of_extractable = {of.score.name: of for of in comparison.of_extractable}
    for of in comparison.of_near_duplicated:
        other = of_extractable.get(of.score.name)
        told.add_row(
            printable(of.score.name), _auroc(of), MISSING if other is None else _auroc(other)
        )
    parts: list[RenderableType] = [lines, Text(), told]
    return Group(*parts)


def _terminal_table(title: str, columns: Iterable[str]) -> TerminalTable:
    lines = TerminalTable(
        title=Text(title, style='bold'), title_justify='left', box=None, pad_edge=False
    )
    lines.add_column('', overflow='ellipsis', no_wrap=True)
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
    return _plus_minus(spread.mean, spread.standard_deviation, digits)


def _plus_minus(mean: float, deviation: float, digits: int) -> str:
    return f'{number(mean, digits)} {PLUS_MINUS} {number(deviation, digits)}'


def _ratio(unique: float, near_duplicated: float) -> str:
    """Unique over near-duplicated; a dash where that says nothing."""
    if not (unique > 0 and near_duplicated > 0):
        return MISSING
    return number(unique / near_duplicated if math.isfinite(near_duplicated) else math.nan, 2)


def _paper(row: Row) -> tuple[str, str, str]:
    paper: PaperRow | None = row.score.paper
    if paper is None:
        return '', '', ''
    unique, near_duplicated = (
        _plus_minus(of.mean, of.standard_deviation, paper.digits)
        for of in (paper.unique, paper.near_duplicated)
    )
    return unique, near_duplicated, _ratio(paper.unique.mean, paper.near_duplicated.mean)


def _mean(values: Float[np.ndarray, '_']) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return MISSING
    deviation = float(known.std(ddof=1)) if known.size > 1 else math.nan
    return _plus_minus(float(known.mean()), deviation, 3)


def _standard_error(errors: Float[np.ndarray, '_']) -> str:
    known = errors[np.isfinite(errors)]
    return f'typical standard error {number(float(np.median(known)), 3)}' if known.size else ''


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
