"""The tables that only a run on texts has: the paper's on the terminal, and what is given back."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Group

from influence_jax.analysis.extraction import Average, Extraction, HeldOrNot
from influence_jax.analysis.near_duplicate_comparison import Comparison
from influence_jax.report.comparison_tables import terminal_comparison
from influence_jax.report.figure_style import UNIT
from influence_jax.report.sections import Cell, Table
from influence_jax.report.wording import MISSING, number, plus_minus


def language_table(comparison: Comparison, unit: str = UNIT) -> Group:
    """Unique and near-duplicated texts beside those of the paper, for `Console.print`."""
    return terminal_comparison(comparison, beside_paper=True, unit=unit)


def extraction_table(
    extraction: Extraction, near_duplicated: Bool[np.ndarray, 'T'], held: Mapping[str, HeldOrNot]
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
    for name, by_members in held.items():
        rows += [
            average(f'{name}, members that held the record', by_members.held),
            average(f'{name}, members that did not', by_members.left_out),
        ]
    return Table(
        caption=(
            'Mean ± standard deviation over the records of a kind. Exact match leaves case, '
            'punctuation and articles out of account.'
        ),
        header=('', 'unique', 'near-duplicated'),
        rows=rows,
    )


def _mean(values: Float[np.ndarray, '_']) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return MISSING
    deviation = float(known.std(ddof=1)) if known.size > 1 else math.nan
    return plus_minus(float(known.mean()), deviation, 3)


def _standard_error(errors: Float[np.ndarray, '_']) -> str:
    known = errors[np.isfinite(errors)]
    return f'typical standard error {number(float(np.median(known)), 3)}' if known.size else ''
