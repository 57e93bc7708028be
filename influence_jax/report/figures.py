"""The report's figures: arrays in, one matplotlib figure a function out.

No pyplot and no global style, so that drawing leaves no trace in the caller's matplotlib.
Influences and standard errors are in nats unless another `unit` is named, positive where the
example lowers the loss.
"""

import io

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from PIL import Image

from influence_jax.analysis.convergence import Convergence
from influence_jax.report.figure_style import UNIT, empty_axes, legend, plain_number
from influence_jax.report.theme import Theme
from influence_jax.report.wording import MINUS


def block_limit(block: Float[np.ndarray, 'b c'], is_self: Bool[np.ndarray, 'b c']) -> float:
    """Where the matrix's colours saturate: the 99.5 % quantile of |other entries|.

    Self-influence is many times larger than any other influence; scaled to it, every other entry
    would look white.
    """
    others = np.abs(block[~is_self])
    others = others[np.isfinite(others)]
    limit = float(np.quantile(others, 0.995)) if others.size else 0.0
    return limit or 1.0


def matrix_block(
    block: Float[np.ndarray, 'b c'], *, limit: float, theme: Theme, unit: str = UNIT
) -> Figure:
    """A piece of the influence matrix: rows are examples, columns targets, zero without ink."""
    figure, axes = empty_axes(theme, width=6.0, height=5.2)
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
    bar.ax.tick_params(length=0, labelsize=9.5, labelcolor=theme.muted)
    bar.set_label(f'influence ({unit})', color=theme.text, fontsize=10.5)
    return figure


def matrix_pixels(block: Float[np.ndarray, 'b c'], *, limit: float, theme: Theme) -> bytes:
    """The same piece as a PNG of one pixel an entry, to be scaled up between thumbnails."""
    colours = theme.diverging()(CenteredNorm(0.0, limit)(block), bytes=True)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(colours)[..., :3]).save(buffer, 'PNG')
    return buffer.getvalue()


def self_influence_and_margin(
    self_influence: Float[np.ndarray, ' T'],
    margin: Float[np.ndarray, ' T'],
    *,
    standard_error: float,
    near_duplicates: Bool[np.ndarray, ' T'] | None,
    theme: Theme,
    unit: str = UNIT,
) -> Figure:
    """Every target as a point; log margin. Targets without a finite pair are left out.

    Args:
        self_influence: of each target.
        margin: Top-1 Influence Margin of each target.
        standard_error: a typical one of self-influence, drawn once in a corner.
        near_duplicates: targets to highlight.
        theme: colours.
        unit: of the influences, for labels.
    """
    figure, axes = empty_axes(theme, width=5.2, height=3.9)
    two_kinds(axes, self_influence, margin, near_duplicates, theme)
    axes.set_yscale('log')
    axes.set_ylim(bottom=0.93)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(plain_number))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    if np.isfinite(standard_error):
        _typical_error(axes, standard_error, theme)
    axes.set(xlabel=f'self-influence ({unit})', ylabel='Top-1 Influence Margin (ratio)')
    return figure


def two_kinds(
    axes: Axes,
    x: Float[np.ndarray, ' T'],
    y: Float[np.ndarray, ' T'],
    near_duplicates: Bool[np.ndarray, ' T'] | None,
    theme: Theme,
) -> None:
    """Every target with a finite pair as a point, those with near-duplicates set apart."""
    finite = np.isfinite(x) & np.isfinite(y)
    crowd = finite if near_duplicates is None else finite & ~near_duplicates
    size = float(np.clip(9000 / max(finite.sum(), 1), 5, 36))
    plain = axes.scatter(
        x[crowd],
        y[crowd],
        s=size,
        color=theme.neutral if near_duplicates is not None else theme.positive,
        alpha=0.6,
        linewidths=0,
    )
    if near_duplicates is not None:
        marked = finite & near_duplicates
        points = axes.scatter(
            x[marked],
            y[marked],
            s=size * 2.2,
            color=theme.negative,
            marker='D',
            edgecolors=theme.card,
            linewidths=0.5,
        )
        axes.legend(
            [points, plain],
            [f'has a near-duplicate ({marked.sum():,})', f'others ({crowd.sum():,})'],
            handletextpad=0.2,
            markerscale=1.4,
            **legend(theme),
        )


def _typical_error(axes: Axes, standard_error: float, theme: Theme) -> None:
    """A horizontal bar of +-1 standard error in the lower right corner."""
    low, high = axes.get_xlim()
    centre = high - 0.06 * (high - low) - standard_error
    where = axes.get_xaxis_transform()
    axes.errorbar(centre, 0.06, xerr=standard_error, color=theme.muted, capsize=3, transform=where)
    axes.text(centre, 0.09, '±1 SE', color=theme.muted, fontsize=9, ha='center', transform=where)
    axes.set_xlim(low, high)


def off_diagonal(
    z_edges: Float[np.ndarray, ' E'], z_histogram: Int[np.ndarray, ' E-1'], *, theme: Theme
) -> Figure:
    """All influences of one example on another, beside what noise alone would look like.

    Args:
        z_edges: ascending, evenly spaced.
        z_histogram: entries, in standard errors of their column's noise, between them; the
            outermost bins hold all that is beyond.
        theme: colours.
    """
    figure, axes = empty_axes(theme, width=5.2, height=3.9)
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


def convergence(curve: Convergence, *, theme: Theme) -> Figure:
    """Agreement of two disjoint halves of the ensemble against the members in each."""
    figure, axes = empty_axes(theme, width=5.2, height=3.9)
    axes.axhline(0.0, color=theme.muted, linewidth=0.8)
    for values, name, colour, marker in (
        (curve.self_influence, 'self-influence', theme.positive, 'o'),
        (curve.margin, 'margin (rank)', theme.text, '^'),
        (curve.significant, 'significant pairs', theme.neutral, 'D'),
        (curve.off_diagonal, 'all other entries', theme.negative, 's'),
    ):
        if np.isfinite(values).any():  # `significant` may be empty
            axes.plot(curve.members, values, marker=marker, markersize=5, color=colour, label=name)
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_locator(ticker.FixedLocator(curve.members.tolist()))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(plain_number))
    values = np.concatenate([*curve[1:5]])
    lowest = float(min(values[np.isfinite(values)], default=0.0))
    axes.set_ylim(min(-0.05, lowest - 0.05), 1.05)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(handlelength=1.6, **legend(theme))
    axes.set(xlabel='members in each half', ylabel='correlation between halves')
    return figure
