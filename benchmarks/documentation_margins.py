"""The figures of docs/margins.md: four margins against the members and against the examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.documentation_drawing import (
    LIGHT,
    Drawing,
    Study,
    extreme,
    heading,
    panels,
    small_png,
)
from influence_jax import analysis, estimators
from influence_jax.types import Influence

MEMBERS = (64, 128, 256, 512, 1000)
EXAMPLES = (50, 100, 200, 400, 800, 1567)
REPEATS = 4
FLOOR_ERRORS = 5.0
FLOOR_NATS = 0.25
ESTIMATORS: dict[str, Callable[..., Influence]] = {
    'difference of means': estimators.difference_in_means,
    'adjusted': estimators.adjusted,
}
COLOURS = {'difference of means': LIGHT.muted, 'adjusted': LIGHT.positive}


class Margins(NamedTuple):
    """Of each target."""

    paper: Float[np.ndarray, ' T']
    floored_by_errors: Float[np.ndarray, ' T']
    floored_by_nats: Float[np.ndarray, ' T']
    z: Float[np.ndarray, ' T']


TITLES = (
    "the paper's ratio",
    f'floor of {FLOOR_ERRORS:g} standard errors',
    f'floor of {FLOOR_NATS:g} nats',
    'z margin (standard errors)',
)


def margins_of(influence: Influence, kept: np.ndarray | None = None) -> Margins:
    """All margins of the targets, among the entries `kept` `[N T]` (all by default)."""
    values, errors = map(np.asarray, influence)
    if kept is not None:
        values = np.where(kept, values, -np.inf).astype(np.float32)
    targets = np.arange(values.shape[1])
    first = values.argmax(axis=0)
    largest, largest_error = values[first, targets], errors[first, targets]
    rest = values.copy()
    rest[first, targets] = -np.inf
    second = rest.argmax(axis=0)
    other, other_error = values[second, targets], errors[second, targets]
    floor = np.full_like(largest, FLOOR_NATS)
    return Margins(
        estimators.margin_of_largest(largest, other),
        estimators.floored_margin(largest, other, FLOOR_ERRORS * other_error),
        estimators.floored_margin(largest, other, floor),
        estimators.z_margin(largest, other, largest_error, other_error),
    )


def against_members(study: Study) -> tuple[str, bytes]:
    """Median margins of unique and of near-duplicated targets, by members drawn at random."""
    generator = np.random.default_rng(0)
    medians = np.full((len(ESTIMATORS), 2, 4, len(MEMBERS)), np.nan)
    for m, members in enumerate(MEMBERS):
        repeats = 1 if members == len(study.masks) else REPEATS
        draws = [generator.permutation(len(study.masks))[:members] for _ in range(repeats)]
        for e, estimate in enumerate(ESTIMATORS.values()):
            found = [margins_of(estimate(study.masks[draw], study.losses[draw])) for draw in draws]
            for group, chosen in enumerate((~study.duplicated, study.duplicated)):
                medians[e, group, :, m] = np.mean(
                    [[np.nanmedian(margin[chosen]) for margin in one] for one in found], axis=0
                )
    for name, influence in zip(ESTIMATORS, (study.difference, study.adjusted), strict=True):
        for title, margin in zip(TITLES, margins_of(influence), strict=True):
            low = analysis.auroc(-np.nan_to_num(margin, nan=0.0), study.duplicated)
            print(f'against_members: {name}, AUROC of a low margin, {title}: {low:.3f}')
    figure, axes = panels(2, rows=2, height=6.0)
    for k, (panel, title) in enumerate(zip(axes, TITLES, strict=True)):
        for group, marker in enumerate('oD'):
            for e, name in enumerate(ESTIMATORS):
                panel.plot(
                    MEMBERS,
                    medians[e, group, k],
                    marker=marker,
                    markersize=5.5,
                    linewidth=1.4,
                    linestyle='-' if group == 0 else (0, (2, 2)),
                    color=COLOURS[name],
                    label=f'{name}, {"near-duplicated" if group else "unique"}',
                )
                shown = ', '.join(f'{one:.2f}' for one in medians[e, group, k])
                print(f'against_members: {title}, {"near" if group else "unique"}, {name}: {shown}')
        _logarithmic(panel, MEMBERS, 'members M', ratio=k < 3)
        heading(panel, title)
    _draw_noise(axes[0], study, [(members, study.examples) for members in MEMBERS], MEMBERS)
    _legend(figure, axes[0])
    return 'margins-against-members', small_png(figure)


def against_examples(study: Study) -> tuple[str, bytes]:
    """Median margins of unique targets by how many rows are looked at, own row included."""
    generator = np.random.default_rng(0)
    targets = np.arange(study.examples)
    medians = np.full((len(ESTIMATORS), 4, len(EXAMPLES)), np.nan)
    for n, examples in enumerate(EXAMPLES):
        repeats = 1 if examples == study.examples else REPEATS
        kept = []
        for _ in range(repeats):
            drawn = generator.random((study.examples, study.examples), np.float32)
            drawn[targets, targets] = -1  # every target keeps its own row
            kept.append(drawn <= np.partition(drawn, examples - 1, axis=0)[examples - 1])
        for e, influence in enumerate((study.difference, study.adjusted)):
            found = [margins_of(influence, rows) for rows in kept]
            medians[e, :, n] = np.mean(
                [[np.nanmedian(margin[~study.duplicated]) for margin in one] for one in found],
                axis=0,
            )
    figure, axes = panels(2, rows=2, height=6.0)
    for k, (panel, title) in enumerate(zip(axes, TITLES, strict=True)):
        for e, name in enumerate(ESTIMATORS):
            label = f'{name}, unique'
            panel.plot(
                EXAMPLES,
                medians[e, k],
                marker='o',
                markersize=5.5,
                color=COLOURS[name],
                label=label,
            )
            shown = ', '.join(f'{one:.2f}' for one in medians[e, k])
            print(f'against_examples: {title}, {name}: {shown}')
        _logarithmic(panel, EXAMPLES, 'examples N', ratio=k < 3)
        heading(panel, title)
    sizes = [(len(study.masks), examples) for examples in EXAMPLES]
    _draw_noise(axes[0], study, sizes, EXAMPLES)
    axes[3].set_ylim(0, 30)
    _legend(figure, axes[0])
    return 'margins-against-examples', small_png(figure)


def _draw_noise(
    axes: Axes, study: Study, sizes: list[tuple[int, int]], positions: tuple[int, ...]
) -> None:
    """The median ratio of unique targets if all entries but their own were noise."""
    own = np.diag(study.difference.values)
    # With half of the members on each side the error is 2 sigma / sqrt(M), sigma the deviation of
    # the losses or, for the adjusted estimate, of what its regression leaves.
    deviation = study.losses.std(axis=0, ddof=1)
    left = np.median(study.adjusted.standard_error, axis=0) * np.sqrt(len(study.masks)) / 2
    for what, values in (('sigma', deviation), ('residual sigma', left), ('self-influence', own)):
        print(f'  median {what} of unique targets {np.median(values[~study.duplicated]):.2f} nats')

    def expected(sigma: Float[np.ndarray, ' T'], largest: Callable[[int], float]) -> list[float]:
        return [
            float(
                np.median(
                    (own / (largest(examples - 1) * 2 * sigma / np.sqrt(members)))[
                        ~study.duplicated
                    ]
                )
            )
            for members, examples in sizes
        ]

    wide: dict[str, Any] = {'linewidth': 5, 'alpha': 0.25}
    curves = {
        'difference of means': expected(deviation, extreme),
        'adjusted': expected(left, extreme),
    }
    for name, curve in curves.items():
        axes.plot(positions, curve, color=COLOURS[name], **wide)
        print(f'  noise alone, {name}: {", ".join(f"{one:.2f}" for one in curve)}')
    limit = expected(deviation, lambda n: np.sqrt(2 * np.log(n)))
    print(f'  difference of means, by sqrt(2 ln N): {", ".join(f"{one:.2f}" for one in limit)}')
    axes.plot([], [], color=LIGHT.muted, label='if the rest were noise', **wide)
    axes.plot(
        positions,
        limit,
        color=LIGHT.muted,
        linewidth=1,
        linestyle=(0, (1, 2)),
        label='the same by √(2 ln N)',
    )


def _logarithmic(axes: Axes, ticks: tuple[int, ...], label: str, *, ratio: bool) -> None:
    axes.set_xscale('log')
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f'{value:,.0f}'))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel(label)
    if ratio:
        axes.set_yscale('log')
        axes.yaxis.set_major_locator(
            ticker.LogLocator(subs=(1, 2, 5) if axes.get_ylim()[0] > 0.1 else (1,))
        )
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f'{value:g}'))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        low, _ = axes.get_ylim()
        axes.set_ylim(min(0.9, low), 22)


def _legend(figure: Figure, axes: Axes) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc='outside upper left',
        ncols=3,
        columnspacing=1.2,
        frameon=False,
        fontsize=9.5,
        labelcolor=LIGHT.text,
    )


FIGURES: tuple[Drawing, ...] = (against_members, against_examples)
