"""How every figure of the report looks, without pyplot and without global style."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from influence_jax.report.theme import Theme

DOTS_PER_INCH = 200
UNIT = 'nats'
"""Of influences, where nothing else is said."""


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format='png', facecolor=figure.get_facecolor(), metadata={'Software': None}
    )
    return buffer.getvalue()


def empty_axes(theme: Theme, *, width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure in the report's style; sizes in inches, 100 CSS pixels each."""
    figure = empty_figure(theme, width=width, height=height)
    return figure, style(figure.add_subplot(), theme)


def empty_figure(theme: Theme, *, width: float, height: float) -> Figure:
    """A figure without axes, laid out by itself; sizes as in `empty_axes`."""
    figure = Figure(
        figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=theme.card, layout='constrained'
    )
    FigureCanvasAgg(figure)
    return figure


def style(axes: Axes, theme: Theme) -> Axes:
    """The same axes in the report's style."""
    axes.set_facecolor(theme.card)
    axes.set_axisbelow(True)
    axes.grid(color=theme.line, linewidth=0.8)
    axes.tick_params(which='both', length=0, labelsize=9.5, labelcolor=theme.muted)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(color=theme.text, fontsize=10.5)
    for name, spine in axes.spines.items():
        spine.set(visible=name == 'bottom', color=theme.muted, linewidth=0.8)
    return axes


def legend(theme: Theme) -> dict[str, Any]:
    """In a line above the axes, where it hides nothing."""
    return {
        'loc': 'lower left',
        'bbox_to_anchor': (-0.02, 1.0),
        'ncols': 3,
        'columnspacing': 1.3,
        'fontsize': 9.5,
        'frameon': False,
        'labelcolor': theme.text,
    }


def plain_number(value: float, _: int) -> str:
    """Tick labels such as '0.5' and '100', for `FuncFormatter`."""
    return f'{value:g}'
