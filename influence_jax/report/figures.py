"""The report's figures: results or arrays in, one matplotlib figure a function out.

For a page of one's own, or a paper:

    import matplotlib.style

    with matplotlib.style.context(figures.PAPER):  # a column of 3.25 inches, fonts embedded
        figures.distribution(run.column('clipart-00203')).savefig('column.pdf')
        figures.self_influence_and_margin(Results.load(DIR)).savefig('margins.pdf')

Without a theme they are drawn in the style that matplotlib is set to.

Influences and standard errors are in nats unless another `unit` is named, positive where the
example lowers the loss; where a standard error is not known (NaN), no bar is drawn. No text from
data is drawn in a figure, where `$` would be read as mathematics; the page sets it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib import ticker
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from influence_jax.analysis.convergence import Convergence
from influence_jax.analysis.membership import Points
from influence_jax.formatting import MINUS
from influence_jax.report.drawing import (
    canvas,
    course,
    log_square,
    mark,
    ticks,
    two_kinds,
    typical_error,
)
from influence_jax.report.matrix import limit_of
from influence_jax.report.results import UNIT, Results
from influence_jax.report.theme import (
    Theme,
    legend,
)

PAPER = str(Path(__file__).with_name('paper.mplstyle'))
"""Style sheet of a column of a paper, for `matplotlib.style.context`: type 42 fonts, 3.25 in."""


def matrix_block(
    block: Results | Float[np.ndarray, 'b c'],
    *,
    limit: float | None = None,
    theme: Theme | None = None,
    outlines: Sequence[tuple[int, int]] = (),
    unit: str = UNIT,
) -> Figure:
    """Draws a piece of the influence matrix: rows are examples, columns targets, zero is no ink.

    Args:
        block: `[b c]` influences; or results, of which the block of the page is drawn.
        limit: influence at which colors saturate; by default the largest of the block or, of
            results, `block_limit`.
        theme: colors and size; by default those that matplotlib is set to.
        outlines: `(start, end)` of blocks on the diagonal to be outlined.
        unit: of the influences, for labels.
    """
    if isinstance(block, Results):
        limit, unit = limit or limit_of(block), block.unit
        block = block.overview.matrix_block
    limit = limit or float(np.nanmax(np.abs(block), initial=0.0)) or 1.0
    theme, figure, axes = canvas(theme, 6.0, 5.2)
    axes.grid(visible=False)
    axes.spines['bottom'].set_visible(False)
    image = axes.imshow(
        block, cmap=theme.diverging(), norm=CenteredNorm(0.0, limit), interpolation='nearest'
    )
    axes.set(xlabel='target (place in the block)', ylabel='example (place in the block)')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    bar = figure.colorbar(image, ax=axes, extend='both', shrink=0.75, aspect=28, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=theme.points(9.5), labelcolor=theme.muted)
    bar.set_label(f'influence ({unit})', color=theme.text, fontsize=theme.points(10.5))
    for start, end in outlines:
        corner, side = (start - 0.5, start - 0.5), end - start
        axes.add_patch(
            Rectangle(corner, side, side, fill=False, edgecolor=theme.text, linewidth=1.2)
        )
    return figure


def self_influence_and_margin(
    self_influence: Results | Float[np.ndarray, ' T'],
    margin: Float[np.ndarray, ' T'] | None = None,
    *,
    standard_error: float = math.nan,
    near_duplicates: Bool[np.ndarray, ' T'] | None = None,
    theme: Theme | None = None,
    unit: str = UNIT,
) -> Figure:
    """Draws every target as a point; log margin. Targets without a finite pair are left out.

    Args:
        self_influence: of each target; or results, which have all but the theme.
        margin: Top-1 Influence Margin of each target.
        standard_error: a typical one of self-influence, drawn once in a corner.
        near_duplicates: targets to highlight.
        theme: colors and size; by default those that matplotlib is set to.
        unit: of the influences, for labels.

    Raises:
        ValueError: no margins.
    """
    if isinstance(self_influence, Results):
        results, summary = self_influence, self_influence.summary
        self_influence, margin, unit = summary.self_influence, summary.margin, results.unit
        standard_error, near_duplicates = results.self_standard_error(), results.near_duplicates
    if margin is None:
        raise ValueError('self-influence is drawn against margins: give both, or Results')
    if near_duplicates is not None and not near_duplicates.any():
        near_duplicates = None
    theme, figure, axes = canvas(theme, 5.2, 3.9)
    two_kinds(axes, self_influence, margin, near_duplicates, theme)
    axes.set_yscale('log')
    axes.set_ylim(bottom=0.93)
    ticks(axes.yaxis, ticker.LogLocator(subs=(1, 2, 5)))
    if np.isfinite(standard_error):
        typical_error(axes, standard_error, theme)
    axes.set(xlabel=f'self-influence ({unit})', ylabel='Top-1 Influence Margin (ratio)')
    return figure


def off_diagonal(
    z_edges: Results | Float[np.ndarray, ' E'],
    z_histogram: Int[np.ndarray, ' E-1'] | None = None,
    *,
    theme: Theme | None = None,
) -> Figure:
    """Draws all influences of one example on another, beside what noise alone would look like.

    Args:
        z_edges: ascending, evenly spaced; or results, which have both.
        z_histogram: entries, in standard errors of their column's noise, between them; the
            outermost bins hold all that is beyond.
        theme: colors and size; by default those that matplotlib is set to.

    Raises:
        ValueError: no histogram.
    """
    if isinstance(z_edges, Results):
        summary = z_edges.summary
        z_edges, z_histogram = summary.z_edges, summary.z_histogram
    if z_histogram is None:
        raise ValueError('edges are of a histogram: give both, or Results')
    theme, figure, axes = canvas(theme, 5.2, 3.9)
    axes.stairs(np.maximum(z_histogram, 0.1), z_edges, fill=True, baseline=0.1, color=theme.neutral)
    points = np.linspace(z_edges[0], z_edges[-1], 801)
    density = np.exp(-0.5 * points**2) / np.sqrt(2 * np.pi)
    expected = int(z_histogram.sum()) * float(z_edges[1] - z_edges[0]) * density
    noise = np.maximum(expected, 1e-3)
    axes.plot(points, noise, color=theme.negative, linewidth=1.6, label='noise alone')
    axes.legend(handlelength=1.4, **legend(theme))
    axes.set_yscale('log')
    axes.set_ylim(0.6, max(int(z_histogram.max()), 1) * 4)
    reach = float(z_edges[-1])
    axes.set_xlim(-1.05 * reach, 1.05 * reach)
    marks = np.linspace(-reach, reach, 9)
    names = [f'{mark:g}'.replace('-', MINUS) for mark in marks]
    axes.set_xticks(marks, [f'≤ {names[0]}', *names[1:-1], f'≥ {names[-1]}'])
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.set(xlabel='influence (standard errors)', ylabel='pairs of example and target')
    return figure


def convergence(curve: Results | Convergence, *, theme: Theme | None = None) -> Figure:
    """Draws the agreement of two disjoint halves of the ensemble against the members in each.

    Args:
        curve: from `analysis.split_half`; or results that have one.
        theme: colors and size; by default those that matplotlib is set to.

    Raises:
        ValueError: the results have none, being of columns without members.
    """
    if isinstance(curve, Results):
        if curve.overview.convergence is None:
            raise ValueError('results without members have no convergence to draw')
        curve = curve.overview.convergence
    theme, figure, axes = canvas(theme, 5.2, 3.9)
    axes.axhline(0.0, color=theme.muted, linewidth=0.8)
    for values, name, color, marker in (
        (curve.self_influence, 'self-influence', theme.positive, 'o'),
        (curve.margin, 'margin (rank)', theme.text, '^'),
        (curve.significant, 'significant pairs', theme.neutral, 'D'),
        (curve.off_diagonal, 'all other entries', theme.negative, 's'),
    ):
        if np.isfinite(values).any():  # `significant` may be empty
            axes.plot(curve.members, values, marker=marker, markersize=5, color=color, label=name)
    axes.set_xscale('log', base=2)
    ticks(axes.xaxis, ticker.FixedLocator(curve.members.tolist()))
    values = np.concatenate([*curve[1:5]])
    lowest = float(min(values[np.isfinite(values)], default=0.0))
    axes.set_ylim(min(-0.05, lowest - 0.05), 1.05)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(handlelength=1.6, **legend(theme))
    axes.set(xlabel='members in each half', ylabel='correlation between halves')
    return figure


@runtime_checkable
class Column(Protocol):
    """One target's influence distribution: `Run.column` returns one, and `analysis.views` has."""

    @property
    def values(self) -> Float[np.ndarray, ' N']:
        """Returns influences."""

    @property
    def standard_errors(self) -> Float[np.ndarray, ' N']:
        """Returns that of each."""

    @property
    def self_index(self) -> int | None:
        """Returns the example that the target is; None where it is none."""


def distribution(
    column: Column | Float[np.ndarray, ' N'],
    standard_error: Float[np.ndarray, ' N'] | None = None,
    *,
    self_index: int | None = None,
    other: int | None = None,
    theme: Theme | None = None,
    siblings: Int[np.ndarray, ' _'] | None = None,
    reach: tuple[float, float] | None = None,
    size: tuple[float, float] = (3.7, 2.5),
    unit: str = UNIT,
) -> Figure:
    """Draws one target's influence distribution, with itself and its strongest other marked.

    Args:
        column: influence of every example on the target; or a `Column`, which has the next two.
        standard_error: of each; None where they are not known.
        self_index: the example that the target is; None where it is none.
        other: its strongest other example; by default the one of largest influence.
        theme: colors and size; by default those that matplotlib is set to.
        siblings: examples known to be its near-duplicates, marked in place of the strongest other;
            None or empty where there are none.
        reach: lowest and highest influence of the axis; by default those of the column.
        size: width and height in inches.
        unit: of the influences, for labels.
    """
    if isinstance(column, Column):
        standard_error, self_index = column.standard_errors, column.self_index
        column = column.values
    if standard_error is None:
        standard_error = np.full(len(column), np.nan)
    if other is None:
        rest = np.arange(len(column)) != (-1 if self_index is None else self_index)
        other = int(np.flatnonzero(rest)[column[rest].argmax()])
    theme, figure, axes = canvas(theme, size[0], size[1])
    others, others_name = [other], 'strongest other'
    if siblings is not None and len(siblings):
        others, others_name = siblings.tolist(), f'near-duplicates ({len(siblings)})'
    rest = np.delete(column, [*others, *([] if self_index is None else [self_index])])
    low, high = (column.min(), column.max()) if reach is None else reach
    edges = np.linspace(min(low, 0.0), max(high, 0.0) or 1.0, 49)
    axes.hist(rest, edges.tolist(), color=theme.neutral, edgecolor=theme.card, linewidth=0.4)
    axes.set_yscale('log')
    top = max(np.histogram(rest, edges)[0].max(), 1)
    axes.set_ylim(0.6, top * 40)  # room above the bars for the two marks
    for examples, name, color, height in (
        (others, others_name, theme.negative, 3.5),
        ([] if self_index is None else [self_index], 'itself', theme.positive, 14.0),
    ):
        if examples:
            values, errors = column[examples], np.nan_to_num(standard_error[examples])
            mark(axes, values, errors, name, color, theme, height=top * height, edges=edges)
    if reach is not None:
        margin = 0.03 * (edges[-1] - edges[0])
        axes.set_xlim(edges[0] - margin, edges[-1] + margin)
    axes.grid(visible=False, axis='x')
    decades = 10.0 ** np.arange(np.floor(np.log10(top)) + 1)
    ticks(axes.yaxis, ticker.FixedLocator(decades.tolist()))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.set(xlabel=f'influence ({unit})', ylabel='examples')
    return figure


def bleu_against(
    score: Float[np.ndarray, ' T'],
    bleu: Float[np.ndarray, ' T'],
    *,
    name: str,
    logarithmic: bool,
    near_duplicates: Bool[np.ndarray, ' T'] | None,
    theme: Theme | None = None,
) -> Figure:
    """Draws how well each target is extracted against a score of it, and the course of the means.

    Points are moved up or down by at most 0.015, as many share a BLEU of 0 or 1. Lines join the
    means of bins of equally many targets of a kind; a kind too small for two bins has no line.

    Args:
        score: of each target; targets where it is not finite are left out.
        bleu: of each target, in [0, 1].
        name: of the score, with its unit.
        logarithmic: whether the axis of the score is; what is not positive is then left out too.
        near_duplicates: targets to set apart, if any.
        theme: colors and size; by default those that matplotlib is set to.
    """
    theme, figure, axes = canvas(theme, 5.2, 3.9)
    x = np.where(np.isfinite(score), score, np.nan).astype(np.float64)
    if logarithmic:
        x = np.where(x > 0, x, np.nan)
    moved = bleu + np.random.default_rng(0).uniform(-0.015, 0.015, len(bleu))
    two_kinds(axes, x, moved, near_duplicates, theme)
    if logarithmic and np.isfinite(x).any():
        axes.set_xscale('log')
        low, high = axes.get_xlim()
        ticks(axes.xaxis, ticker.LogLocator(subs=(1, 2, 5) if high < 30 * low else (1, 3)))
    near = np.zeros(len(bleu), bool) if near_duplicates is None else near_duplicates
    for kind, color in ((~near, theme.neutral), (near, theme.near_duplicated)):
        course(axes, x[kind], bleu[kind], color, theme)
    axes.set_ylim(-0.05, 1.05)
    axes.set(xlabel=name, ylabel='BLEU of the decoded answer')
    return figure


def roc_curves(curves: Mapping[str, Points], *, theme: Theme | None = None) -> Figure:
    """Draws true-positive against false-positive rate of each attack, beside chance.

    Log axes, as only what an attack finds without accusing others counts. Each curve begins where
    ten false positives decide: to the left of that it would be the luck of a few records.

    Args:
        curves: by the attack's name; at most 6.
        theme: colors and size; by default those that matplotlib is set to.

    Raises:
        ValueError: no curve, or more than can be told apart.
    """
    theme, figure, axes = canvas(theme, 5.2, 4.4)
    strokes = [
        (color, dash)
        for dash in ('-', (0, (4, 1.6)))
        for color in (theme.positive, theme.negative, theme.text)
    ]
    if not 1 <= len(curves) <= len(strokes):
        raise ValueError(f'{len(curves)} curves: give 1 to {len(strokes)}')
    for (name, curve), (color, dash) in zip(curves.items(), strokes, strict=False):
        axes.plot(*curve, color=color, linestyle=dash, linewidth=1.6, label=name)
    log_square(axes)
    axes.plot(axes.get_xlim(), axes.get_xlim(), color=theme.muted, linewidth=1.0, linestyle=':')
    low = axes.get_xlim()[0]
    axes.annotate(
        'chance',
        (np.sqrt(low), np.sqrt(low)),
        xytext=(5, -9),
        textcoords='offset points',
        color=theme.muted,
        fontsize=theme.points(9.5),
    )
    axes.legend(handlelength=2.2, **{**legend(theme), 'ncols': min(3, len(curves))})
    axes.set(xlabel='false-positive rate', ylabel='true-positive rate')
    return figure
