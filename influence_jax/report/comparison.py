"""Sections on unique and near-duplicated targets and, of texts, on what is extracted of them."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from influence_jax.analysis.extraction import Average, longest_common_substring
from influence_jax.analysis.near_duplicate_comparison import Comparison, ScoreComparison, Spread
from influence_jax.analysis.resampling import Interval
from influence_jax.analysis.views import Column, at_even_steps
from influence_jax.formatting import MISSING, count, decimals, number, plus_minus
from influence_jax.report import figures
from influence_jax.report.results import Reference, Results, TextResults
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


def comparison_sections(results: Results) -> Iterator[Section]:
    """Yields the sections of a run whose near-duplicates are known; none of another."""
    comparison, text = results.comparison, results.text
    if comparison is None:
        return
    two_kinds = bool(comparison.near_duplicated.any())
    if two_kinds:
        yield kinds_section(results, comparison)
    if text:
        if two_kinds:
            yield cluster_section(results, text)
            yield distribution_section(results, text)
        yield extraction_section(results, text, comparison)
    if _is_sought(comparison):
        yield auroc_section(comparison)
    if text:
        yield record_section(results, text, comparison)


def _is_sought(comparison: Comparison) -> bool:
    """Returns whether any AUROC is known: of a kind of which there are both, some and others."""
    return any(
        found is not None and math.isfinite(found.value)
        for score in comparison.scores
        for found in (score.near_duplicates_auroc, score.extractable_auroc)
    )


def kinds_section(results: Results, comparison: Comparison) -> Section:
    """Returns the section on unique and near-duplicated examples."""
    noun, duplicated = results.shown.noun, comparison.near_duplicated
    clusters = count(len(np.unique(comparison.groups[duplicated])), 'cluster')
    unique, others = count(int((~duplicated).sum()), noun), f'{int(duplicated.sum()):,}'
    if results.text is None:
        lead = (
            f'{unique} written once and {others} in {clusters}, each an original '
            f'and its changed variants. Where those of a cluster stand in for one another, '
            f'self-influence is low, as models know the {noun} without this version '
            f'of it; a low margin shows why.'
        )
    elif results.reference is None:
        lead = (
            f'{unique} without and {others} with near-duplicates, these in '
            f'{clusters}. Where those of a cluster stand in for one another, self-influence is '
            f'low; a low margin shows why.'
        )
    else:
        lead = (
            f'{unique} without and {others} with near-duplicates, these in '
            f'{clusters}, beside the numbers of {results.reference.name}. There, records with '
            f'near-duplicates have low self-influence, as each stands in for the others, and are '
            f'given back all the same; a low margin shows why.'
        )
    table = comparison_table(comparison, reference=results.reference, unit=results.unit)
    return Section(f'Unique and near-duplicated {noun}s', lead, [table])


class ScoreTexts(NamedTuple):
    """A score of the two kinds of targets as a page and a terminal write it.

    published: the same of unique, near-duplicated and the ratio elsewhere; '' where there is none.
    """

    unique: str
    unique_median: str
    near_duplicated: str
    near_duplicated_median: str
    ratio: str
    median_ratio: str
    published: tuple[str, str, str]


def score_texts(score: ScoreComparison, reference: Reference | None) -> ScoreTexts:
    """Returns the numbers of a score, so many digits that small ones differ and large are short."""
    unique, near = score.unique, score.near_duplicated
    largest = max(np.nan_to_num(np.abs([unique.mean, near.mean])))
    digits = max(3 if largest < 2 else 2 if largest < 100 else 1, decimals(largest, least=3))

    def both(spread: Spread) -> str:
        if not spread.targets:
            return MISSING
        return plus_minus(spread.mean, spread.standard_deviation, digits)

    published = ('', '', '')
    if reference and (row := reference.rows.get(score.name)):
        published = (
            plus_minus(*row.unique, row.digits),
            plus_minus(*row.near_duplicated, row.digits),
            _ratio(row.unique.mean, row.near_duplicated.mean),
        )
    return ScoreTexts(
        both(unique),
        number(unique.median, digits),
        both(near),
        number(near.median, digits),
        _ratio(unique.mean, near.mean),
        _ratio(unique.median, near.median),
        published,
    )


def _ratio(unique: float, near_duplicated: float) -> str:
    """Returns unique over near-duplicated; a dash where that says nothing."""
    if not (unique > 0 and near_duplicated > 0):
        return MISSING
    return number(unique / near_duplicated if math.isfinite(near_duplicated) else math.nan, 2)


def comparison_table(comparison: Comparison, *, reference: Reference | None, unit: str) -> Table:
    """Returns each score of the two kinds of targets, beside published numbers if there are any."""

    def median(text: str, spread: Spread) -> str:
        infinite = f', {spread.infinite:,} infinite' if spread.infinite else ''
        return f'median {text}{infinite}'

    def row(score: ScoreComparison) -> Iterator[Cell]:
        texts = score_texts(score, reference)
        yield Cell(score.name)
        yield Cell(texts.unique, median(texts.unique_median, score.unique))
        yield Cell(
            texts.near_duplicated, median(texts.near_duplicated_median, score.near_duplicated)
        )
        yield Cell(texts.ratio, texts.median_ratio)
        if reference:
            yield from map(Cell, texts.published)

    caption = (
        'Mean ± standard deviation over the targets of a kind, the median below; ratio: unique '
        f'over near-duplicated, of the means and of the medians. Influences in {unit}.'
    )
    columns = ('unique', 'near-duplicated', 'ratio')
    rows = [list(row(score)) for score in comparison.scores]
    if reference is None:
        return Table(caption, header=('', *columns), rows=rows)
    return Table(
        f'{caption} {reference.name.capitalize()}: {reference.source}.',
        groups=(('', 1), ('this run', 3), (reference.name, 3)),
        header=('', *columns, *columns),
        rows=rows,
    )


def auroc_section(comparison: Comparison) -> Section:
    """Returns the section on which scores mark targets with near-duplicates, and how well."""
    return Section(
        'Which score marks them',
        'AUROC of each score by itself: the probability that a record of the kind sought is '
        'ranked before another, 0.5 for chance; below it the opposite of what is said marks them. '
        f'Intervals of {comparison.level:.0%} are by bootstrap over clusters.',
        [auroc_table(comparison)],
    )


def auroc_table(comparison: Comparison) -> Table:
    """Returns the AUROC of each score, with intervals, for each kind of targets that is sought."""
    duplicated = int(comparison.near_duplicated.sum())
    header = ['', 'what is said to mark them', f'has near-duplicates ({duplicated:,})']
    caption = f'{comparison.level:.0%} intervals; the stroke in the middle is chance.'
    if comparison.extractable is not None:
        header.append(f'extractable ({int(comparison.extractable.sum()):,})')
        caption = (
            'Extractable: the decoded answer matches exactly or reaches a BLEU of '
            f'{comparison.extractable_bleu:g}, and is not nearer to a near-duplicate. {caption}'
        )

    def cells(score: ScoreComparison) -> Iterable[Cell]:
        yield Cell(score.name)
        yield Cell('low values' if score.low_marks else 'high values')
        yield auroc_cell(score.near_duplicates_auroc)
        if comparison.extractable is not None:
            other = score.extractable_auroc
            yield Cell('') if other is None else auroc_cell(other)

    return filled(Table(caption, header, [list(cells(one)) for one in comparison.scores]))


def auroc_cell(found: Interval) -> Cell:
    """Returns an AUROC, its interval below; a dash where there is none."""
    value, low, high = found
    if math.isnan(value):
        return Cell(MISSING)
    drawn = found if math.isfinite(low) else None
    return Cell(number(value, 3), f'{number(low, 3)} to {number(high, 3)}', drawn)


def cluster_section(results: Results, text: TextResults) -> Section:
    """Returns the section with a block of the influence matrix, its clusters outlined."""
    view = text.view
    limit = figures.block_limit(view.block, np.eye(len(view.block), dtype=bool))
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
    pixels = figures.pixel_picture('pixels', alt, view.block, limit=limit)
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
