"""Scores of attribution beside the ensemble's influences: a table, the strongest examples, a file.

Scores have no error bars, and each method its own unit: what can be compared is their order.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy
from jaxtyping import Float, Int

from influence_jax import analysis
from influence_jax.estimators import Columns, joint_margin, summarize
from influence_jax.formatting import MISSING, number
from influence_jax.report.results import Attributed, Results
from influence_jax.report.sections import Cell, Gallery, GalleryRow, Section, Table, filled

STRONGEST = 8

ROWS = 8
"""Targets of lowest margin whose strongest examples are shown."""


def attributed(columns: Columns, self_index: Int[np.ndarray, ' T']) -> Attributed:
    """What a report keeps of a method's scores `[N T]`, read block by block.

    Raises:
        ValueError: they are of other examples or targets.
    """
    if columns.targets != len(self_index):
        raise ValueError(
            f'{columns.method.title} has scores for {columns.targets} targets, and the run '
            f'{len(self_index)}: give scores of the same records'
        )
    found = summarize(columns, target_examples=self_index, top_k=STRONGEST)
    return Attributed(
        columns.method,
        columns.unit,
        found.self_influence,
        found.margin,
        found.strongest_other,
        found.other_value,
        found.top_examples,
        found.top_values,
    )


def attribution_section(results: Results) -> Iterator[Section]:
    """Yields the section of the page, where there are scores."""
    if not results.attributed:
        return
    targets = results.overview.lowest_margin[:ROWS].tolist()
    yield Section(
        'Cheaper attribution, beside the ensemble',
        'Scores of a few trained models for what the ensemble measures. They have no error bars '
        'and units of their own: compare their order. AUROC: how well a low margin finds targets '
        'that have near-duplicates. Same other: of the targets whose strongest other example is no '
        'noise to the ensemble, the share for which the method names the same. Self: rank '
        'correlation with self-influence. Joint margin: the mean rank of a target by all margins, '
        'as a share of the targets. Below, the strongest examples for the targets of lowest '
        'margin. All is in attribution.csv.',
        (_table(results), _gallery(results, targets)),
    )


def attribution_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """Yields the ensemble, each method, and all together: the name, and what `HEADER` says."""
    summary = results.summary
    ensemble = Attributed(
        results.method,
        results.unit,
        summary.self_influence,
        summary.margin,
        summary.strongest_other,
        summary.other_value,
        summary.top_examples,
        summary.top_values,
    )
    sure = summary.other_stands_out
    for one in (ensemble, *results.attributed):
        same = MISSING
        if one is not ensemble and sure.any():
            same = f'{(one.strongest_other == summary.strongest_other)[sure].mean():.0%}'
        yield (
            one.method.title if one is not ensemble else f'ensemble, {one.method.title}',
            _median(one.margin),
            _auroc(results, one.margin),
            same,
            MISSING if one is ensemble else _alike(one.self_score, summary.self_influence),
        )
    joint = jointly(results)
    yield 'all of them, joint margin', _median(joint), _auroc(results, joint), MISSING, MISSING


def jointly(results: Results) -> Float[np.ndarray, ' T']:
    """`estimators.joint_margin` of the ensemble and all methods: low where all margins are."""
    return joint_margin(results.summary.margin, *(one.margin for one in results.attributed))


HEADER = ('', 'margin', 'AUROC', 'same other', 'self')
"""Of the rows; medians over targets of margins."""


def _table(results: Results) -> Table:
    rows = [[Cell(text) for text in row] for row in attribution_rows(results)]
    return filled(Table('The ensemble and the methods, over all targets.', HEADER, rows))


def _gallery(results: Results, targets: Sequence[int]) -> Gallery:
    def strip(
        examples: Int[np.ndarray, ' K'], values: Float[np.ndarray, ' K']
    ) -> list[tuple[int, str]]:
        return [
            (example, number(value))
            for example, value in zip(examples.tolist(), values, strict=True)
        ][:STRONGEST]

    rows = []
    for target in targets:
        summary = results.summary
        strips = [('ensemble', strip(summary.top_examples[target], summary.top_values[target]))]
        strips += [
            (one.method.title, strip(one.examples[target], one.scores[target]))
            for one in results.attributed
        ]
        rows.append(GalleryRow(results.example_of(target), results.target_name(target), strips))
    return Gallery(rows)


def _auroc(results: Results, margin: Float[np.ndarray, ' T']) -> str:
    truth, known = results.near_duplicates, ~np.isnan(margin)
    if truth is None or not 0 < truth[known].sum() < known.sum():
        return MISSING
    return number(analysis.auroc(-margin[known], truth[known]), 3)


def _median(values: Float[np.ndarray, ' T']) -> str:
    known = values[~np.isnan(values)]
    return number(np.sort(known)[len(known) // 2]) if len(known) else MISSING


def _alike(scores: Float[np.ndarray, ' T'], own: Float[np.ndarray, ' T']) -> str:
    known = np.isfinite(scores) & np.isfinite(own)
    if known.sum() < 2 or np.ptp(scores[known]) == 0 or np.ptp(own[known]) == 0:
        return MISSING
    return number(float(scipy.stats.spearmanr(scores[known], own[known]).statistic), 2)
