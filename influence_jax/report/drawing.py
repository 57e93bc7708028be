"""Which figures a report has, each drawn for light and for dark pages."""

from typing import NamedTuple

import numpy as np

from influence_jax.report import figures
from influence_jax.report.content import Content
from influence_jax.report.distribution_figure import distribution
from influence_jax.report.picture import Picture, picture
from influence_jax.report.theme import Theme
from influence_jax.report.wording import number


class Pictures(NamedTuple):
    """All figures of a report.

    `distributions` are of the overview's chosen targets; there is no `scatter` where no target has
    both a self-influence and a finite margin.
    """

    matrix: Picture
    distributions: tuple[Picture, ...]
    scatter: Picture | None
    off_diagonal: Picture
    convergence: Picture | None

    def all(self) -> tuple[Picture, ...]:
        """In the page's order."""
        rest = (self.scatter, self.off_diagonal, self.convergence)
        return (self.matrix, *self.distributions, *(one for one in rest if one is not None))


def draw(content: Content) -> Pictures:
    """Draws every figure of the report."""
    overview, summary = content.overview, content.overview.summary
    curve = overview.convergence
    return Pictures(
        matrix=picture(
            'influence-matrix',
            'Heat map of a block of the influence matrix; blue is positive, orange negative.',
            lambda theme: figures.matrix_block(
                overview.matrix_block,
                limit=matrix_limit(content),
                theme=theme,
                unit=content.unit,
            ),
        ),
        distributions=tuple(
            _distribution(content, column) for column in range(len(overview.chosen))
        ),
        scatter=_scatter(content),
        off_diagonal=picture(
            'off-diagonal',
            'Histogram of all influences of one example on another, with the noise curve.',
            lambda theme: figures.off_diagonal(summary.z_edges, summary.z_histogram, theme=theme),
        ),
        convergence=curve
        and picture(
            'convergence',
            'Line plot: correlation between two halves of the ensemble against their size.',
            lambda theme: figures.convergence(curve, theme=theme),
        ),
    )


def _scatter(content: Content) -> Picture | None:
    summary = content.overview.summary
    if not (np.isfinite(summary.self_influence) & np.isfinite(summary.margin)).any():
        return None
    return picture(
        'self-influence-and-margin',
        f'Scatter plot of {content.num_targets} targets: self-influence across, margin up.',
        lambda theme: figures.self_influence_and_margin(
            summary.self_influence,
            summary.margin,
            standard_error=content.self_standard_error(),
            near_duplicates=content.near_duplicates,
            theme=theme,
            unit=content.unit,
        ),
    )


def matrix_limit(content: Content) -> float:
    """Influence at which the matrix's colours saturate (nats)."""
    overview = content.overview
    targets = overview.target_examples[overview.block_targets]
    is_self = overview.block_examples[:, np.newaxis] == targets[np.newaxis, :]
    return figures.block_limit(overview.matrix_block, is_self)


def matrix_pixels(content: Content) -> Picture:
    """The matrix for the page, which writes thumbnails around it instead of axes."""
    block, limit = content.overview.matrix_block, matrix_limit(content)
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
        f'orange negative, entries beyond {number(limit)} {content.unit} are saturated.',
    )


def _distribution(content: Content, column: int) -> Picture:
    overview = content.overview
    target = int(overview.chosen[column])
    return picture(
        f'distribution-{column + 1}',
        f'Histogram of the influences on {content.target_name(target)}.',
        lambda theme: distribution(
            overview.distributions[:, column],
            overview.distribution_standard_errors[:, column],
            own=content.example_of(target),
            other=int(overview.summary.strongest_other[target]),
            theme=theme,
            unit=content.unit,
        ),
    )
