"""The figures of docs/reading_an_influence_distribution.md."""

import numpy as np
import scipy.stats
from matplotlib import ticker
from matplotlib.patches import Patch

from benchmarks.documentation_drawing import (
    LIGHT,
    Drawing,
    Study,
    extreme,
    heading,
    panels,
    small_png,
    thumbnail,
)
from influence_jax.estimators import largest_of_noise
from influence_jax.report.theme import plain_number

UNIQUE = 'clipart-00150'  # a dog's head
DUPLICATED = 'clipart-00558'  # a hamburger
TWIN = 'clipart-00565'  # the same hamburger, drawn a little fatter
NATS = 'influence (nats)'


def one_entry(study: Study) -> tuple[str, bytes]:
    """Where three entries of one column come from: a target's losses, split by three examples."""
    target = study.position(DUPLICATED)
    figure, axes = panels(3, height=2.75, share_y=True)
    own, twin = study.masks[:, target], study.masks[:, study.position(TWIN)]
    for what, members in (
        ('both', own & twin),
        ('itself alone', own & ~twin),
        ('its twin alone', ~own & twin),
        ('neither', ~own & ~twin),
    ):
        mean = study.losses[members, target].mean()
        print(f'one_entry: {members.sum()} members trained on {what}: mean loss {mean:.2f}')
    edges = np.linspace(0, 5, 41)
    losses = study.losses[:, target]
    print(f'  largest loss {losses.max():.1f}, {(losses > edges[-1]).sum()} beyond the axis')
    print(f'one_entry: {DUPLICATED}, loss {losses.mean():.2f}, deviation {losses.std(ddof=1):.2f}')
    for panel, (what, example_id) in zip(
        axes,
        (('the target itself', DUPLICATED), ('its near-duplicate', TWIN), ('a dog', UNIQUE)),
        strict=True,
    ):
        example = study.position(example_id)
        included = study.masks[:, example]
        without, having = (losses[members].mean() for members in (~included, included))
        panel.hist(losses[~included], edges.tolist(), color=LIGHT.neutral)
        panel.hist(
            losses[included],
            edges.tolist(),
            histtype='step',
            color=LIGHT.positive,
            linewidth=1.6,
        )
        for mean, colour in ((without, LIGHT.muted), (having, LIGHT.positive)):
            panel.vlines(mean, 0, 375, color=colour, linewidth=1.2, linestyle=(0, (4, 2)))
        if without - having > 0.1:
            panel.annotate(
                '',
                (having, 365),
                (without, 365),
                arrowprops={'arrowstyle': '-|>', 'color': LIGHT.text, 'shrinkA': 0, 'shrinkB': 0},
            )
        value = study.difference.values[example, target]
        error = study.difference.standard_error[example, target]
        print(
            f'  {what}: with {included.sum()} members, mean {losses[included].mean():.3f}; without '
            f'{(~included).sum()}, {losses[~included].mean():.3f}; influence {value:.3f} '
            f'+- {error:.3f}'
        )
        heading(panel, f'split by {what}')
        thumbnail(
            panel,
            study.dataset.arrays['image'][example],
            (0.98, 0.96),
            zoom=1.0,
            align=(1, 1),
            coordinates='axes fraction',
        )
        panel.text(
            0.98,
            0.50,
            f'influence\n{value:.2f} ± {error:.2f}'.replace('-', '\N{MINUS SIGN}'),
            transform=panel.transAxes,
            ha='right',
            va='top',
            color=LIGHT.text,
            fontsize=9.5,
        )
        panel.grid(visible=False, axis='x')
        panel.set(xlim=(0, 5), ylim=(0, 390))
        panel.set_xlabel("the hamburger's loss (nats)")
    axes[0].set_ylabel('members')
    figure.legend(
        [Patch(color=LIGHT.neutral), Patch(edgecolor=LIGHT.positive, fill=False, linewidth=1.6)],
        ['members without the example', 'members with it; dashed: their means'],
        loc='outside upper left',
        ncols=2,
        frameon=False,
        fontsize=9.5,
        labelcolor=LIGHT.text,
    )
    return 'reading-one-entry', small_png(figure)


def columns(study: Study) -> tuple[str, bytes]:
    """Two whole columns: a unique target's, and one's that has a near-duplicate."""
    figure, axes = panels(2, height=3.2, share_y=True)
    values, errors = study.adjusted
    for panel, (what, example_id) in zip(
        axes, (('a unique target', UNIQUE), ('a near-duplicated target', DUPLICATED)), strict=True
    ):
        target = study.position(example_id)
        column = values[:, target]
        order = np.argsort(-column)
        others = np.delete(column, target)
        print(
            f'columns: {what} {example_id}: itself {column[target]:.2f} +- '
            f'{errors[target, target]:.2f}, strongest other {study.dataset.ids[order[1]]} '
            f'{column[order[1]]:.2f} +- {errors[order[1], target]:.2f}, next '
            f'{column[order[2]]:.2f}, median error {np.median(errors[:, target]):.3f}, deviation '
            f'of the others {others.std():.3f}, margin {column[order[0]] / column[order[1]]:.2f}'
        )
        edges = np.arange(-0.3, 3.0, 0.04)
        panel.hist(column, edges.tolist(), color=LIGHT.neutral, edgecolor=LIGHT.card, linewidth=0.3)
        panel.set_yscale('log')
        panel.set(xlim=(-0.35, 3.05), ylim=(0.6, 3e5), xlabel=NATS)
        panel.grid(visible=False, axis='x')
        panel.yaxis.set_major_locator(ticker.FixedLocator([1, 10, 100]))
        panel.yaxis.set_major_formatter(ticker.FuncFormatter(plain_number))
        panel.yaxis.set_minor_locator(ticker.NullLocator())
        heading(panel, what)
        others_shown = study.examples - (1 if example_id == UNIQUE else 2)
        panel.text(
            0.24,
            60,
            f'the bulk:\n{others_shown:,} others,\nnearly all\nnoise',
            color=LIGHT.muted,
            fontsize=9.5,
            va='center',
        )
        marks = [(target, 'itself', LIGHT.positive, 2.35 if example_id == UNIQUE else 1.75)]
        if example_id == DUPLICATED:
            twin = study.position(TWIN)
            marks.append((twin, 'its near-duplicate', LIGHT.negative, 0.85))
        for example, name, colour, x in marks:
            value = float(column[example])
            panel.plot([value, value, x], [0.6, 300, 900], color=colour, linewidth=1.2)
            image = study.dataset.arrays['image'][example]
            thumbnail(panel, image, (x, 900), colour=colour, zoom=1.15, align=(0.5, 0))
            panel.text(
                x,
                22_000,
                f'{name}\n{value:.2f} ± {errors[example, target]:.2f}',
                color=colour,
                fontsize=9.5,
                va='bottom',
                ha='center',
            )
    axes[0].set_ylabel('examples')
    return 'reading-columns', small_png(figure)


def strongest(study: Study) -> tuple[str, bytes]:
    """The eight largest entries of both columns, with intervals, above what noise reaches."""
    figure, axes = panels(2, height=3.4)
    values, errors = study.adjusted
    quantile = scipy.stats.t.isf(0.025, len(study.masks) - 2)
    threshold = largest_of_noise(
        members=len(study.masks), examples=study.examples, targets=study.examples
    )
    print(f'strongest: z threshold {threshold:.2f}')
    for panel, (what, example_id) in zip(
        axes, (('a unique target', UNIQUE), ('a near-duplicated target', DUPLICATED)), strict=True
    ):
        target = study.position(example_id)
        order = np.argsort(-values[:, target])[:8]
        reach = float(np.median(errors[:, target]) * extreme(study.examples - 1))
        print(f'strongest: {what}, largest of N noise entries {reach:.3f} nats')
        panel.axvspan(0, reach, color=LIGHT.line, alpha=0.75, linewidth=0)
        for rank, example in enumerate(order):
            value, error = values[example, target], errors[example, target]
            known = value > threshold * error
            colour = LIGHT.positive if example == target else LIGHT.negative
            colour = colour if known else LIGHT.muted
            panel.errorbar(
                value, rank, xerr=quantile * error, fmt='o', color=colour, markersize=5, capsize=3
            )
            thumbnail(
                panel,
                study.dataset.arrays['image'][example],
                (-0.07, rank),
                colour=colour,
                zoom=0.5,
                coordinates=('axes fraction', 'data'),
            )
            print(
                f'  {rank + 1}: {study.dataset.names[example]} {value:.3f} +- {error:.3f}, '
                f'z {value / error:.1f}'
            )
            panel.text(
                value + quantile * error + 0.07,
                rank,
                f'z = {value / error:.1f}',
                va='center',
                fontsize=9.5,
                color=LIGHT.text,
            )
        panel.set(xlim=(0, 3.4), ylim=(7.6, -0.6), xlabel=NATS)
        panel.set_yticks([])
        panel.grid(visible=False, axis='y')
        heading(panel, what)
    axes[1].annotate(
        'the largest of 1,566 entries\nof pure noise lies about here',
        (float(reach), 6.6),
        (1.15, 6.3),
        fontsize=9.5,
        color=LIGHT.muted,
        va='center',
        arrowprops={'arrowstyle': '-', 'color': LIGHT.muted, 'linewidth': 0.8},
    )
    return 'reading-strongest', small_png(figure)


FIGURES: tuple[Drawing, ...] = (one_entry, columns, strongest)
