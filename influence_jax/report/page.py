"""The one self-contained page: content and pictures in, HTML out."""

import math
from collections.abc import Iterable

import jinja2
from markupsafe import Markup

from influence_jax.report import wording
from influence_jax.report.cautions import cautions
from influence_jax.report.content import Content
from influence_jax.report.drawing import Pictures, matrix_limit, matrix_pixels
from influence_jax.report.gallery import pair_rows, target_rows
from influence_jax.report.picture import Picture
from influence_jax.report.theme import Theme
from influence_jax.text import clean

LOWEST_MARGINS = 16
MOST_MEMORIZED = 24
INFLUENCERS = 8
HELPFUL_PAIRS, HARMFUL_PAIRS = 12, 6


def render(content: Content, pictures: Pictures) -> str:
    """The page as text; everything but `content.show`'s markup is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('influence_jax.report'),
        autoescape=True,
        finalize=_seen,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=wording.number, count=wording.count, visible=clean)
    environment.globals.update(
        measured=wording.measured, measured_parts=wording.measured_parts, picture=Picture.markup
    )
    overview = content.overview
    return environment.get_template('report.html.j2').render(
        content=content,
        overview=overview,
        summary=overview.summary,
        pictures=pictures,
        light=Markup(Theme.light().css()),
        dark=Markup(Theme.dark().css()),
        influencers=INFLUENCERS,
        cautions=cautions(content),
        method=overview.summary.estimator,
        reliability=overview.convergence
        and overview.convergence.reliability(overview.summary.members_used),
        pairs=pair_rows(content, helpful=HELPFUL_PAIRS, harmful=HARMFUL_PAIRS),
        key_numbers=_key_numbers(content),
        matrix_pixels=matrix_pixels(content),
        matrix_limit=matrix_limit(content),
        chosen=target_rows(content, overview.chosen, influencers=0),
        lowest_margin=target_rows(
            content, overview.lowest_margin[:LOWEST_MARGINS], influencers=INFLUENCERS
        ),
        most_memorized=target_rows(
            content, overview.most_memorized[:MOST_MEMORIZED], influencers=0
        ),
    )


def _seen(value: object) -> object:
    """What the page may hold of a value: the last to see it before it is escaped."""
    if isinstance(value, Markup):
        return Markup(clean(str(value), most=None, keep='\n'))
    return clean(value) if isinstance(value, str) else value


def _key_numbers(content: Content) -> Iterable[tuple[str, str]]:
    """The numbers at the head of the page, each with what it counts."""
    summary = content.overview.summary
    yield f'{summary.members_used:,}', 'members'
    yield f'{content.num_examples:,}', 'examples'
    yield f'{content.num_targets:,}', 'targets'
    for values, what in (
        (summary.self_influence, f'median self-influence, {content.unit}'),
        (summary.margin, 'median margin'),
    ):
        known = sorted(float(value) for value in values if not math.isnan(value))
        if known:
            yield wording.number(known[len(known) // 2]), what
    more = '' if summary.pairs.complete else 'more than '
    yield f'{more}{len(summary.pairs.examples):,}', 'significant pairs'
