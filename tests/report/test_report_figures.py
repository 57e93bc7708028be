import dataclasses
import io

import matplotlib.style
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from influence_jax.analysis.convergence import Convergence
from influence_jax.analysis.membership import points, roc
from influence_jax.report import Results, figures, matrix
from influence_jax.report.figures import bleu_against, distribution
from influence_jax.report.theme import Theme, png
from influence_jax.run import Column

THEMES = [Theme.light(), Theme.dark()]


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize('theme', THEMES)
def test_words_can_be_read_on_every_background(theme):
    """WCAG AA: at least 4.5 : 1."""
    verdicts = (theme.unique, theme.near_duplicated)
    assert not {theme.positive, theme.negative} & {*verdicts}  # those mean help and harm
    for ink in (theme.text, theme.muted, theme.positive, theme.negative, *verdicts):
        for paper in (theme.page, theme.card):
            high, low = sorted([luminance(ink), luminance(paper)], reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, paper)


@pytest.mark.parametrize('theme', THEMES)
def test_matrix_pixels_are_centred_at_zero_and_saturate(theme):
    block = np.array([[0.0, 1.0, 5.0], [-1.0, -5.0, 0.5]])
    png = matrix.matrix_pixels(block, limit=1.0, theme=theme)
    pixels = np.asarray(Image.open(io.BytesIO(png)), float) / 255

    def near(pixel, colour):
        return np.abs(pixel - to_rgb(colour)).max() < 0.01

    assert pixels.shape == (2, 3, 3)
    assert near(pixels[0, 0], theme.card)
    assert near(pixels[0, 1], theme.positive)
    assert near(pixels[0, 2], theme.positive)
    assert near(pixels[1, 0], theme.negative)
    assert near(pixels[1, 1], theme.negative)
    assert not near(pixels[1, 2], theme.positive)


def test_block_limit_ignores_self_influence_and_survives_zeros():
    block = np.full((4, 4), 0.25) + 9.0 * np.eye(4)
    assert matrix.block_limit(block, np.eye(4, dtype=bool)) == pytest.approx(0.25)
    assert matrix.block_limit(np.zeros((3, 3)), np.eye(3, dtype=bool)) == 1.0
    assert matrix.block_limit(np.ones((1, 1)), np.eye(1, dtype=bool)) == 1.0


def errorbars(axes):
    """(x, half width) of every error bar."""
    bars = []
    for container in axes.containers:
        if hasattr(container, 'has_xerr') and container.has_xerr:
            ((low, _), (high, _)) = container.lines[2][0].get_segments()[0]
            bars.append(((low + high) / 2, (high - low) / 2))
    return bars


@pytest.mark.parametrize('own', [None, 3])
def test_distribution_marks_itself_and_the_strongest_other(own):
    rng = np.random.default_rng(0)
    column = rng.normal(size=50)
    column[3], column[7] = 6.0, 4.0
    error = np.linspace(0.1, 0.6, 50)
    figure = distribution(column, error, self_index=own, other=7, theme=Theme.light())
    (axes,) = figure.axes
    expected = [(4.0, error[7])] + ([] if own is None else [(6.0, error[3])])
    np.testing.assert_allclose(errorbars(axes), expected)
    counted = sum(patch.get_height() for patch in axes.patches)
    assert counted == 50 - len(expected)


def test_scatter_shows_finite_targets_and_sets_near_duplicates_apart():
    self_influence = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    margin = np.array([1.1, np.inf, 2.0, 5.0, 9.0])
    near = np.array([True, True, False, False, False])
    figure = figures.self_influence_and_margin(
        self_influence, margin, standard_error=0.5, near_duplicates=near, theme=Theme.light()
    )
    crowd, marked = (figure.axes[0].collections[i].get_offsets() for i in (0, 1))
    np.testing.assert_allclose(crowd, [[3.0, 5.0], [4.0, 9.0]])
    np.testing.assert_allclose(marked, [[1.0, 1.1]])
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ['has a near-duplicate (1)', 'others (2)']
    inks = figure.axes[0].collections[1].get_facecolor()
    np.testing.assert_allclose(inks[0, :3], to_rgb(Theme.light().near_duplicated))


def test_noise_curve_matches_noise():
    z = np.random.default_rng(0).normal(size=400_000)
    edges = np.linspace(-8, 8, 65)
    histogram = np.histogram(z, edges)[0]
    (axes,) = figures.off_diagonal(edges, histogram, theme=Theme.light()).axes
    curve = axes.lines[0]
    centres = (edges[:-1] + edges[1:]) / 2
    expected = np.interp(centres, curve.get_xdata(), curve.get_ydata())
    enough = histogram > 2000
    assert enough.sum() > 10
    np.testing.assert_allclose(histogram[enough], expected[enough], rtol=0.08)
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert (names[0], names[-1]) == ('≤ \N{MINUS SIGN}8', '≥ 8')  # the last bins hold all beyond


def test_convergence_draws_significant_pairs_where_there_are_any():
    half = np.array([0.5, 0.6])
    curve = Convergence(np.array([4, 8]), half, half, half, np.array([0.7, np.nan]), half)
    (axes,) = figures.convergence(curve, theme=Theme.light()).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert 'significant pairs' in labels
    assert len(labels) == 4


def test_convergence_leaves_out_what_is_not_defined():
    curve = Convergence(
        members=np.array([4, 8]),
        self_influence=np.full(2, np.nan),
        off_diagonal=np.array([-0.4, 0.1]),
        margin=np.array([0.2, 0.3]),
    )
    (axes,) = figures.convergence(curve, theme=Theme.light()).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ['margin (rank)', 'all other entries']
    assert axes.get_ylim()[0] < -0.4


def test_figures_name_the_unit():
    zeros, theme = np.zeros(5), Theme.light()
    drawn = [
        distribution(zeros, zeros, self_index=0, other=1, theme=theme, unit='points'),
        figures.matrix_block(np.zeros((1, 1)), limit=1.0, theme=theme, unit='points'),
        figures.self_influence_and_margin(
            zeros, zeros + 2, standard_error=0.1, near_duplicates=None, theme=theme, unit='points'
        ),
    ]
    for figure in drawn:
        labels = [axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
        assert any('(points)' in label for label in labels)
        assert not any('nats' in label for label in labels)


def test_constant_column_and_empty_histogram_can_be_drawn():
    theme = Theme.light()
    zeros = np.zeros(5)
    drawn = [
        distribution(zeros, zeros, self_index=0, other=1, theme=theme),
        figures.off_diagonal(np.array([-1.0, 0.0, 1.0]), np.zeros(2, int), theme=theme),
        figures.matrix_block(np.zeros((1, 1)), limit=1.0, theme=theme),
    ]
    for figure in drawn:
        assert png(figure).startswith(b'\x89PNG')


def test_bleu_figure_sets_kinds_apart_and_leaves_out_what_has_no_place():
    score = np.array([1.0, 2.0, np.nan, np.inf, -1.0, 4.0])
    near = np.array([True, False, False, True, False, False])
    for logarithmic, expected in ((True, 2), (False, 3)):
        figure = bleu_against(
            score,
            np.linspace(0, 1, 6),
            name='margin',
            logarithmic=logarithmic,
            near_duplicates=near,
            theme=Theme.light(),
        )
        (axes,) = figure.axes
        crowd, marked = (axes.collections[i].get_offsets() for i in (0, 1))
        assert (len(crowd), len(marked)) == (expected, 1)
        assert axes.get_xscale() == ('log' if logarithmic else 'linear')
        assert axes.get_xlabel() == 'margin'
    empty = bleu_against(
        np.full(6, np.nan), np.zeros(6), name='', logarithmic=True, near_duplicates=near,
        theme=Theme.dark(),
    )  # fmt: skip
    assert png(empty).startswith(b'\x89PNG')


def test_bleu_figure_draws_means_of_equally_many():
    score, near = np.arange(1.0, 81.0), np.arange(80) >= 40
    figure = bleu_against(
        score,
        score / 100,
        name='',
        logarithmic=False,
        near_duplicates=near,
        theme=Theme.light(),
    )
    _, unique, _, duplicated = figure.axes[0].lines
    np.testing.assert_allclose(unique.get_xdata(), [5.5, 15.5, 25.5, 35.5])
    np.testing.assert_allclose(duplicated.get_ydata(), [0.455, 0.555, 0.655, 0.755])


def test_distribution_marks_the_siblings_instead_of_the_strongest_other():
    column = np.random.default_rng(0).normal(size=50)
    column[3], column[[7, 9]] = 6.0, 4.0
    figure = distribution(
        column,
        np.full(50, 0.1),
        self_index=3,
        other=7,
        siblings=np.array([7, 9]),
        reach=(-5.0, 10.0),
        theme=Theme.light(),
    )
    (axes,) = figure.axes
    assert sum(patch.get_height() for patch in axes.patches) == 47
    assert [text.get_text() for text in axes.texts] == ['near-duplicates (2)', 'itself']
    assert axes.get_xlim()[0] < -5
    assert axes.get_xlim()[1] > 10


def curve(shift, records=4000):
    rng = np.random.default_rng(0)
    included = rng.random(records) < 0.5
    return points(roc(rng.normal(size=records) + shift * included, included))


@pytest.mark.parametrize('theme', THEMES)
def test_curves_are_exact_and_on_log_axes(theme):
    curves = {'strong': curve(3.0), 'weak': curve(0.5)}
    figure = figures.roc_curves(curves, theme=theme)
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ('log', 'log')
    for line, (name, expected) in zip(axes.lines, curves.items(), strict=False):
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack(expected))
    assert {line.get_color() for line in axes.lines[:2]} == {theme.positive, theme.negative}
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ['strong', 'weak']
    for axis in (axes.xaxis, axes.yaxis):
        assert axis.get_major_formatter()(0.001, 0) == '0.1 %'
    assert png(figure).startswith(b'\x89PNG')


def test_chance_is_the_diagonal():
    (axes,) = figures.roc_curves({'a': curve(1.0)}, theme=Theme.light()).axes
    diagonal = axes.lines[-1]
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_allclose(axes.get_xlim(), (0.001, 1))
    assert axes.get_ylim()[0] == axes.get_xlim()[0]


def test_six_curves_look_different():
    names = [f'attack {i}' for i in range(6)]
    figure = figures.roc_curves(dict.fromkeys(names, curve(1.0)), theme=Theme.dark())
    lines = figure.axes[0].lines[:6]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 6


def test_tiny_curves_can_be_drawn_and_bad_ones_are_refused():
    tiny = points(roc(np.array([0.0, 1.0]), np.array([False, True])))
    assert png(figures.roc_curves({'a': tiny}, theme=Theme.light()))
    for curves in ({}, {str(i): tiny for i in range(7)}):
        with pytest.raises(ValueError, match=f'{len(curves)} curves: give 1 to 6'):
            figures.roc_curves(curves, theme=Theme.light())


FROM_RESULTS = (
    figures.matrix_block,
    figures.self_influence_and_margin,
    figures.off_diagonal,
    figures.convergence,
)


@pytest.mark.parametrize('draw', FROM_RESULTS)
def test_a_column_of_a_paper_is_drawn_from_results(arguments, draw):
    before = dict(matplotlib.rcParams)
    results = Results(**arguments)
    with matplotlib.style.context(figures.PAPER):
        figure = draw(results)
        figure.savefig(pdf := io.BytesIO(), format='pdf')
    assert figure.get_size_inches()[0] == pytest.approx(3.25)
    assert figure.axes[0].xaxis.label.get_fontsize() == pytest.approx(8)
    assert b'Type3' not in pdf.getvalue()
    assert dict(matplotlib.rcParams) == before
    for axes in figure.axes:  # nothing is cut off
        box = axes.get_tightbbox().transformed(figure.transFigure.inverted())
        assert box.x0 > -0.01 and box.x1 < 1.01 and box.y0 > -0.01 and box.y1 < 1.01


def test_results_are_drawn_as_their_arrays_are(arguments):
    results, theme = Results(**arguments), Theme.light()
    summary, overview = results.summary, results.overview
    pairs = (
        (figures.off_diagonal, (summary.z_edges, summary.z_histogram), {}),
        (figures.convergence, (overview.convergence,), {}),
        (figures.matrix_block, (overview.matrix_block,), {'limit': matrix.limit_of(results)}),
        (
            figures.self_influence_and_margin,
            (summary.self_influence, summary.margin),
            {
                'standard_error': results.self_standard_error(),
                'near_duplicates': results.near_duplicates,
            },
        ),
    )
    for draw, arrays, more in pairs:
        assert png(draw(results, theme=theme)) == png(draw(*arrays, theme=theme, **more))


def test_a_column_of_a_run_is_drawn_with_itself_and_its_strongest_other():
    values, errors = np.array([0.1, 2.0, 0.7, -0.2], np.float32), np.full(4, 0.1, np.float32)
    column, theme = Column('t', values, errors, 1, tuple('abcd')), Theme.light()
    expected = distribution(values, errors, self_index=1, other=2, theme=theme)
    assert png(distribution(column, theme=theme)) == png(expected)
    without = distribution(values, theme=theme)
    assert [text.get_text() for text in without.axes[0].texts] == ['strongest other']


def test_half_of_a_figures_numbers_is_refused(arguments):
    summary = Results(**arguments).summary
    with pytest.raises(ValueError, match='margins'):
        figures.self_influence_and_margin(summary.self_influence)
    with pytest.raises(ValueError, match='histogram'):
        figures.off_diagonal(summary.z_edges)
    overview = dataclasses.replace(arguments['overview'], convergence=None)
    with pytest.raises(ValueError, match='convergence'):
        figures.convergence(Results(**arguments | {'overview': overview}))
