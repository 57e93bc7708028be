"""One column of the influence matrix as a histogram."""

import numpy as np
from jaxtyping import Float, Int
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from influence_jax.report.figure_style import UNIT, empty_axes, plain_number
from influence_jax.report.theme import Theme


def distribution(
    column: Float[np.ndarray, ' N'],
    standard_error: Float[np.ndarray, ' N'],
    *,
    own: int | None,
    other: int,
    theme: Theme,
    siblings: Int[np.ndarray, ' _'] | None = None,
    reach: tuple[float, float] | None = None,
    size: tuple[float, float] = (3.7, 2.5),
    unit: str = UNIT,
) -> Figure:
    """One target's influence distribution, with itself and its strongest other marked.

    Args:
        column: influence of every example on the target.
        standard_error: of each.
        own: the example that the target is; None where it is none.
        other: its strongest other example.
        theme: colours.
        siblings: examples known to be its near-duplicates, marked instead of the strongest other;
            None or empty where there are none.
        reach: lowest and highest influence of the axis; by default those of the column.
        size: width and height in inches.
        unit: of the influences, for labels.
    """
    figure, axes = empty_axes(theme, width=size[0], height=size[1])
    others, others_name = [other], 'strongest other'
    if siblings is not None and len(siblings):
        others, others_name = siblings.tolist(), f'near-duplicates ({len(siblings)})'
    rest = np.delete(column, [*others, *([] if own is None else [own])])
    low, high = (column.min(), column.max()) if reach is None else reach
    edges = np.linspace(min(low, 0.0), max(high, 0.0) or 1.0, 49)
    axes.hist(rest, edges.tolist(), color=theme.neutral, edgecolor=theme.card, linewidth=0.4)
    axes.set_yscale('log')
    top = max(np.histogram(rest, edges)[0].max(), 1)
    axes.set_ylim(0.6, top * 40)  # room above the bars for the two marks
    for examples, name, colour, height in (
        (others, others_name, theme.negative, 3.5),
        ([] if own is None else [own], 'itself', theme.positive, 14.0),
    ):
        if examples:
            values, errors = column[examples], standard_error[examples]
            _mark(axes, values, errors, name, colour, height=top * height, edges=edges)
    if reach is not None:
        margin = 0.03 * (edges[-1] - edges[0])
        axes.set_xlim(edges[0] - margin, edges[-1] + margin)
    axes.grid(visible=False, axis='x')
    decades = 10.0 ** np.arange(np.floor(np.log10(top)) + 1)
    axes.yaxis.set_major_locator(ticker.FixedLocator(decades.tolist()))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(plain_number))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.set(xlabel=f'influence ({unit})', ylabel='examples')
    return figure


def _mark(
    axes: Axes,
    values: Float[np.ndarray, ' _'],
    errors: Float[np.ndarray, ' _'],
    name: str,
    colour: str,
    *,
    height: float,
    edges: Float[np.ndarray, ' E'],
) -> None:
    """Points with error bars at one height, and their name on the side with more room."""
    axes.vlines(values, 0.6, height, color=colour, linewidth=1.0, alpha=0.6)
    for value, error in zip(values, errors, strict=True):
        axes.errorbar(value, height, xerr=error, fmt='o', color=colour, markersize=5, capsize=3)
    gap = 0.035 * (edges[-1] - edges[0])
    right_half = values.mean() > (edges[0] + edges[-1]) / 2
    beside = (values - errors).min() - gap if right_half else (values + errors).max() + gap
    axes.annotate(
        name,
        (beside, height),
        ha='right' if right_half else 'left',
        va='center',
        color=colour,
        fontsize=9.5,
        # The line of the other mark may pass behind the name.
        bbox={'facecolor': axes.get_facecolor(), 'edgecolor': 'none', 'pad': 1.5},
    )
