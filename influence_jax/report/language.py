"""The sections of a run on texts: clusters, distributions, what is extracted, and records."""

import math

import numpy as np
from jaxtyping import Bool, Float

from influence_jax.analysis.extraction import Average, longest_common_substring
from influence_jax.analysis.near_duplicate_comparison import Comparison
from influence_jax.analysis.views import Column, at_even_steps
from influence_jax.report import figures
from influence_jax.report.formatting import MISSING, count, number, plus_minus
from influence_jax.report.results import Results, TextResults
from influence_jax.report.sections import (
    Cell,
    Matrix,
    Plate,
    Plates,
    Record,
    Records,
    Section,
    Table,
)
from influence_jax.report.theme import Picture, Theme, picture
from influence_jax.text import shortened

_LONGEST_TEXT = 400
_SHORTEST_MARK = 4
_CLUSTERS, _OF_A_CLUSTER, _UNIQUE = 3, 5, 6


def cluster_section(results: Results, text: TextResults) -> Section:
    """Returns the section with a block of the influence matrix, its clusters outlined."""
    view, unit = text.view, results.unit
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
        lambda theme: figures.matrix_block(
            view.block, limit=limit, outlines=view.clusters, theme=theme, unit=unit
        ),
    )
    rows = [_text(text, target) for target in view.targets.tolist()]
    return Section(
        'Clusters in the influence matrix',
        'Rows are records, columns the same records as targets; blue where the record lowers the '
        'loss on the target. Outlined: the near-duplicates of one record, a blue block where they '
        'stand in for one another; below them unique records. Both are taken at even steps of '
        'self-influence, from the lowest to the highest.',
        [Matrix(Picture('pixels', light, dark, alt), drawn, rows, view.clusters, number(limit))],
    )


def distribution_section(results: Results, text: TextResults) -> Section:
    """Returns the section with the influences on a unique and on a near-duplicated record."""
    columns = [column for column in (text.view.unique, text.view.duplicated) if column is not None]
    reach = (
        min(float(column.values.min()) for column in columns),
        max(
            float((column.values + np.nan_to_num(column.standard_errors)).max())
            for column in columns
        ),
    )

    def plate(column: Column) -> Plate:
        others = column.values.copy()
        others[column.self_index] = -np.inf
        name = 'duplicated' if len(column.siblings) else 'unique'
        return Plate(
            f'A {name} record',
            _text(text, column.target),
            picture(
                f'language-{name}-distribution',
                f'Histogram of the influences of all records on a {name} one.',
                lambda theme: figures.distribution(
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


def extraction_section(results: Results, text: TextResults, comparison: Comparison) -> Section:
    """Returns the section on how well records are extracted, against self-influence and margin."""

    def plate(file: str, title: str, values: np.ndarray, name: str, logarithmic: bool) -> Plate:
        return Plate(
            title,
            '',
            picture(
                file,
                f'Scatter plot of {len(values)} targets: {name} across, BLEU up.',
                lambda theme: figures.bleu_against(
                    values,
                    text.bleu,
                    name=name,
                    logarithmic=logarithmic,
                    near_duplicates=comparison.near_duplicated,
                    theme=theme,
                ),
            ),
        )

    own, margin = f'self-influence ({results.unit})', 'Top-1 Influence Margin (ratio)'
    return Section(
        'What is extracted',
        'How well a model trained on everything completes each record from its prompt (sentence '
        'BLEU of greedy decoding, 1 where all is right), against self-influence and against the '
        'margin. Circles are means of equally many records of a kind. Near-duplicates share most '
        'of their answer, so that one written in the place of another has a high BLEU too: the '
        'table keeps them apart.',
        [
            Plates(
                [
                    plate(
                        'language-self-influence-and-bleu',
                        'BLEU against self-influence',
                        results.summary.self_influence,
                        own,
                        False,
                    ),
                    plate(
                        'language-margin-and-bleu',
                        'BLEU against margin',
                        results.summary.margin,
                        margin,
                        True,
                    ),
                ]
            ),
            extraction_table(text, comparison),
        ],
    )


def extraction_table(text: TextResults, comparison: Comparison) -> Table:
    """Returns how well the two kinds of records are extracted, from whom, and which of clusters."""
    siblings, near_duplicated = text.siblings, comparison.near_duplicated
    least = comparison.extractable_bleu
    reached = text.exact_match | (text.bleu >= least)

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

    assert comparison.extractable is not None  # Results checks it
    rows = [
        row('BLEU, a model trained on everything', text.bleu),
        row('BLEU with the nearest of its near-duplicates', siblings.bleu),
        share('exact match', text.exact_match),
        share('exact match with that near-duplicate', siblings.exact_match, unique=False),
        row('longest common string, share of the answer', text.longest_common_share),
        share(f'exact match or BLEU of {least:g}', reached, _nearest_to(text, comparison, reached)),
        share('extractable: that, and not nearer to a near-duplicate', comparison.extractable),
    ]
    for name, by_members in text.by_members.items():
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


def record_section(results: Results, text: TextResults, comparison: Comparison) -> Section:
    """Returns the section with a few clusters and unique records, at even steps of BLEU."""
    bleu, groups = text.bleu, comparison.groups
    duplicated = np.flatnonzero(comparison.near_duplicated)
    unique = np.flatnonzero(~comparison.near_duplicated)
    parts = [
        Records(
            f'A cluster of {count(int((groups == group).sum()), "record")}',
            [
                _record(results, text, target)
                for target in np.flatnonzero(groups == group)[:_OF_A_CLUSTER].tolist()
            ],
        )
        for group in at_even_steps(groups[duplicated], bleu[duplicated], _CLUSTERS)[::-1]
    ]
    chosen = at_even_steps(unique, bleu[unique], _UNIQUE)[::-1]
    if len(chosen):
        records = [_record(results, text, target) for target in chosen.tolist()]
        parts.append(Records('Unique records', records))
    return Section(
        'Records, and what was extracted',
        'Left what the model was given and, in bold, what it should have written; in the middle '
        'what it wrote, the longest string in common marked. Taken at even steps of BLEU, from '
        'the highest to the lowest.',
        parts,
    )


def _record(results: Results, text: TextResults, target: int) -> Record:
    truth = shortened(text.completions[target].strip(), _LONGEST_TEXT)
    decoded = shortened(text.decoded[target].strip(), _LONGEST_TEXT)
    common = longest_common_substring(decoded, truth)
    if len(common) < min(_SHORTEST_MARK, len(truth)):
        common = ''
    start = decoded.find(common)
    summary = results.summary
    return Record(
        prompt=shortened(text.prompts[target].strip(), _LONGEST_TEXT),
        truth=truth,
        change=shortened(text.changes[target], _LONGEST_TEXT),
        decoded=decoded,
        common=(start, start + len(common)),
        numbers=[
            ('BLEU', number(text.bleu[target])),
            ('exact match', 'yes' if text.exact_match[target] else 'no'),
            *_nearest(text, target),
            ('in common', f'{text.longest_common_share[target]:.0%}'),
            (f'self-influence ({results.unit})', number(summary.self_influence[target])),
            ('margin', number(summary.margin[target])),
        ],
    )


def _nearest(text: TextResults, target: int) -> list[tuple[str, str]]:
    """Returns whether a near-duplicate is extracted instead; nothing of a unique record."""
    siblings = text.siblings
    if siblings.nearest[target] < 0:
        return []
    instead = 'both alike' if siblings.as_near[target] else 'the record'
    return [('nearest to', 'a near-duplicate' if siblings.nearer[target] else instead)]


def _nearest_to(text: TextResults, comparison: Comparison, reached: Bool[np.ndarray, ' T']) -> str:
    """Returns what is nearest to the decoded texts of near-duplicated records that are reached."""
    siblings, of = text.siblings, comparison.near_duplicated
    if not of.any():
        return ''
    alike, others = reached & siblings.as_near, reached & siblings.nearer
    return (
        f'nearest to the record {_share((reached & ~alike & ~others)[of])}, to a near-duplicate '
        f'{_share(others[of])}, to both alike {_share(alike[of])}'
    )


def _text(text: TextResults, target: int) -> str:
    return shortened(text.prompts[target] + text.completions[target], _LONGEST_TEXT)


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
