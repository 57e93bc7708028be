"""The sections of a run on texts: the paper's table, clusters, what is given back, and records."""

import numpy as np

from influence_jax.analysis.views import Column
from influence_jax.report import figures
from influence_jax.report.comparison_sections import told
from influence_jax.report.comparison_tables import comparison_table
from influence_jax.report.distribution_figure import distribution
from influence_jax.report.language_figures import bleu_against, cluster_matrix
from influence_jax.report.language_records import records
from influence_jax.report.language_results import LanguageResults
from influence_jax.report.language_tables import extraction_table
from influence_jax.report.picture import Picture, picture
from influence_jax.report.sections import Matrix, Plate, Plates, Section
from influence_jax.report.theme import Theme
from influence_jax.report.wording import count, number


def language_sections(results: LanguageResults) -> tuple[Section, ...]:
    """What `report.write` adds to the page of a run on texts."""
    return (
        _paper(results),
        _clusters(results),
        _distributions(results),
        _extraction(results),
        told(results.comparison),
        records(results),
    )


def _paper(results: LanguageResults) -> Section:
    duplicated = results.comparison.near_duplicated
    clusters = len(np.unique(np.asarray(results.groups)[duplicated]))
    return Section(
        'Unique and near-duplicated records',
        f'{count(int((~duplicated).sum()), "record")} without and {int(duplicated.sum()):,} with '
        f'near-duplicates, these in {count(clusters, "cluster")}, beside the numbers of the paper. '
        'There, records with near-duplicates have low self-influence, as each stands in for the '
        'others, and are given back all the same; a low margin shows why.',
        [comparison_table(results.comparison, beside_paper=True, unit=results.unit)],
    )


def _clusters(results: LanguageResults) -> Section:
    view, unit = results.view, results.unit
    limit = figures.block_limit(view.block, np.eye(len(view.block), dtype=bool))
    light, dark = (
        figures.matrix_pixels(view.block, limit=limit, theme=theme)
        for theme in (Theme.light(), Theme.dark())
    )
    alt = (
        f'Heat map of the influence of {len(view.block)} records on one another, '
        f'{count(len(view.clusters), "cluster")} outlined; blue is positive, orange negative.'
    )
    drawn = picture(
        'language-clusters',
        alt,
        lambda theme: cluster_matrix(
            view.block, view.clusters, limit=limit, theme=theme, unit=unit
        ),
    )
    rows = [results.text(target) for target in view.targets.tolist()]
    return Section(
        'Clusters in the influence matrix',
        'Rows are records, columns the same records as targets; blue where the record lowers the '
        'loss on the target. Outlined: the near-duplicates of one record, a blue block where they '
        'stand in for one another; below them unique records. Both are taken at even steps of '
        'self-influence, from the lowest to the highest.',
        [Matrix(Picture('pixels', light, dark, alt), drawn, rows, view.clusters, number(limit))],
    )


def _distributions(results: LanguageResults) -> Section:
    columns = [c for c in (results.view.unique, results.view.duplicated) if c is not None]
    reach = (
        min(float(column.values.min()) for column in columns),
        max(float((column.values + column.standard_errors).max()) for column in columns),
    )

    def plate(column: Column) -> Plate:
        others = column.values.copy()
        others[column.self_index] = -np.inf
        name = 'duplicated' if len(column.siblings) else 'unique'
        return Plate(
            f'A {name} record',
            results.text(column.target),
            picture(
                f'language-{name}-distribution',
                f'Histogram of the influences of all records on a {name} one.',
                lambda theme: distribution(
                    column.values,
                    column.standard_errors,
                    own=column.self_index,
                    other=int(others.argmax()),
                    siblings=column.siblings,
                    reach=reach,
                    size=(5.2, 3.0),
                    theme=theme,
                    unit=results.unit,
                ),
            ),
        )

    return Section(
        'Influence on a unique and on a duplicated record',
        'The record of middling margin of either kind, on one axis: how strongly every record '
        'influences it, on a log scale of counts, with ±1 standard error where marked.',
        [Plates([plate(column) for column in columns])],
    )


def _extraction(results: LanguageResults) -> Section:
    summary, duplicated = results.summary, results.comparison.near_duplicated

    def plate(file: str, title: str, values: np.ndarray, name: str, logarithmic: bool) -> Plate:
        return Plate(
            title,
            '',
            picture(
                file,
                f'Scatter plot of {len(values)} targets: {name} across, BLEU up.',
                lambda theme: bleu_against(
                    values,
                    results.extraction.bleu,
                    name=name,
                    logarithmic=logarithmic,
                    near_duplicates=duplicated,
                    theme=theme,
                ),
            ),
        )

    own = f'self-influence ({results.unit})'
    return Section(
        'What is given back',
        'How well a model trained on everything completes each record from its prompt (sentence '
        'BLEU of greedy decoding, 1 where all is right), against self-influence and against the '
        'margin. Circles are means of equally many records of a kind. Near-duplicates share most '
        'of their answer, so that one written in the place of another has a high BLEU too: the '
        'table tells them apart.',
        [
            Plates(
                [
                    plate(
                        'language-self-influence-and-bleu',
                        'BLEU against self-influence',
                        summary.self_influence,
                        own,
                        False,
                    ),
                    plate(
                        'language-margin-and-bleu',
                        'BLEU against margin',
                        summary.margin,
                        'Top-1 Influence Margin (ratio)',
                        True,
                    ),
                ]
            ),
            extraction_table(results),
        ],
    )
