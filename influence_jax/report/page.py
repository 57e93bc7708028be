"""The one self-contained page and its figures: results in, HTML and PNG files out."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

from influence_jax.estimators import z_scores
from influence_jax.formatting import count, measured, measured_parts, number
from influence_jax.report import figures, matrix
from influence_jax.report.attributed import attribution_section
from influence_jax.report.comparison import comparison_sections
from influence_jax.report.facts import caveats, own_influences
from influence_jax.report.membership import membership_section
from influence_jax.report.pictures import Picture, data_uri
from influence_jax.report.question import influencers, question
from influence_jax.report.results import Results, surest_pairs
from influence_jax.report.sections import check_names
from influence_jax.report.theme import Theme, image_png, picture
from influence_jax.text import ELLIPSIS, LONGEST_NAME, clean, shortened

LOWEST_MARGINS = 16
INFLUENCERS = 8
MOST_FIELDS = 8
"""Columns of a table that are shown of each row."""


class Page(NamedTuple):
    """The page as text, and the figures for the folder beside it."""

    html: str
    figures: tuple[Picture, ...]


def make_page(results: Results) -> Page:
    """Draws and lays out everything; all text of the results is escaped.

    Raises:
        ValueError: a section names a picture as another is named.
    """
    results = _with_short_names(results)
    overview, summary = results.overview, results.summary
    drawn = tuple(_draw(results))
    sections = (
        *comparison_sections(results),
        *attribution_section(results),
        *membership_section(results),
        *results.sections,
    )
    drawn_of_all = (*drawn, *(one for section in sections for one in section.pictures))
    check_names(drawn_of_all)
    html = rendered(
        'report.html.j2',
        title=results.title,
        results=results,
        overview=overview,
        summary=summary,
        sections=sections,
        pictures={one.name: one for one in drawn},
        question=question(results),
        warnings=own_influences(overview),
        caveats=caveats(results),
        key_numbers=_key_numbers(results),
        repeats=results.members_used[0] > summary.members_used,
        matrix_limit=matrix.limit_of(results),
        matrix_pixels=_matrix_pixels(results),
        lowest_margin=overview.lowest_margin[:LOWEST_MARGINS].tolist(),
        surest_pairs=surest_pairs(summary.pairs).tolist(),
        pair_z=z_scores(summary.pairs.values, summary.pairs.standard_errors),
        reliability=overview.convergence and overview.convergence.reliability(summary.members_used),
        influencers=functools.partial(influencers, results, most=INFLUENCERS),
        strip_columns=INFLUENCERS,
        show=shower(results),
    )
    return Page(html, drawn_of_all)


def _with_short_names(results: Results) -> Results:
    def short(text: str) -> str:
        return clean(shortened(text, LONGEST_NAME))

    return dataclasses.replace(
        results,
        example_names=tuple(
            short(results.full_name(example)) for example in range(results.num_examples)
        ),
        example_changes=('',) * results.num_examples,
        example_labels=tuple(map(short, results.example_labels)),
        target_ids=tuple(map(short, results.target_ids)),
    )


def rendered(template: str, **values: Any) -> str:
    """Returns a page of the package's templates, in the colors of both themes."""
    light, dark = (Markup(theme.css()) for theme in (Theme.light(), Theme.dark()))
    return environment().get_template(template).render(light=light, dark=dark, **values)


def environment() -> jinja2.Environment:
    """Returns the package's templates, with what they write numbers and names by."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader('influence_jax.report'),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(number=number, count=count, visible=clean)
    templates.tests.update(nan=math.isnan, saying=_says)
    templates.globals.update(
        measured=measured, measured_parts=measured_parts, picture=Picture.markup
    )
    return templates


def _says(record: Markup, name: str) -> bool:
    """Returns whether what is shown of an example is a text of which the name is the beginning."""
    return bool(record) and record.striptags().startswith(name.removesuffix(ELLIPSIS))


def _finalize(value: object) -> object:
    """Returns what the page may hold of a value: the last to see it before it is escaped."""
    if isinstance(value, Markup):
        return Markup(clean(str(value), most=None, keep='\n'))
    return clean(value) if isinstance(value, str) else value


def _key_numbers(results: Results) -> Iterator[tuple[str, str]]:
    """Yields the numbers at the head of the page, each with what it counts."""
    summary = results.summary
    members, what = results.members_used
    if members:
        yield f'{members:,}', what
    yield f'{results.num_examples:,}', 'examples'
    yield f'{results.num_targets:,}', 'targets'
    for values, what in (
        (summary.self_influence, f'median self-influence, {results.unit}'),
        (summary.margin, 'median margin'),
    ):
        known = sorted(float(value) for value in values if not math.isnan(value))
        if known:
            yield number(known[len(known) // 2]), what
    more = '' if summary.pairs.complete else 'more than '
    yield f'{more}{len(summary.pairs.examples):,}', 'significant pairs'


def _draw(results: Results) -> Iterator[Picture]:
    """Yields the figures of every report, as far as there is something to draw."""
    overview, summary = results.overview, results.summary
    yield picture(
        'influence-matrix',
        'Heat map of a block of the influence matrix; blue is positive, orange negative.',
        figures.matrix_block,
        results,
    )
    for column, target in enumerate(overview.chosen.tolist()):
        yield picture(
            f'distribution-{column + 1}',
            f'Histogram of the influences on {results.target_name(target)}.',
            figures.distribution,
            overview.distributions[:, column],
            overview.distribution_standard_errors[:, column],
            self_index=results.example_of(target),
            other=int(summary.strongest_other[target]),
            unit=results.unit,
        )
    if (np.isfinite(summary.self_influence) & np.isfinite(summary.margin)).any():
        yield picture(
            'self-influence-and-margin',
            f'Scatter plot of {results.num_targets} targets: self-influence across, margin up.',
            figures.self_influence_and_margin,
            results,
        )
    if summary.z_histogram.any():  # there are standard errors
        yield picture(
            'off-diagonal',
            'Histogram of all influences of one example on another, with the noise curve.',
            figures.off_diagonal,
            results,
        )
    if overview.convergence is not None:
        yield picture(
            'convergence',
            'Line plot: correlation between two halves of the ensemble against their size.',
            figures.convergence,
            results,
        )


def _matrix_pixels(results: Results) -> Picture:
    """Returns the matrix for the page, which writes thumbnails around it instead of axes."""
    block, limit = results.overview.matrix_block, matrix.limit_of(results)
    rows, columns = block.shape
    alt = (
        f'Heat map of the influence of {rows} examples on {columns} targets; blue is positive, '
        f'orange negative, entries beyond {number(limit)} {results.unit} are saturated.'
    )
    return matrix.pixel_picture('matrix-pixels', alt, block, limit=limit)


def shower(results: Results) -> Callable[[int | None], Markup]:
    """Returns the markup of an example, by its position, in which all from data is escaped.

    It is a small image, a paragraph, a row of a table, or a name; nothing of None.
    """
    shown = results.shown
    place = {example: i for i, example in enumerate(shown.examples.tolist())}

    @functools.cache
    def show(example: int | None) -> Markup:
        if example is None:
            return Markup()
        i, name = place.get(example), clean(results.example_names[example], most=LONGEST_NAME)
        if i is not None and shown.images is not None:
            pixels = shown.images[i]
            return Markup(
                '<img class="thumbnail" src="{}" alt="{}" width="{}" height="{}">'
            ).format(data_uri(image_png(pixels)), name, pixels.shape[1], pixels.shape[0])
        if i is not None and shown.rows is not None:
            cells = [*zip(shown.columns, shown.rows[i], strict=True)]
            if (more := len(cells) - MOST_FIELDS) > 0:
                cells[MOST_FIELDS:] = [(f'and {more} more', '')]
            fields = (
                Markup('<div><dt>{}</dt><dd>{}</dd></div>').format(
                    clean(column, most=LONGEST_NAME), clean(value, most=LONGEST_NAME)
                )
                for column, value in cells
            )
            return Markup('<dl class="fields">{}</dl>').format(Markup().join(fields))
        text = name if i is None or shown.texts is None else clean(shown.texts[i])
        return Markup('<p>{}</p>').format(text)

    return show
