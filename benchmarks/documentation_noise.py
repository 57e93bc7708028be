"""The noise and the map of docs/reading_an_influence_distribution.md."""

import numpy as np
import scipy.stats
from matplotlib import ticker

from benchmarks.documentation_drawing import (
    LIGHT,
    Drawing,
    Study,
    extreme,
    panels,
    small_png,
)
from benchmarks.documentation_reading import DUPLICATED, NATS, UNIQUE
from influence_jax.report.theme import legend, plain_number


def noise(study: Study) -> tuple[str, bytes]:
    """The bulk: its width is the standard error; and all z-scores beside a normal curve."""
    figure, (left, right) = panels(2, height=3.1)
    target = study.position(UNIQUE)
    edges = np.linspace(-0.3, 0.3, 49)
    points = np.linspace(-0.3, 0.3, 400)
    for name, (values, errors), colour in (
        ('difference of means', study.difference, LIGHT.neutral),
        ('adjusted', study.adjusted, LIGHT.positive),
    ):
        others = np.delete(values[:, target], target)
        error = float(np.median(errors[:, target]))
        print(f'noise: {name}: deviation {others.std():.4f}, median standard error {error:.4f}')
        left.hist(others, edges.tolist(), color=colour, alpha=0.6, label=name)
        expected = len(others) * (edges[1] - edges[0]) * scipy.stats.norm.pdf(points, 0, error)
        left.plot(points, expected, color=colour, linewidth=1.6)
    left.set(xlim=(-0.3, 0.3), xlabel=NATS, ylabel='examples')
    left.legend(handlelength=1.0, **legend(LIGHT))
    left.grid(visible=False, axis='x')

    off = ~np.eye(study.examples, dtype=bool)
    z = (study.adjusted.values / study.adjusted.standard_error)[off]
    labels = study.dataset.arrays['label']
    apart = (labels[:, None] != labels[None, :])[off]
    far = z[apart]
    print(
        f'  z of {z.size:,} entries off the diagonal: deviation {z.std():.3f}, of the {far.size:,} '
        f'between classes {far.std():.3f}, {np.mean(np.abs(far) > 1.96):.2%} beyond 1.96\n'
        f'  beyond 5: {(z > 5).sum():,} above, {(z < -5).sum():,} below '
        f'(noise: {z.size * scipy.stats.norm.sf(5):.1f} each)'
    )
    print(f'  z from {z.min():.1f} to {z.max():.1f}')
    for side, beyond in (('above', z > 5), ('below', z < -5)):
        print(f'  of one class: {(~apart)[beyond].sum():,} of the {beyond.sum():,} {side}')
    pairs = np.argwhere(off)
    for k in np.argsort(z)[:3]:
        example, on = pairs[k]
        print(
            f'  {study.dataset.names[example]} on {study.dataset.names[on]}: '
            f'{study.adjusted.values[example, on]:.2f}, z {z[k]:.1f}'
        )
    bins = np.arange(-12, 32.25, 0.25)
    counts = np.histogram(z, bins)[0]
    right.stairs(np.maximum(counts, 0.1), bins, fill=True, baseline=0.1, color=LIGHT.neutral)
    wide = np.linspace(-10, 10, 801)
    right.plot(
        wide,
        np.maximum(z.size * 0.25 * scipy.stats.norm.pdf(wide), 1e-3),
        color=LIGHT.negative,
        linewidth=1.6,
        label='noise alone: the normal curve',
    )
    right.set_yscale('log')
    right.set(
        xlim=(-12, 32),
        ylim=(0.6, 3e6),
        xlabel='z: influence / its standard error',
        ylabel='pairs of images',
    )
    right.yaxis.set_minor_locator(ticker.NullLocator())
    right.legend(handlelength=1.2, **legend(LIGHT))
    for x, y, text in (
        (19, 600, 'real influences:\nlook-alikes of one class'),
        (-8.2, 3000, 'between\nclasses'),
    ):
        right.text(x, y, text, fontsize=9.5, color=LIGHT.muted, ha='center')
    return 'reading-noise', small_png(figure)


def map_of_targets(study: Study) -> tuple[str, bytes]:
    """All targets by self-influence and strongest other influence: lines of equal margin."""
    figure, (axes,) = panels(1, height=4.3)
    values, errors = map(np.asarray, study.adjusted)
    own = np.diag(values)
    without = values.copy()
    np.fill_diagonal(without, -np.inf)
    other = without.max(axis=0)
    error = np.median(errors, axis=0)
    reach = error * extreme(study.examples - 1)
    shown = (own > 0) & (other > 0)
    for duplicated, colour, marker, size, name in (
        (False, LIGHT.neutral, 'o', 9, 'no near-duplicate'),
        (True, LIGHT.negative, 'D', 20, 'has a near-duplicate'),
    ):
        some = shown & (study.duplicated == duplicated)
        axes.scatter(
            own[some],
            other[some],
            s=size,
            color=colour,
            marker=marker,
            alpha=0.75,
            edgecolors=LIGHT.card,
            linewidths=0.2,
            label=f'{name} ({some.sum():,})',
        )
        margin = np.median((own / other)[some])
        print(
            f'map_of_targets: {name}: {some.sum()} shown, median self-influence '
            f'{np.median(own[some]):.3f}, strongest other {np.median(other[some]):.3f} '
            f'({np.median((other / reach)[some]):.2f} of what noise reaches), '
            f'median own / other {margin:.2f}'
        )
    for example_id, name, offset in (
        (UNIQUE, 'the dog', (10, -22)),
        (DUPLICATED, 'the hamburger', (-104, 16)),
    ):
        target = study.position(example_id)
        axes.annotate(
            name,
            (own[target], other[target]),
            offset,
            textcoords='offset points',
            fontsize=9.5,
            color=LIGHT.text,
            arrowprops={'arrowstyle': '-', 'color': LIGHT.text, 'linewidth': 0.8},
        )
    axes.set_xscale('log')
    axes.set_yscale('log')
    low, high = 1.5e-4, 8
    axes.set(xlim=(low, high), ylim=(low, high))
    print(f'  {((own < low) | (other < low)).sum()} targets outside of the axes')
    for margin in (1, 2, 5, 20):
        axes.plot([low, high], [low / margin, high / margin], color=LIGHT.muted, linewidth=0.8)
        axes.text(
            high * 1.08,
            high / margin,
            f'margin {margin}',
            va='center',
            color=LIGHT.muted,
            fontsize=9.5,
        )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(plain_number))
        axis.set_minor_locator(ticker.NullLocator())
    axes.set(xlabel='self-influence (nats)', ylabel='strongest other influence (nats)')
    axes.legend(markerscale=1.6, handletextpad=0.2, **legend(LIGHT))
    return 'reading-map', small_png(figure)


FIGURES: tuple[Drawing, ...] = (noise, map_of_targets)
