"""The tables that only a run on texts has: the paper's on the terminal, and what is given back."""

import math

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Group

from influence_jax.analysis.extraction import Average
from influence_jax.analysis.near_duplicate_comparison import Comparison, reaches
from influence_jax.report.comparison_tables import terminal_comparison
from influence_jax.report.figure_style import UNIT
from influence_jax.report.language_results import LanguageResults
from influence_jax.report.sections import Cell, Table
from influence_jax.report.wording import MISSING, number, plus_minus


def language_table(comparison: Comparison, unit: str = UNIT) -> Group:
    """Unique and near-duplicated texts beside those of the paper, for `Console.print`."""
    return terminal_comparison(comparison, beside_paper=True, unit=unit)


def extraction_table(results: LanguageResults) -> Table:
    """How well the two kinds of records are given back, by whom, and which of near-duplicates."""
    extraction, siblings, comparison = results.extraction, results.siblings, results.comparison
    near_duplicated, least = comparison.near_duplicated, comparison.extractable_bleu
    reached = reaches(extraction, least)

    def row(name: str, values: Float[np.ndarray, ' T']) -> list[Cell]:
        kinds = (values[~near_duplicated], values[near_duplicated])
        return [Cell(name), *(Cell(_mean(of)) for of in kinds)]

    def average(name: str, of: Average) -> list[Cell]:
        name_cell, *kinds = row(name, of.mean)
        errors = (of.standard_error[~near_duplicated], of.standard_error[near_duplicated])
        notes = (_standard_error(error) for error in errors)
        return [name_cell, *(cell._replace(note=n) for cell, n in zip(kinds, notes, strict=True))]

    def share(
        name: str, values: Bool[np.ndarray, ' T'], note: str = '', *, unique: bool = True
    ) -> list[Cell]:
        of_unique = _share(values[~near_duplicated]) if unique else MISSING
        return [Cell(name), Cell(of_unique), Cell(_share(values[near_duplicated]), note)]

    extractable = comparison.extractable
    assert extractable is not None  # LanguageResults checks it
    rows = [
        row('BLEU, a model trained on everything', extraction.bleu),
        row('BLEU with the nearest of its near-duplicates', siblings.bleu),
        share('exact match', extraction.exact_match),
        share('exact match with that near-duplicate', siblings.exact_match, unique=False),
        row('longest common string, share of the answer', extraction.longest_common_share),
        share(f'exact match or BLEU of {least:g}', reached, _nearest_to(results, reached)),
        share('extractable: that, and not nearer to a near-duplicate', extractable),
    ]
    for name, by_members in results.held.items():
        rows += [
            average(f'{name}, members that held the record', by_members.held),
            average(f'{name}, members that did not', by_members.left_out),
        ]
    return Table(
        caption=(
            'Mean ± standard deviation over the records of a kind. Exact match leaves case, '
            'punctuation and articles out of account. The nearest near-duplicate has the highest '
            'BLEU or, of several, the smallest edit distance.'
        ),
        header=('', 'unique', 'near-duplicated'),
        rows=rows,
    )


def _nearest_to(results: LanguageResults, reached: Bool[np.ndarray, ' T']) -> str:
    """What is nearest to the decoded texts of near-duplicated records that are given back."""
    siblings, of = results.siblings, results.comparison.near_duplicated
    if not of.any():
        return ''
    alike, others = reached & siblings.as_near, reached & siblings.nearer
    return (
        f'nearest to the record {_share((reached & ~alike & ~others)[of])}, to a near-duplicate '
        f'{_share(others[of])}, to both alike {_share(alike[of])}'
    )


def _share(values: Bool[np.ndarray, ' _']) -> str:
    return f'{values.mean():.1%}' if values.size else MISSING


def _mean(values: Float[np.ndarray, ' _']) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return MISSING
    deviation = float(known.std(ddof=1)) if known.size > 1 else math.nan
    return plus_minus(float(known.mean()), deviation, 3)


def _standard_error(errors: Float[np.ndarray, ' _']) -> str:
    known = errors[np.isfinite(errors)]
    return f'typical standard error {number(float(np.median(known)), 3)}' if known.size else ''
