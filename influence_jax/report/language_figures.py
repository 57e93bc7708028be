"""Figures of a run on texts: clusters in the matrix, and what is given back against influence.

No text from data is drawn in a figure, where `$` would be read as mathematics; the page sets it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from influence_jax.report.figure_style import UNIT, empty_axes, plain_number
from influence_jax.report.figures import matrix_block, two_kinds
from influence_jax.report.theme import Theme

_BINS = 4
_FEWEST_IN_A_BIN = 10


def cluster_matrix(
    block: Float[np.ndarray, 'b b'],
    clusters: Sequence[tuple[int, int]],
    *,
    limit: float,
    theme: Theme,
    unit: str = UNIT,
) -> Figure:
    """A block of the influence matrix, its clusters outlined.

    Args:
        block: rows are examples, columns the targets that they are.
        clusters: `(start, end)` of each in the block.
        limit: influence at which colours saturate.
        theme: colours.
        unit: of the influences, for labels.
    """
    figure = matrix_block(block, limit=limit, theme=theme, unit=unit)
    for start, end in clusters:
        corner, side = (start - 0.5, start - 0.5), end - start
        figure.axes[0].add_patch(
            Rectangle(corner, side, side, fill=False, edgecolor=theme.text, linewidth=1.2)
        )
    return figure


def bleu_against(
    score: Float[np.ndarray, ' T'],
    bleu: Float[np.ndarray, ' T'],
    *,
    name: str,
    logarithmic: bool,
    near_duplicates: Bool[np.ndarray, ' T'],
    theme: Theme,
) -> Figure:
    """How well each target is given back against a score of it, and the course of the means.

    Points are moved up or down by at most 0.015, as many share a BLEU of 0 or 1. Lines join the
    means of bins of equally many targets of a kind; a kind too small for two bins has no line.

    Args:
        score: of each target; targets where it is not finite are left out.
        bleu: of each target, in [0, 1].
        name: of the score, with its unit.
        logarithmic: whether the axis of the score is; what is not positive is then left out too.
        near_duplicates: targets to set apart.
        theme: colours.
    """
    figure, axes = empty_axes(theme, width=5.2, height=3.9)
    x = np.where(np.isfinite(score), score, np.nan).astype(np.float64)
    if logarithmic:
        x = np.where(x > 0, x, np.nan)
    moved = bleu + np.random.default_rng(0).uniform(-0.015, 0.015, len(bleu))
    two_kinds(axes, x, moved, near_duplicates, theme)
    if logarithmic and np.isfinite(x).any():
        _logarithmic(axes)
    for kind, colour in ((~near_duplicates, theme.neutral), (near_duplicates, theme.negative)):
        _course(axes, x[kind], bleu[kind], colour, theme)
    axes.set_ylim(-0.05, 1.05)
    axes.set(xlabel=name, ylabel='BLEU of the decoded answer')
    return figure


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale('log')
    low, high = axes.get_xlim()
    narrow = high < 30 * low
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if narrow else (1, 3)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(plain_number))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _course(
    axes: Axes,
    x: Float[np.ndarray, ' _'],
    y: Float[np.ndarray, ' _'],
    colour: str,
    theme: Theme,
) -> None:
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    bins = min(_BINS, len(known) // _FEWEST_IN_A_BIN)
    if bins < 2:
        return
    parts = np.array_split(known[np.argsort(x[known], kind='stable')], bins)
    points = np.array([(np.median(x[part]), y[part].mean()) for part in parts])
    axes.plot(*points.T, color=theme.card, linewidth=4.5)
    axes.plot(
        *points.T,
        color=theme.text,
        linewidth=1.5,
        marker='o',
        markersize=6,
        markerfacecolor=colour,
        markeredgecolor=theme.text,
    )
