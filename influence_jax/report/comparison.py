"""Sections on unique and near-duplicated targets, and on which scores tell them apart."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from influence_jax.analysis.near_duplicate_comparison import Comparison, ScoreComparison, Spread
from influence_jax.analysis.resampling import Interval
from influence_jax.formatting import MISSING, count, decimals, number, plus_minus
from influence_jax.report.results import Reference, Results
from influence_jax.report.sections import (
    Cell,
    Section,
    Table,
    filled,
)


def comparison_sections(results: Results) -> Iterator[Section]:
    """Yields the sections of a run whose near-duplicates are known; none of another."""
    comparison, text = results.comparison, results.text
    if comparison is None:
        return
    from influence_jax.report.extraction import (  # matplotlib is slow to import
        cluster_section,
        distribution_section,
        extraction_section,
        record_section,
    )

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
