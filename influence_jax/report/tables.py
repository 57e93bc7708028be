"""The numbers of the report as a short table for the terminal."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from influence_jax.analysis.views import Overview
from influence_jax.report.cautions import own_influences
from influence_jax.report.figure_style import UNIT
from influence_jax.report.wording import measured, number
from influence_jax.text import LONGEST, LONGEST_NAME, clean


def terminal_table(
    overview: Overview,
    *,
    target_ids: Sequence[str],
    example_names: Sequence[str],
    rows: int = 5,
    unit: str = UNIT,
) -> Group:
    """Lowest margins and most memorized targets, for `rich.console.Console.print`.

    A caution stands above them where there must be one.

    Args:
        overview: of the ensemble.
        target_ids: `[T]`; a target that is no example is called by its id.
        example_names: `[N]`.
        rows: of each of the two tables.
        unit: of influences, for the heading.
    """

    def name(target: int) -> Text:
        example = int(overview.target_examples[target])
        text = example_names[example] if example >= 0 else target_ids[target]
        return printable(text, most=LONGEST_NAME)

    def table(title: str, targets: Int[np.ndarray, ' _']) -> Table:
        summary = overview.summary
        lines = Table(
            title=Text(title, style='bold'),
            title_justify='left',
            box=None,
            pad_edge=False,
            expand=True,
        )
        lines.add_column('target', overflow='ellipsis', no_wrap=True, ratio=1)
        lines.add_column(f'self ({unit})', justify='right', no_wrap=True, min_width=13)
        lines.add_column('margin', justify='right', no_wrap=True, min_width=6)
        lines.add_column('strongest other', overflow='ellipsis', no_wrap=True, ratio=1)
        lines.add_column('its influence', justify='right', no_wrap=True, min_width=13)
        for target in targets[:rows].tolist():
            lines.add_row(
                name(target),
                measured(summary.self_influence[target], summary.self_standard_error[target]),
                number(summary.margin[target]),
                printable(example_names[int(summary.strongest_other[target])], most=LONGEST_NAME),
                measured(summary.other_value[target], summary.other_standard_error[target]),
            )
        return lines

    parts: list[RenderableType] = [
        *(Text(f'Caution: {sentence}\n', style='bold') for sentence in own_influences(overview)),
        table('Lowest margin', overview.lowest_margin),
    ]
    if len(overview.most_memorized):
        parts += [Text(), table('Most memorized', overview.most_memorized)]
    return Group(*parts)


def printable(text: str, *, most: int = LONGEST) -> Text:
    """Text from data for the terminal, which must neither be read as markup nor steer it."""
    return Text(clean(text, most=most))
