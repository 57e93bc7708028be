"""Retraining without what a method names."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.resampling import host_generator
from influence_jax.types import AnyArray, PRNGKey

Train = Callable[[Bool[np.ndarray, 'M N']], Float[AnyArray, 'M T']]
"""Trains a model on each mask, each with another seed, and returns what is measured of them."""


class Rise(NamedTuple):
    """How much the measurement of a target rises, in its unit, when examples are left out.

    value: mean over seeds, above that of the models trained on all others; NaN where fewer than two
        models of either side are left.
    standard_error: of that difference, from the seeds.
    diverged: how many models measured what is not finite, and are left out of both.
    """

    value: float
    standard_error: float
    diverged: int = 0


class LeaveOut(NamedTuple):
    """What leaving out a target's strongest examples does to it, by method.

    target: its position.
    methods: by name.
    random: of as many random examples; its error is that over different draws.
    """

    target: int
    methods: Mapping[str, Rise]
    random: Rise


def leave_out(
    scores: Mapping[str, Float[np.ndarray, 'N G']],
    targets: Int[np.ndarray, ' G'],
    self_index: Int[np.ndarray, ' G'],
    train: Train,
    *,
    count: int,
    repeats: int,
    key: PRNGKey,
) -> list[LeaveOut]:
    """Leaves out the `count` strongest examples of each target, and trains without them.

    The target's own example is in none of the subsets that concern it, so that what rises is due to
    others. Every subset is trained `repeats` times; there are as many random ones as repeats.

    Args:
        scores: each method's columns of these targets.
        targets: `[G]` positions of the targets.
        self_index: `[G]` their own examples, -1 where they are none.
        train: see `Train`; called once.
        count: how many examples are left out.
        repeats: models a subset, at least 2.
        key: draws the random examples.

    Raises:
        ValueError: `count` is not below the number of other examples, or `repeats` below 2.
    """
    examples = len(next(iter(scores.values())))
    if not 0 < count < examples - 1:
        raise ValueError(f'{count=} must lie in 1 .. {examples - 2}: some examples must be left')
    _check_repeats(repeats)
    generator, masks = host_generator(key), []
    for place, own in enumerate(self_index):
        others = np.flatnonzero(np.arange(examples) != own)
        full = np.isin(np.arange(examples), others)
        dropped = [np.empty(0, np.int64)] * repeats
        for columns in scores.values():
            order = np.argsort(-columns[others, place], kind='stable')
            dropped += [others[order[:count]]] * repeats
        dropped += [generator.permutation(others)[:count] for _ in range(repeats)]
        for some in dropped:
            mask = full.copy()
            mask[some] = False
            masks.append(mask)
    measured = np.asarray(train(np.array(masks)))
    by_subset = measured.reshape(len(targets), len(scores) + 2, repeats, -1)
    found = []
    for place, target in enumerate(targets):
        everything, *by_method = by_subset[place, :, :, target].astype(np.float64)
        rises = [_rise(some, everything) for some in by_method]
        named = dict(zip(scores, rises[:-1], strict=True))
        found.append(LeaveOut(int(target), named, rises[-1]))
    return found


class Removal(NamedTuple):
    """What the removal of a group does to the mean measurement of the targets that stay.

    examples: how many are removed.
    targets: positions of those that are measured.
    removed: without the group; negative where the others are better off without it.
    random: without as many random examples; its error is that over different draws.
    """

    examples: int
    targets: Int[np.ndarray, ' t']
    removed: Rise
    random: Rise


def remove_group(
    group: Bool[np.ndarray, ' N'],
    targets: Int[np.ndarray, ' t'],
    self_index: Int[np.ndarray, ' T'],
    train: Train,
    *,
    repeats: int,
    key: PRNGKey,
) -> Removal:
    """Retrains without a group of examples, and without random groups of its size.

    Measured are the targets whose own example none of the subsets lacks, so that they are the same
    ones, and hold no trace of having been left out themselves.

    Args:
        group: which examples are removed.
        targets: positions of the targets that may be measured, such as those of right labels.
        self_index: `[T]` position of each target's own example, -1 where it is none.
        train: see `Train`; called once, with three times `repeats` masks.
        repeats: models a subset, at least 2; as many random groups.
        key: draws the random groups.

    Raises:
        ValueError: a group of none or of all examples, too few `repeats`, or no target left.
    """
    count, examples = int(group.sum()), len(group)
    if not 0 < count < examples:
        raise ValueError(f'the group has {count} of {examples} examples: some must go, some stay')
    _check_repeats(repeats)
    generator = host_generator(key)
    drawn = [generator.permutation(examples)[:count] for _ in range(repeats)]
    random = np.array([~np.isin(np.arange(examples), some) for some in drawn])
    masks = np.concatenate([np.ones_like(random), np.tile(~group, (repeats, 1)), random])
    own, always = self_index[targets], np.logical_and.reduce(masks)
    stay = targets[(own < 0) | always[own]]
    if not stay.size:
        raise ValueError(
            f'every target is in one of the {repeats} random groups of {count}, or in the group: '
            f'lower repeats, or give targets that are no examples'
        )
    measured = np.asarray(train(masks), np.float64)[:, stay].mean(axis=1)
    everything, removed, others = measured.reshape(3, repeats)
    return Removal(count, stay, _rise(removed, everything), _rise(others, everything))


def _rise(without: Float[np.ndarray, ' R'], everything: Float[np.ndarray, ' R']) -> Rise:
    kept = [models[np.isfinite(models)] for models in (without, everything)]
    diverged = len(without) + len(everything) - sum(map(len, kept))
    if min(map(len, kept)) < 2:
        return Rise(np.nan, np.nan, diverged)
    variance = sum(models.var(ddof=1) / len(models) for models in kept)
    return Rise(float(kept[0].mean() - kept[1].mean()), float(np.sqrt(variance)), diverged)


def _check_repeats(repeats: int) -> None:
    if repeats < 2:
        raise ValueError(f'{repeats=} must be at least 2: one model tells nothing of its noise')
