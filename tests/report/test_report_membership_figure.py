import numpy as np
import pytest
from influence_jax.report.figure_style import png

from influence_jax.analysis.membership import roc, true_positive_rates
from influence_jax.report import membership_figure
from influence_jax.report.theme import Theme

THEMES = [Theme.light(), Theme.dark()]


def curve(shift, records=4000):
    rng = np.random.default_rng(0)
    included = rng.random(records) < 0.5
    return roc(rng.normal(size=records) + shift * included, included)


@pytest.mark.parametrize('theme', THEMES)
def test_curves_are_exact_and_on_log_axes(theme):
    curves = {'strong': curve(3.0), 'weak': curve(0.5)}
    figure = membership_figure.roc_curves(curves, theme=theme)
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ('log', 'log')
    for line, (name, expected) in zip(axes.lines, curves.items(), strict=False):
        assert line.get_label() == name
        rates = line.get_xdata()
        assert rates[0] == pytest.approx(10 / expected.left_out.size)
        assert rates[-1] == 1
        np.testing.assert_allclose(line.get_ydata(), true_positive_rates(expected, rates))
    assert {line.get_color() for line in axes.lines[:2]} == {theme.positive, theme.negative}
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ['strong', 'weak']
    for axis in (axes.xaxis, axes.yaxis):
        assert axis.get_major_formatter()(0.001, 0) == '0.1 %'
    assert png(figure).startswith(b'\x89PNG')


def test_chance_is_the_diagonal():
    (axes,) = membership_figure.roc_curves({'a': curve(1.0)}, theme=Theme.light()).axes
    diagonal = axes.lines[-1]
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_allclose(axes.get_xlim(), (0.001, 1))
    assert axes.get_ylim()[0] == axes.get_xlim()[0]


def test_six_curves_look_different():
    names = [f'attack {i}' for i in range(6)]
    figure = membership_figure.roc_curves(dict.fromkeys(names, curve(1.0)), theme=Theme.dark())
    lines = figure.axes[0].lines[:6]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 6


def test_tiny_curves_can_be_drawn_and_bad_ones_are_refused():
    tiny = roc(np.array([0.0, 1.0]), np.array([False, True]))
    assert png(membership_figure.roc_curves({'a': tiny}, theme=Theme.light()))
    for curves in ({}, {str(i): tiny for i in range(7)}):
        with pytest.raises(ValueError, match=f'{len(curves)} curves: give 1 to 6'):
            membership_figure.roc_curves(curves, theme=Theme.light())
