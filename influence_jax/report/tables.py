"""The numbers of a report without its page: as CSV files, and for the terminal.

The columns of `targets.csv`, `pairs.csv` and `records.csv` are explained in docs/tables.md.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from influence_jax.analysis.extraction import Siblings
from influence_jax.analysis.near_duplicate_comparison import Comparison
from influence_jax.analysis.resampling import Interval
from influence_jax.analysis.verdicts import Verdict
from influence_jax.estimators import SignificantPairs, selected_intervals, z_scores
from influence_jax.formatting import MISSING, measured, number
from influence_jax.report.attributed import HEADER, attribution_rows, jointly
from influence_jax.report.comparison import auroc_cell, score_texts
from influence_jax.report.csv_files import csv_file, id_cell, text_cell
from influence_jax.report.facts import own_influences
from influence_jax.report.membership import terminal_rates
from influence_jax.report.results import Reference, Results
from influence_jax.report.sections import Cell
from influence_jax.text import LONGEST, LONGEST_NAME, clean

ROWS = 5
"""Targets of each table for the terminal."""

_LONGEST_TEXT = 32_000  # what a cell of a spreadsheet holds


def targets_csv(results: Results) -> str:
    """Returns one line a target, in the targets' own order; empty cells where undefined."""
    summary = results.summary
    low, high = selected_intervals(
        summary.other_value,
        summary.other_standard_error,
        members=summary.members_used or None,
        selected=results.num_targets,
        candidates=results.num_targets * results.num_examples,
    )
    numbers = {
        'self_influence': summary.self_influence,
        'self_influence_standard_error': summary.self_standard_error,
        'self_influence_effective_members': summary.effective_members,
        'margin': summary.margin,
        'floored_margin': summary.floored_margin,
        'z_margin': summary.z_margin,
        'strongest_other_influence': summary.other_value,
        'strongest_other_standard_error': summary.other_standard_error,
        'strongest_other_low': low,
        'strongest_other_high': high,
        'strongest_other_stands_out': summary.other_stands_out,
        'strongest_other_cross_fitted': summary.other_cross_fitted,
        'column_mean': summary.mean,
        'column_standard_deviation': summary.standard_deviation,
        'column_skewness': summary.skewness,
        'column_kurtosis': summary.kurtosis,
        'column_noise': summary.null_standard_error,
        **{
            f'column_quantile_{level:g}': summary.quantiles[:, place]
            for place, level in enumerate(summary.quantile_levels)
        },
        'near_duplicate': results.near_duplicates,
        'mean_loss': results.mean_loss,
    }

    def texts(target: int) -> Iterator[str]:
        other = int(summary.strongest_other[target])
        yield id_cell(results.target_ids[target])
        yield text_cell(results.target_name(target))
        yield text_cell(results.target_label(target))
        yield id_cell(results.example_ids[other])
        yield text_cell(results.full_name(other))
        yield Verdict(results.verdicts[target]).name.lower()

    header = ('id', 'name', 'label', 'strongest_other', 'strongest_other_name', 'verdict')
    return csv_file(header, texts, numbers, rows=results.num_targets)


def pairs_csv(results: Results) -> str:
    """Returns one line a significant pair, smallest p-value first."""
    return pair_lines(
        results.summary.pairs,
        results.example_ids,
        results.target_ids,
        tuple(map(results.full_name, range(results.num_examples))),
        tuple(map(results.target_name, range(results.num_targets))),
    )


def pair_lines(
    pairs: SignificantPairs,
    example_ids: Sequence[str],
    target_ids: Sequence[str],
    example_names: Sequence[str],
    target_names: Sequence[str],
) -> str:
    """Returns the same of any pairs, with these names of examples and targets."""

    def texts(pair: int) -> Iterator[str]:
        example, target = int(pairs.examples[pair]), int(pairs.targets[pair])
        yield id_cell(example_ids[example])
        yield text_cell(example_names[example])
        yield id_cell(target_ids[target])
        yield text_cell(target_names[target])

    numbers = {
        'influence': pairs.values,
        'standard_error': pairs.standard_errors,
        'interval_low': pairs.low,
        'interval_high': pairs.high,
        'influence_cross_fitted': pairs.cross_fitted,
        'z': z_scores(pairs.values, pairs.standard_errors),
        'p_value': pairs.p_values,
    }
    header = ('example', 'example_name', 'target', 'target_name')
    return csv_file(header, texts, numbers, rows=len(pairs.examples))


def attribution_csv(results: Results) -> str:
    """Returns a line a target: the joint margin, each method's scores, the strongest other."""
    names = [one.method.name for one in results.attributed]

    def texts(target: int) -> Iterator[str]:
        yield id_cell(results.target_ids[target])
        for one in results.attributed:
            yield id_cell(results.example_ids[int(one.strongest_other[target])])

    numbers: dict[str, np.ndarray | None] = {'joint_margin': jointly(results)}
    for name, one in zip(names, results.attributed, strict=True):
        numbers |= {
            f'{name}_self': one.self_score,
            f'{name}_margin': one.margin,
            f'{name}_other': one.other_score,
        }
    header = ('id', *(f'{name}_strongest_other' for name in names))
    return csv_file(header, texts, numbers, rows=results.num_targets)


def records_csv(results: Results) -> str:
    """Returns one line a record of a run on texts: what was injected, and what was extracted."""
    text, comparison, ids = results.text, results.comparison, results.target_ids
    assert text is not None and comparison is not None and comparison.extractable is not None
    siblings = text.siblings
    numbers = {
        'bleu': text.bleu,
        'exact_match': text.exact_match,
        'longest_common_share': text.longest_common_share,
        'sibling_bleu': siblings.bleu,
        'sibling_exact_match': np.where(siblings.nearest < 0, np.nan, siblings.exact_match),
        'extractable': comparison.extractable,
    }
    for name, of in text.by_members.items():
        column = name.lower().replace(' ', '_')
        numbers |= {f'{column}_held': of.held.mean, f'{column}_left_out': of.left_out.mean}

    def texts(record: int) -> Iterator[str]:
        yield id_cell(ids[record])
        yield str(int(comparison.groups[record]))
        for of in (text.changes, text.prompts, text.completions, text.decoded):
            yield text_cell(of[record], most=_LONGEST_TEXT)
        nearest = int(siblings.nearest[record])
        yield text_cell(ids[nearest]) if nearest >= 0 else ''
        yield _nearest_to(siblings, record)

    header = ('id', 'group', 'change', 'prompt', 'completion', 'decoded')
    return csv_file((*header, 'nearest_sibling', 'nearest_to'), texts, numbers, rows=len(ids))


def _nearest_to(siblings: Siblings, record: int) -> str:
    if siblings.nearest[record] < 0:
        return ''
    if siblings.as_near[record]:
        return 'both'
    return 'sibling' if siblings.nearer[record] else 'record'


def printable(text: str, *, most: int = LONGEST, style: str = '') -> Text:
    """Returns text from data for the terminal: neither markup, nor anything that steers it."""
    return Text(clean(text, most=most), style=style)


def terminal(results: Results) -> Group:
    """Returns lowest margins, most memorized targets, comparison, facts and notes, to be printed.

    A caution stands above them where there must be one. Names are the plain ones: in columns this
    narrow what was changed of a near-duplicate would leave no room for them.
    """
    return Group(*_parts(results))


def _parts(results: Results) -> Iterator[RenderableType]:
    for sentence in own_influences(results.overview):
        yield Text(f'Caution: {sentence}\n', style='bold')
    yield _targets(results, 'Lowest margin', results.overview.lowest_margin)
    if len(results.overview.most_memorized):
        yield Text()
        yield _targets(results, 'Most memorized', results.overview.most_memorized)
    if results.comparison:
        yield Text()
        yield from terminal_comparison(
            results.comparison, reference=results.reference, unit=results.unit
        )
    if results.attributed:
        yield Text()
        lines = _score_table('Cheaper attribution, beside the ensemble', HEADER[1:])
        for name, *cells in attribution_rows(results):
            lines.add_row(printable(name), *cells)
        yield lines
    if results.membership:
        yield Text()
        yield terminal_rates(results.membership)
    for name, value in results.facts.items():
        yield printable(f'{name}: {value}')
    for note in results.notes:
        yield printable(f'Note: {note}')


def _targets(results: Results, title: str, targets: Int[np.ndarray, ' _']) -> Table:
    def name(target: int) -> Text:
        example = results.example_of(target)
        text = results.target_ids[target] if example is None else results.example_names[example]
        return printable(text, most=LONGEST_NAME)

    summary = results.summary
    lines = _table(title, expand=True)
    lines.add_column('target', overflow='ellipsis', no_wrap=True, ratio=1)
    unit = printable(f'self ({results.unit})')
    lines.add_column(unit, justify='right', no_wrap=True, min_width=13)
    lines.add_column('margin', justify='right', no_wrap=True, min_width=6)
    lines.add_column('strongest other', overflow='ellipsis', no_wrap=True, ratio=1)
    lines.add_column('its influence', justify='right', no_wrap=True, min_width=13)
    for target in targets[:ROWS].tolist():
        other = results.example_names[int(summary.strongest_other[target])]
        lines.add_row(
            name(target),
            measured(summary.self_influence[target], summary.self_standard_error[target]),
            number(summary.margin[target]),
            printable(other, most=LONGEST_NAME),
            measured(summary.other_value[target], summary.other_standard_error[target]),
        )
    return lines


def terminal_comparison(
    comparison: Comparison, *, reference: Reference | None, unit: str
) -> Iterator[RenderableType]:
    """Yields scores of unique and near-duplicated targets, and their AUROC, to be printed."""
    lines = _score_table(
        f'Unique and near-duplicated targets (influences in {unit})',
        ('unique', 'median', 'near-duplicated', 'median', 'ratio'),
    )
    for score in comparison.scores:
        *cells, _, published = score_texts(score, reference)
        lines.add_row(printable(score.name), *cells)
        if reference and score.name in reference.rows:
            unique, near_duplicated, ratio = published
            name = printable(f'  {reference.name}')
            lines.add_row(name, unique, '', near_duplicated, '', ratio, style='dim')
    yield lines
    yield Text()
    sought = ['has near-duplicates']
    if comparison.extractable is not None:
        sought.append('extractable')
    aurocs = _score_table(f'AUROC, {comparison.level:.0%} intervals', sought)
    for score in comparison.scores:
        found = (score.near_duplicates_auroc, score.extractable_auroc)[: len(sought)]
        aurocs.add_row(printable(score.name), *map(_auroc, found))
    yield aurocs


def _auroc(found: Interval | None) -> str:
    cell = auroc_cell(found) if found else Cell(MISSING)
    return f'{cell.text} ({cell.note})' if cell.note else cell.text


def _score_table(title: str, columns: Iterable[str]) -> Table:
    lines = _table(title)
    lines.add_column('', overflow='fold')  # narrowed before numbers are
    for name in columns:
        lines.add_column(name, justify='right', no_wrap=True)
    return lines


def _table(title: str, *, expand: bool = False) -> Table:
    return Table(
        title=printable(title, style='bold'),
        title_justify='left',
        box=None,
        pad_edge=False,
        expand=expand,
    )
