"""The numbers of a report for the terminal."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from influence_jax.report.caveats import own_influences
from influence_jax.report.comparison import terminal_comparison
from influence_jax.report.formatting import measured, number, printable
from influence_jax.report.results import Results
from influence_jax.text import LONGEST_NAME

ROWS = 5
"""Targets of each table."""


def terminal(results: Results) -> Group:
    """Returns lowest margins, most memorized targets, comparison, facts and notes, to be printed.

    A caution stands above them where there must be one. Names are the plain ones: in columns this
    narrow what was changed of a near-duplicate would leave no room for them.
    """
    return Group(*_parts(results))


def _parts(results: Results) -> Iterable[RenderableType]:
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
    lines = Table(
        title=Text(title, style='bold'),
        title_justify='left',
        box=None,
        pad_edge=False,
        expand=True,
    )
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
