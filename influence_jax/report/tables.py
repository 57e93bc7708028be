"""The numbers of the report as `targets.csv` and as a short table for the terminal."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from influence_jax.analysis.overview import Overview
from influence_jax.report.content import Content
from influence_jax.report.wording import measured, number


def targets_csv(content: Content) -> str:
    """One line a target, in the targets' own order; influences in nats, empty where undefined.

    Columns: id, name, label, self_influence and its standard error, margin, strongest_other (an
    example id) and its name, influence and standard error, mean, standard deviation and quantiles
    of the target's column of the influence matrix, and near_duplicate and mean_loss where known.
    """
    summary = content.overview.summary
    header = [
        'id',
        'name',
        'label',
        'self_influence',
        'self_influence_standard_error',
        'margin',
        'strongest_other',
        'strongest_other_name',
        'strongest_other_influence',
        'strongest_other_standard_error',
        'column_mean',
        'column_standard_deviation',
    ]
    header += [f'column_quantile_{level:g}' for level in summary.quantile_levels]
    header += ['near_duplicate'] if content.near_duplicates is not None else []
    header += ['mean_loss'] if content.mean_loss is not None else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    for target, target_id in enumerate(content.target_ids):
        example = content.example_of(target)
        other = int(summary.strongest_other[target])
        row: list[str | int] = [
            target_id,
            content.target_name(target),
            '' if example is None else content.example_labels[example],
            _cell(summary.self_influence[target]),
            _cell(summary.self_standard_error[target]),
            _cell(summary.margin[target]),
            content.example_ids[other],
            content.example_names[other],
            _cell(summary.other_value[target]),
            _cell(summary.other_standard_error[target]),
            _cell(summary.mean[target]),
            _cell(summary.standard_deviation[target]),
            *map(_cell, summary.quantiles[target]),
        ]
        if content.near_duplicates is not None:
            row.append(int(content.near_duplicates[target]))
        if content.mean_loss is not None:
            row.append(_cell(content.mean_loss[target]))
        writer.writerow(row)
    return text.getvalue()


def _cell(value: float) -> str:
    return '' if math.isnan(value) else f'{float(value):.6g}'


def terminal_table(
    overview: Overview, *, target_ids: Sequence[str], example_names: Sequence[str], rows: int = 5
) -> Group:
    """The lowest margins and the most memorized targets, for `rich.console.Console.print`.

    Args:
        overview: of the ensemble.
        target_ids: `[T]`; a target that is no example is called by its id.
        example_names: `[N]`.
        rows: of each of the two tables.
    """

    def name(target: int) -> Text:
        example = int(overview.target_examples[target])
        return printable(example_names[example] if example >= 0 else target_ids[target])

    def table(title: str, targets: Int[np.ndarray, '_']) -> Table:
        summary = overview.summary
        lines = Table(
            title=Text(title, style='bold'),
            title_justify='left',
            box=None,
            pad_edge=False,
            expand=True,
        )
        lines.add_column('target', overflow='ellipsis', no_wrap=True, ratio=1)
        lines.add_column('self (nats)', justify='right', no_wrap=True, min_width=13)
        lines.add_column('margin', justify='right', no_wrap=True, min_width=6)
        lines.add_column('strongest other', overflow='ellipsis', no_wrap=True, ratio=1)
        lines.add_column('its influence', justify='right', no_wrap=True, min_width=13)
        for target in targets[:rows].tolist():
            lines.add_row(
                name(target),
                measured(summary.self_influence[target], summary.self_standard_error[target]),
                number(summary.margin[target]),
                printable(example_names[int(summary.strongest_other[target])]),
                measured(summary.other_value[target], summary.other_standard_error[target]),
            )
        return lines

    parts: list[RenderableType] = [table('Lowest margin', overview.lowest_margin)]
    if len(overview.most_memorized):
        parts += [Text(), table('Most memorized', overview.most_memorized)]
    return Group(*parts)


def printable(text: str) -> Text:
    """Text from data for the terminal, which must neither be read as markup nor steer it."""
    return Text(''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in text))
