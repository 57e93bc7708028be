"""Receiver operating characteristics of membership attacks, on log axes."""

from collections.abc import Mapping

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from influence_jax.analysis.membership import Roc, true_positive_rates
from influence_jax.report.figure_style import empty_axes, legend
from influence_jax.report.theme import Theme

_FALSE_POSITIVES_NEEDED = 10
_POINTS = 400


def roc_curves(curves: Mapping[str, Roc], *, theme: Theme) -> Figure:
    """True-positive against false-positive rate of each attack, beside chance.

    Log axes, as only what an attack finds without accusing others counts. Each curve begins where
    ten false positives decide: to the left of that it would be the luck of a few records.

    Args:
        curves: by the attack's name; at most 6.
        theme: colours.

    Raises:
        ValueError: no curve, or more than can be told apart.
    """
    strokes = [
        (colour, dash)
        for dash in ('-', (0, (4, 1.6)))
        for colour in (theme.positive, theme.negative, theme.text)
    ]
    if not 1 <= len(curves) <= len(strokes):
        raise ValueError(f'{len(curves)} curves: give 1 to {len(strokes)}')
    figure, axes = empty_axes(theme, width=5.2, height=4.4)
    for (name, curve), (colour, dash) in zip(curves.items(), strokes, strict=False):
        first = min(_FALSE_POSITIVES_NEEDED / curve.left_out.size, 1.0)
        rates = np.geomspace(first, 1.0, _POINTS)
        rates[-1] = 1.0
        found = true_positive_rates(curve, rates)
        axes.plot(rates, found, color=colour, linestyle=dash, linewidth=1.6, label=name)
    _log_square(axes)
    axes.plot(axes.get_xlim(), axes.get_xlim(), color=theme.muted, linewidth=1.0, linestyle=':')
    low = axes.get_xlim()[0]
    axes.annotate(
        'chance',
        (np.sqrt(low), np.sqrt(low)),
        xytext=(5, -9),
        textcoords='offset points',
        color=theme.muted,
        fontsize=9.5,
    )
    axes.legend(handlelength=2.2, **{**legend(theme), 'ncols': min(3, len(curves))})
    axes.set(xlabel='false-positive rate', ylabel='true-positive rate')
    return figure


def _log_square(axes: Axes) -> None:
    """The same whole decades on both axes."""
    drawn = np.concatenate([np.ravel(line.get_xydata()) for line in axes.lines])
    lowest = 10.0 ** np.floor(np.log10(drawn[drawn > 0].min()) + 1e-9)
    low = float(min(lowest, 0.1))
    axes.set(xscale='log', yscale='log', xlim=(low, 1.0), ylim=(low, 1.06))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.LogLocator(numticks=12))
        axis.set_minor_locator(ticker.NullLocator())
        axis.set_major_formatter(ticker.FuncFormatter(_percent))


def _percent(value: float, _: int) -> str:
    return f'{100 * value:g} %'
