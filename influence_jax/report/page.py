"""The one self-contained page and its figures: results in, HTML and PNG files out."""

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from influence_jax.report import figures, formatting
from influence_jax.report.caveats import caveats
from influence_jax.report.comparison import auroc_section, kinds_section
from influence_jax.report.gallery import pair_rows, shower, target_rows
from influence_jax.report.language import (
    cluster_section,
    distribution_section,
    extraction_section,
    record_section,
)
from influence_jax.report.results import Results, named
from influence_jax.report.sections import Section, check_names
from influence_jax.report.theme import Picture, Theme, picture
from influence_jax.text import clean

LOWEST_MARGINS = 16
MOST_MEMORIZED = 24
INFLUENCERS = 8


class Page(NamedTuple):
    """The page as text, and the figures for the folder beside it."""

    html: str
    figures: tuple[Picture, ...]


class Pictures(NamedTuple):
    """The figures of every report.

    `distributions` are of the overview's chosen targets; there is no `scatter` where no target has
    both a self-influence and a finite margin, and no `off_diagonal` without standard errors.
    """

    matrix: Picture
    distributions: tuple[Picture, ...]
    scatter: Picture | None
    off_diagonal: Picture | None
    convergence: Picture | None

    def all(self) -> tuple[Picture, ...]:
        """Returns them in the page's order."""
        rest = (self.scatter, self.off_diagonal, self.convergence)
        return (self.matrix, *self.distributions, *(one for one in rest if one is not None))


def make_page(results: Results) -> Page:
    """Draws and lays out everything; all text of the results is escaped.

    Raises:
        ValueError: a section names a picture as another is named.
    """
    results = _with_short_names(results)
    pictures, sections = _draw(results), tuple(sections_of(results))
    drawn = (*pictures.all(), *(one for section in sections for one in section.pictures))
    check_names(drawn)
    return Page(_html(results, pictures, sections), drawn)


def _with_short_names(results: Results) -> Results:
    names = [named(results.full_name(example)) for example in range(results.num_examples)]
    return dataclasses.replace(
        results,
        example_names=tuple(names),
        example_changes=('',) * len(names),
        example_labels=tuple(map(named, results.example_labels)),
        target_ids=tuple(map(named, results.target_ids)),
    )


def sections_of(results: Results) -> Iterable[Section]:
    """Yields what comes before the parts that every page has."""
    comparison, text = results.comparison, results.text
    if comparison:
        yield kinds_section(results, comparison)
        if text:
            yield cluster_section(results, text)
            yield distribution_section(results, text)
            yield extraction_section(results, text, comparison)
        yield auroc_section(comparison)
        if text:
            yield record_section(results, text, comparison)
    yield from results.sections


def _html(results: Results, pictures: Pictures, sections: tuple[Section, ...]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('influence_jax.report'),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=formatting.number, count=formatting.count, visible=clean)
    environment.globals.update(
        measured=formatting.measured,
        measured_parts=formatting.measured_parts,
        picture=Picture.markup,
    )
    overview, example = results.overview, shower(results)
    return environment.get_template('report.html.j2').render(
        results=results,
        overview=overview,
        summary=overview.summary,
        show=example,
        pictures=pictures,
        sections=sections,
        light=Markup(Theme.light().css()),
        dark=Markup(Theme.dark().css()),
        influencers=INFLUENCERS,
        caveats=caveats(results),
        reliability=overview.convergence
        and overview.convergence.reliability(overview.summary.members_used),
        pairs=pair_rows(results, example),
        key_numbers=_key_numbers(results),
        matrix_pixels=_matrix_pixels(results),
        matrix_limit=_matrix_limit(results),
        chosen=target_rows(results, example, overview.chosen, influencers=0),
        lowest_margin=target_rows(
            results, example, overview.lowest_margin[:LOWEST_MARGINS], influencers=INFLUENCERS
        ),
        most_memorized=target_rows(
            results, example, overview.most_memorized[:MOST_MEMORIZED], influencers=0
        ),
    )


def _finalize(value: object) -> object:
    """Returns what the page may hold of a value: the last to see it before it is escaped."""
    if isinstance(value, Markup):
        return Markup(clean(str(value), most=None, keep='\n'))
    return clean(value) if isinstance(value, str) else value


def _key_numbers(results: Results) -> Iterable[tuple[str, str]]:
    """Yields the numbers at the head of the page, each with what it counts."""
    summary = results.summary
    yield f'{summary.members_used:,}', 'members'
    yield f'{results.num_examples:,}', 'examples'
    yield f'{results.num_targets:,}', 'targets'
    for values, what in (
        (summary.self_influence, f'median self-influence, {results.unit}'),
        (summary.margin, 'median margin'),
    ):
        known = sorted(float(value) for value in values if not math.isnan(value))
        if known:
            yield formatting.number(known[len(known) // 2]), what
    more = '' if summary.pairs.complete else 'more than '
    yield f'{more}{len(summary.pairs.examples):,}', 'significant pairs'


def _draw(results: Results) -> Pictures:
    overview, summary = results.overview, results.summary
    off_diagonal = convergence = None
    if (curve := overview.convergence) is not None:
        convergence = picture(
            'convergence',
            'Line plot: correlation between two halves of the ensemble against their size.',
            lambda theme: figures.convergence(curve, theme=theme),
        )
    if summary.z_histogram.any():
        off_diagonal = picture(
            'off-diagonal',
            'Histogram of all influences of one example on another, with the noise curve.',
            lambda theme: figures.off_diagonal(summary.z_edges, summary.z_histogram, theme=theme),
        )
    return Pictures(
        matrix=picture(
            'influence-matrix',
            'Heat map of a block of the influence matrix; blue is positive, orange negative.',
            lambda theme: figures.matrix_block(
                overview.matrix_block,
                limit=_matrix_limit(results),
                theme=theme,
                unit=results.unit,
            ),
        ),
        distributions=tuple(
            _distribution(results, column) for column in range(len(overview.chosen))
        ),
        scatter=_scatter(results),
        off_diagonal=off_diagonal,
        convergence=convergence,
    )


def _scatter(results: Results) -> Picture | None:
    summary = results.summary
    if not (np.isfinite(summary.self_influence) & np.isfinite(summary.margin)).any():
        return None
    return picture(
        'self-influence-and-margin',
        f'Scatter plot of {results.num_targets} targets: self-influence across, margin up.',
        lambda theme: figures.self_influence_and_margin(
            summary.self_influence,
            summary.margin,
            standard_error=results.self_standard_error(),
            near_duplicates=results.near_duplicates,
            theme=theme,
            unit=results.unit,
        ),
    )


def _distribution(results: Results, column: int) -> Picture:
    overview = results.overview
    target = int(overview.chosen[column])
    return picture(
        f'distribution-{column + 1}',
        f'Histogram of the influences on {results.target_name(target)}.',
        lambda theme: figures.distribution(
            overview.distributions[:, column],
            overview.distribution_standard_errors[:, column],
            own=results.example_of(target),
            other=int(overview.summary.strongest_other[target]),
            theme=theme,
            unit=results.unit,
        ),
    )


def _matrix_limit(results: Results) -> float:
    """Returns the influence at which the matrix's colors saturate."""
    overview = results.overview
    targets = overview.target_examples[overview.block_targets]
    is_self = overview.block_examples[:, np.newaxis] == targets[np.newaxis, :]
    return figures.block_limit(overview.matrix_block, is_self)


def _matrix_pixels(results: Results) -> Picture:
    """Returns the matrix for the page, which writes thumbnails around it instead of axes."""
    block, limit = results.overview.matrix_block, _matrix_limit(results)
    light, dark = (
        figures.matrix_pixels(block, limit=limit, theme=theme)
        for theme in (Theme.light(), Theme.dark())
    )
    rows, columns = block.shape
    return Picture(
        'matrix-pixels',
        light,
        dark,
        f'Heat map of the influence of {rows} examples on {columns} targets; blue is positive, '
        f'orange negative, entries beyond {formatting.number(limit)} {results.unit} are saturated.',
    )
