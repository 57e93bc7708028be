"""How many models: reliability and standard errors against their number, on a run's tensors.

python -m benchmarks.convergence RUN_DIRECTORY [--figures=PREFIX] [difference adjusted ...]
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from influence_jax import store
from influence_jax.analysis.convergence import (
    Check,
    Convergence,
    StandardErrorCurve,
    least_half,
    members_needed,
    precision,
    spearman_brown,
    split_half,
    standard_error_curve,
)
from influence_jax.estimators import BUILT_IN, Estimator, by_name
from influence_jax.report.theme import Theme, empty_axes, legend, plain_number, png

SIZES = (32, 64, 125, 250, 333, 500)
KINDS = ('self_influence', 'margin', 'significant', 'off_diagonal')
WANTED = (0.1, 0.07, 0.05)
KEY = jax.random.key(0)


def main(arguments: list[str]) -> None:
    names = [a for a in arguments if not a.startswith('--')]
    directory, *chosen = names
    run = store.open_run(directory)
    masks, losses = run.masks[run.complete], run.measurement('loss')[run.complete]
    estimators = [by_name(name) for name in chosen or ('difference', 'adjusted')]
    curves, errors = {}, {}
    for estimator in estimators:
        print(f'\n== {estimator.name}, loss, {len(masks)} members')
        start = time.perf_counter()
        sizes = [size for size in SIZES if size >= least_half(estimator)]
        curves[estimator] = split_half(masks, losses, key=KEY, sizes=sizes, estimator=estimator)
        print_reliability(curves[estimator], time.perf_counter() - start)
        print_whether_errors_are_right(estimator, masks, losses)
        errors[estimator] = standard_error_curve(
            masks, losses, key=KEY, sizes=(48, 64, 125, 250, 500, len(masks)), estimator=estimator
        )
        print_errors(errors[estimator])
        print_growth(estimator, masks, losses)
    for argument in arguments:
        if argument.startswith('--figures='):
            draw(curves, errors, argument.removeprefix('--figures='))


def print_reliability(curve: Convergence, seconds: float) -> None:
    print(f'agreement of halves ({seconds:.0f} s, {curve.significant_pairs[0]:.0f} pairs)')
    print('members     ' + ''.join(f'{m:9}' for m in curve.members))
    for kind in KINDS:
        print(f'{kind:15}' + ''.join(f'{r:9.3f}' for r in getattr(curve, kind)))
    print('reliability of twice as many, by Spearman and Brown')
    for kind in KINDS:
        print(f'{kind:15}' + ''.join(f'{spearman_brown(r):9.3f}' for r in getattr(curve, kind)))
    for members in (1000, 4000, 16000):
        print(curve.reliability(members))


def print_whether_errors_are_right(
    estimator: Estimator, masks: np.ndarray, losses: np.ndarray
) -> None:
    """The difference of two disjoint halves over its standard error, off the diagonal."""
    generator = np.random.default_rng(0)
    sample = np.sort(generator.permutation(losses.shape[1])[:256])
    off = sample[None, :] != np.arange(masks.shape[1])[:, None]
    for size in (24, 32, 48, 64, 125, 250, 500):
        z = []
        for _ in range(4):
            order = generator.permutation(len(masks))
            halves = order[:size], order[size : 2 * size]
            a, b = (
                estimator(masks[h], losses[h][:, sample], target_examples=sample) for h in halves
            )
            z.append(
                (a.values - b.values)[off] / np.hypot(a.standard_error[off], b.standard_error[off])
            )
        print(f'halves of {size:4}: z of their difference {np.std(z):.3f}')


def print_errors(curve: StandardErrorCurve) -> None:
    whole, last = int(curve.members[-1]), float(curve.standard_error[-1])
    print('members  median SE  SE sqrt(M)  predicts the whole needs')
    for members, error in zip(curve.members.tolist(), curve.standard_error.tolist(), strict=True):
        told = members_needed(error, members=members, wanted=last)
        print(f'{members:7} {error:10.4f} {error * members**0.5:11.3f} {told:13,}')
    for wanted in (0.05, 0.03, 0.02, 0.01):
        print(f'for {wanted}: {members_needed(last, members=whole, wanted=wanted):,} members')


def print_growth(estimator: Estimator, masks: np.ndarray, losses: np.ndarray) -> None:
    """Where --until_standard_error would have stopped, members coming eight at a time."""

    def seen(members: int, wanted: float) -> Check:
        found = precision(masks[:members], losses[:members], key=KEY, estimator=estimator)
        return Check(found, wanted, len(masks) - members)

    for wanted in WANTED:
        looks, members = [], max(16, 2 * least_half(estimator))
        seconds = time.perf_counter()
        while True:
            check = seen(members, wanted)
            looks.append(members)
            if check.enough or members == len(masks):
                break
            members = min(-(-check.next_check // 8) * 8, len(masks))
        seconds = (time.perf_counter() - seconds) / len(looks)
        low, high = looks[-2] if len(looks) > 1 else 8, members
        while high - low > 8:  # the fewest that would have done, in steps of eight
            middle = (low + high) // 16 * 8
            low, high = (low, middle) if seen(middle, wanted).enough else (middle, high)
        print(
            f'until {wanted}: looked at {looks}, {seconds:.1f} s a look; '
            f'{high if check.enough else "more"} would have done'
        )


def draw(
    curves: dict[Estimator, Convergence],
    errors: dict[Estimator, StandardErrorCurve],
    prefix: str,
) -> None:
    theme = Theme.light()
    colours = dict(
        zip(BUILT_IN, (theme.negative, theme.positive, theme.muted, theme.text), strict=True)
    )
    figure, axes = empty_axes(theme, width=5.6, height=4.2)
    lines = {'self_influence': ':', 'margin': '--', 'significant': '-', 'off_diagonal': '-.'}
    for estimator, curve in curves.items():
        for kind, line in lines.items():
            whole = [spearman_brown(r) for r in getattr(curve, kind)]
            name = f'{estimator.name}: {kind.replace("_", " ")}'
            axes.plot(
                2 * curve.members, whole, line, marker='o', ms=4, color=colours[estimator],
                label=name,
            )  # fmt: skip
    axes.set_xscale('log', base=2)
    axes.set(xlabel='members', ylabel='reliability', ylim=(-0.03, 1.03))
    _members_axis(axes, 2 * np.array(SIZES))
    axes.legend(handlelength=2.6, **legend(theme) | {'ncols': 2, 'fontsize': 8.5})
    Path(f'{prefix}-reliability.png').write_bytes(png(figure))

    figure, axes = empty_axes(theme, width=5.6, height=3.9)
    for estimator, error in errors.items():
        law = error.standard_error[-1] * np.sqrt(error.members[-1] / error.members)
        axes.plot(error.members, law, color=colours[estimator], linewidth=0.9)
        axes.plot(
            error.members, error.standard_error, 'o', ms=5, color=colours[estimator],
            label=estimator.name,
        )  # fmt: skip
    axes.set_xscale('log', base=2)
    axes.set_yscale('log', base=2)
    axes.yaxis.set_major_locator(ticker.FixedLocator([0.04, 0.06, 0.1, 0.15, 0.2, 0.3]))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(plain_number))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.set(xlabel='members', ylabel='median standard error off the diagonal (nats)')
    _members_axis(axes, next(iter(errors.values())).members)
    axes.legend(**legend(theme))
    Path(f'{prefix}-standard-error.png').write_bytes(png(figure))


def _members_axis(axes: Axes, members: np.ndarray) -> None:
    axes.xaxis.set_major_locator(ticker.FixedLocator(members.tolist()))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(plain_number))


if __name__ == '__main__':
    main(sys.argv[1:])
