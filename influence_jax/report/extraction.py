"""Sections on texts: clusters in the matrix, what is extracted of the records, the records."""

import math

import numpy as np
from jaxtyping import Bool, Float

from influence_jax.analysis.extraction import Average, longest_common_substring
from influence_jax.analysis.near_duplicate_comparison import Comparison
from influence_jax.analysis.views import Column, at_even_steps
from influence_jax.formatting import MISSING, count, number, plus_minus
from influence_jax.report import figures, matrix
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
    filled,
)
from influence_jax.report.theme import picture
from influence_jax.text import shortened

_SHARED = (
    ' Near-duplicates share most of their answer, so that one written in the place of another has '
    'a high BLEU too: the table keeps them apart.'
)
_LONGEST_TEXT = 400
_SHORTEST_MARK = 4
_CLUSTERS, _OF_A_CLUSTER, _UNIQUE = 3, 5, 6


def cluster_section(results: Results, text: TextResults) -> Section:
    """Returns the section with a block of the influence matrix, its clusters outlined."""
    view = text.view
    limit = matrix.block_limit(view.block, np.eye(len(view.block), dtype=bool))
    alt = (
        f'Heat map of the influence of {len(view.block)} records on one another, '
        f'{count(len(view.clusters), "cluster")} outlined; blue is positive, orange negative.'
    )
    drawn = picture(
        'language-clusters',
        alt,
        figures.matrix_block,
        view.block,
        limit=limit,
        outlines=view.clusters,
        unit=results.unit,
    )
    pixels = matrix.pixel_picture('pixels', alt, view.block, limit=limit)
    rows = [_text(text, target) for target in view.targets.tolist()]
    return Section(
        'Clusters in the influence matrix',
        'Rows are records, columns the same records as targets; blue where the record lowers the '
        'loss on the target. Outlined: the near-duplicates of one record, a blue block where they '
        'stand in for one another; below them unique records. Both are taken at even steps of '
        'self-influence, from the lowest to the highest.',
        [Matrix(pixels, drawn, rows, view.clusters, number(limit))],
    )


def distribution_section(results: Results, text: TextResults) -> Section:
    """Returns the section with the influences on a unique and on a near-duplicated record."""
    columns = [column for column in (text.view.unique, text.view.duplicated) if column is not None]
    highest = (column.values + np.nan_to_num(column.standard_errors) for column in columns)
    reach = (
        min(float(column.values.min()) for column in columns),
        max(float(values.max()) for values in highest),
    )

    def plate(column: Column) -> Plate:
        others = column.values.copy()
        others[column.self_index] = -np.inf
        name = 'duplicated' if len(column.siblings) else 'unique'
        drawn = picture(
            f'language-{name}-distribution',
            f'Histogram of the influences of all records on a {name} one.',
            figures.distribution,
            column.values,
            column.standard_errors,
            self_index=column.self_index,
            other=int(others.argmax()),
            siblings=column.siblings,
            reach=reach,
            size=(5.2, 3.0),
            unit=results.unit,
        )
        return Plate(f'A {name} record', _text(text, column.target), drawn)

    return Section(
        'Influence on a unique and on a duplicated record',
        'The record of middling margin of either kind, on one axis: how strongly every record '
        'influences it, on a log scale of counts, with ±1 standard error where marked.',
        [Plates([plate(column) for column in columns])],
    )


def extraction_section(results: Results, text: TextResults, comparison: Comparison) -> Section:
    """Returns the section on how well records are extracted, against self-influence and margin."""
    near = comparison.near_duplicated

    def plate(score: str, values: np.ndarray, name: str, *, logarithmic: bool) -> Plate:
        drawn = picture(
            f'language-{score}-and-bleu',
            f'Scatter plot of {len(values)} targets: {name} across, BLEU up.',
            figures.bleu_against,
            values,
            text.bleu,
            name=name,
            logarithmic=logarithmic,
            near_duplicates=near if near.any() else None,
        )
        return Plate(f'BLEU against {score}', '', drawn)

    summary = results.summary
    own = f'self-influence ({results.unit})'
    plates = [
        plate('self-influence', summary.self_influence, own, logarithmic=False),
        plate('margin', summary.margin, 'Top-1 Influence Margin (ratio)', logarithmic=True),
    ]
    return Section(
        'What is extracted',
        'How well a model trained on everything completes each record from its prompt (sentence '
        'BLEU of greedy decoding, 1 where all is right), against self-influence and against the '
        'margin. Circles are means of equally many records of a kind.'
        + (_SHARED if near.any() else ''),
        [Plates(plates), extraction_table(text, comparison)],
    )


def extraction_table(text: TextResults, comparison: Comparison) -> Table:
    """Returns how well the two kinds of records are extracted, from whom, and which of clusters."""
    assert comparison.extractable is not None  # Results checks it
    siblings, near, least = text.siblings, comparison.near_duplicated, comparison.extractable_bleu
    reached = text.exact_match | (text.bleu >= least)

    def means(name: str, values: Float[np.ndarray, ' T']) -> list[Cell]:
        return [Cell(name), Cell(_mean(values[~near])), Cell(_mean(values[near]))]

    def average(name: str, of: Average) -> list[Cell]:
        return [
            Cell(name),
            *(Cell(_mean(of.mean[at]), _error(of.standard_error[at])) for at in (~near, near)),
        ]

    def shares(name: str, values: Bool[np.ndarray, ' T'], note: str = '') -> list[Cell]:
        return [Cell(name), Cell(_share(values[~near])), Cell(_share(values[near]), note)]

    nearest = ''
    if near.any():
        alike, others = reached & siblings.as_near, reached & siblings.nearer
        nearest = (
            f'nearest to the record {_share((reached & ~alike & ~others)[near])}, to a '
            f'near-duplicate {_share(others[near])}, to both alike {_share(alike[near])}'
        )
    same_as_sibling = _share(siblings.exact_match[near])
    rows = [
        means('BLEU, a model trained on everything', text.bleu),
        means('BLEU with the nearest of its near-duplicates', siblings.bleu),
        shares('exact match', text.exact_match),
        [Cell('exact match with that near-duplicate'), Cell(MISSING), Cell(same_as_sibling)],
        means('longest common string, share of the answer', text.longest_common_share),
        shares(f'exact match or BLEU of {least:g}', reached, nearest),
        shares('extractable: that, and not nearer to a near-duplicate', comparison.extractable),
    ]
    for name, by_members in text.by_members.items():
        rows += [
            average(f'{name}, members that held the record', by_members.held),
            average(f'{name}, members that did not', by_members.left_out),
        ]
    caption = (
        f'Mean ± standard deviation over the records{" of a kind" if near.any() else ""}. Exact '
        f'match leaves case, punctuation and articles out of account.'
    )
    if not near.any():
        return filled(Table(caption, ('', 'records', ''), rows))
    nearest = 'The nearest near-duplicate has the highest BLEU or, of several, the smallest edit'
    return Table(f'{caption} {nearest} distance.', ('', 'unique', 'near-duplicated'), rows)


def record_section(results: Results, text: TextResults, comparison: Comparison) -> Section:
    """Returns the section with a few clusters and unique records, at even steps of BLEU."""
    bleu, groups = text.bleu, comparison.groups
    duplicated = np.flatnonzero(comparison.near_duplicated)
    unique = np.flatnonzero(~comparison.near_duplicated)

    def records(title: str, targets: np.ndarray) -> Records:
        return Records(title, [_record(results, text, target) for target in targets.tolist()])

    parts = []
    for group in at_even_steps(groups[duplicated], bleu[duplicated], _CLUSTERS)[::-1]:
        cluster = np.flatnonzero(groups == group)
        title = f'A cluster of {count(len(cluster), "record")}'
        parts.append(records(title, cluster[:_OF_A_CLUSTER]))
    if len(unique):
        chosen = at_even_steps(unique, bleu[unique], _UNIQUE)[::-1]
        parts.append(records('Unique records' if len(duplicated) else 'Records', chosen))
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
    summary, siblings = results.summary, text.siblings
    nearest = []
    if siblings.nearest[target] >= 0:
        instead = 'both alike' if siblings.as_near[target] else 'the record'
        nearest = [('nearest to', 'a near-duplicate' if siblings.nearer[target] else instead)]
    return Record(
        prompt=shortened(text.prompts[target].strip(), _LONGEST_TEXT),
        truth=truth,
        change=shortened(text.changes[target], _LONGEST_TEXT),
        decoded=decoded,
        common=(start, start + len(common)),
        numbers=[
            ('BLEU', number(text.bleu[target], 2)),
            ('exact match', 'yes' if text.exact_match[target] else 'no'),
            *nearest,
            ('in common', f'{text.longest_common_share[target]:.0%}'),
            (f'self-influence ({results.unit})', number(summary.self_influence[target])),
            ('margin', number(summary.margin[target])),
        ],
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


def _error(errors: Float[np.ndarray, ' _']) -> str:
    known = errors[np.isfinite(errors)]
    return f'typical standard error {number(float(np.median(known)))}' if known.size else ''
