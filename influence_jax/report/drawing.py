"""Parts that several figures of a report have: points of two kinds, marks, axes, ticks."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from influence_jax.report.theme import Theme, empty_axes, legend, plain_number

_BINS = 4
_FEWEST_IN_A_BIN = 10


def canvas(theme: Theme | None, width: float, height: float) -> tuple[Theme, Figure, Axes]:
    """Returns a theme, by default of matplotlib's style, and an empty figure in it; inches."""
    theme = theme or Theme.of_style()
    return theme, *empty_axes(theme, width=width, height=height)


def two_kinds(
    axes: Axes,
    x: Float[np.ndarray, ' T'],
    y: Float[np.ndarray, ' T'],
    near_duplicates: Bool[np.ndarray, ' T'] | None,
    theme: Theme,
) -> None:
    """Draws every target with a finite pair as a point, near-duplicated ones set apart."""
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
            color=theme.near_duplicated,
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


def typical_error(axes: Axes, standard_error: float, theme: Theme) -> None:
    """Draws a horizontal bar of +-1 standard error in the lower right corner."""
    low, high = axes.get_xlim()
    center = high - 0.06 * (high - low) - standard_error
    where = axes.get_xaxis_transform()
    axes.errorbar(center, 0.06, xerr=standard_error, color=theme.muted, capsize=3, transform=where)
    axes.text(
        center,
        0.09,
        '±1 SE',
        color=theme.muted,
        fontsize=theme.points(9),
        ha='center',
        transform=where,
    )
    axes.set_xlim(low, high)


def mark(
    axes: Axes,
    values: Float[np.ndarray, ' _'],
    errors: Float[np.ndarray, ' _'],
    name: str,
    color: str,
    theme: Theme,
    *,
    height: float,
    edges: Float[np.ndarray, ' E'],
) -> None:
    """Draws points with error bars at one height, and their name on the side with more room."""
    axes.vlines(values, 0.6, height, color=color, linewidth=1.0, alpha=0.6)
    for value, error in zip(values, errors, strict=True):
        axes.errorbar(value, height, xerr=error, fmt='o', color=color, markersize=5, capsize=3)
    gap = 0.035 * (edges[-1] - edges[0])
    right_half = values.mean() > (edges[0] + edges[-1]) / 2
    beside = (values - errors).min() - gap if right_half else (values + errors).max() + gap
    axes.annotate(
        name,
        (beside, height),
        ha='right' if right_half else 'left',
        va='center',
        color=color,
        fontsize=theme.points(9.5),
        # The line of the other mark may pass behind the name.
        bbox={'facecolor': axes.get_facecolor(), 'edgecolor': 'none', 'pad': 1.5},
    )


def course(
    axes: Axes, x: Float[np.ndarray, ' _'], y: Float[np.ndarray, ' _'], color: str, theme: Theme
) -> None:
    """Draws means of equally many points each, from left to right, where there are enough."""
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
        markerfacecolor=color,
        markeredgecolor=theme.text,
    )


def log_square(axes: Axes) -> None:
    """Gives both axes the same whole decades."""
    drawn = np.concatenate([np.ravel(line.get_xydata()) for line in axes.lines])
    lowest = 10.0 ** np.floor(np.log10(drawn[drawn > 0].min()) + 1e-9)
    low = float(min(lowest, 0.1))
    axes.set(xscale='log', yscale='log', xlim=(low, 1.0), ylim=(low, 1.06))
    for axis in (axes.xaxis, axes.yaxis):
        ticks(axis, ticker.LogLocator(numticks=12), lambda value, _: f'{100 * value:g} %')


def ticks(
    axis: Axis, locator: ticker.Locator, label: Callable[[float, int], str] = plain_number
) -> None:
    """Puts labeled ticks where a locator says, and none between them."""
    axis.set_major_locator(locator)
    axis.set_major_formatter(ticker.FuncFormatter(label))
    axis.set_minor_locator(ticker.NullLocator())
