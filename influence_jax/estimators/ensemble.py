"""What every estimator needs of masks and measurements: checked, finite, in plain numpy."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.packed import differ_early
from influence_jax.types import AnyArray, Masks, Measurement

_NAMED_IN_MESSAGES = 5
_FEWEST_MEMBERS = 4
_FEWEST_EXAMPLES = 4
_SEVERAL_TARGETS = 4
_AT_ONCE = 2**20  # losses that are checked at once


class Ensemble(NamedTuple):
    """The members that can be used: those with a finite measurement of every target.

    masks: `[M N]` bool; of members trained on the same subset there is one.
    losses: `[M T]` as given, or the mean of such members; a view where nothing had to be done.
    """

    masks: Bool[np.ndarray, 'M N']
    losses: Float[np.ndarray, 'M T']


class Problem(NamedTuple):
    """Arguments of an estimator, checked: an `Ensemble`, and which example each target is.

    masks: `[M N]` of complete members.
    losses: `[M T]` of the same.
    self_index: `[T]` position of the target's own example; -1 where it is none.
    """

    masks: Bool[np.ndarray, 'M N']
    losses: Float[np.ndarray, 'M T']
    self_index: Int[np.ndarray, ' T']


def problem(
    masks: Masks,
    losses: Measurement,
    target_examples: Int[AnyArray, ' T'] | None,
    *,
    tile: int = 1,
    both_sides: bool = True,
) -> Problem:
    """Checks the arguments of an estimator, and leaves out incomplete members.

    Args:
      masks: `[M N]` bool.
      losses: `[M T]`.
      target_examples: see `examples_of_targets`.
      tile: how many targets are estimated at once.
      both_sides: refuse examples without a standard error, see `check_both_sides`.

    Raises:
      ValueError: naming what is wrong with which of them.
    """
    if tile < 1:
        raise ValueError(f'{tile=} must be at least 1')
    masks, losses = complete_members(masks, losses)
    if both_sides:
        check_both_sides(masks)
    examples, targets = masks.shape[1], losses.shape[1]
    self_index = examples_of_targets(target_examples, examples=examples, targets=targets)
    return Problem(masks, losses, self_index)


def complete_members(masks: Masks, losses: Measurement) -> Ensemble:
    """Leaves out missing and diverged members: rows of `losses` with anything non-finite.

    Losses beyond the range of float32 count as infinite, see `finite`. Members that repeat
    another's mask are averaged, see `average_repeats`.

    Raises:
      ValueError: masks are not bool `[M N]`, losses not floating `[M T]` of the same M,
        an axis is empty, no member is left, or members have the same loss of every target as
        rows of an array that were never written do, see `never_written`.
    """
    return Ensemble(*average_repeats(*finite_members(masks, losses)))


def finite_members(masks: Masks, losses: Measurement) -> Ensemble:
    """As `complete_members`, without averaging members that repeat a mask."""
    masks, losses = np.asarray(masks), np.asarray(losses)
    if masks.ndim != 2 or masks.dtype != bool:
        raise ValueError(
            f'masks must be bool [members examples], not {masks.dtype} {list(masks.shape)}: '
            "True where the example is in the member's subset"
        )
    if losses.ndim != 2 or not np.issubdtype(losses.dtype, np.floating):
        raise ValueError(
            f'losses must be floating [members targets], not {losses.dtype} {list(losses.shape)}'
        )
    if len(masks) != len(losses):
        raise ValueError(
            f'masks have {len(masks)} members and losses {len(losses)}: give both of the same run'
        )
    if not masks.size or not losses.size:
        raise ValueError(
            f'no members, examples or targets: masks {list(masks.shape)}, '
            f'losses {list(losses.shape)}'
        )
    complete = finite_rows(losses)
    if not complete.any():
        never = np.flatnonzero(~finite(losses).any(axis=0))
        cure = (
            f'leave out the {never.size} targets that never are ({_listed(never)})'
            if 0 < never.size < losses.shape[1]
            else 'train the missing members first'
        )
        raise ValueError(
            f'none of the {len(masks)} members has finite losses of all targets: {cure}'
        )
    unwritten = never_written(masks, losses) & complete
    if unwritten.any():
        members = np.flatnonzero(unwritten)
        raise ValueError(
            f'{members.size} of {len(masks)} members ({_listed(members)}) have one and the same '
            f'loss of every target, as rows that were never written: remove them, or set their '
            f'losses to NaN to leave them out'
        )
    if complete.all():
        return Ensemble(masks, losses)
    return Ensemble(masks[complete], losses[complete])


def finite(losses: Measurement) -> Bool[np.ndarray, 'M T']:
    """Which losses can be used: computed with as float32, their differences must lie within it."""
    losses, limit = np.asarray(losses), np.finfo(np.float32).max / 4
    return np.asarray((losses >= -limit) & (losses <= limit))  # no copy of the losses


def finite_rows(losses: Measurement) -> Bool[np.ndarray, ' M']:
    """Which members have only losses that can be used, by pieces: `finite` takes M T bytes."""
    losses, complete = np.asarray(losses), np.empty(len(losses), bool)
    step = max(1, _AT_ONCE // max(losses.shape[1], 1))
    for start in range(0, len(losses), step):
        complete[start : start + step] = finite(losses[start : start + step]).all(axis=1)
    return complete


def never_written(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M T']
) -> Bool[np.ndarray, ' M']:
    """Members with one and the same loss of every target, as preallocated rows have.

    Certain where their masks are all false or all true, or where there are several targets
    and losses are no counts of right and wrong. Where the rows of all members are of one loss, as
    of a single target, nothing is certain; nor of two or three examples, of which a subset may
    well hold none.
    """
    if masks.shape[1] < _FEWEST_EXAMPLES:
        return np.zeros(len(masks), bool)
    one_loss = np.all(losses[:, :_SEVERAL_TARGETS] == losses[:, :1], axis=1)
    candidates = np.flatnonzero(one_loss)  # few: whole rows are compared of these alone
    one_loss[candidates] = np.all(losses[candidates] == losses[candidates, :1], axis=1)
    if not one_loss.any() or one_loss.all():
        return np.zeros(len(masks), bool)
    others = losses[~one_loss]
    two_valued = np.isin(others, [others.min(), others.max()]).all()
    if losses.shape[1] >= _SEVERAL_TARGETS and not two_valued:
        return np.asarray(one_loss)
    return np.asarray(one_loss & (np.all(masks, axis=1) | ~np.any(masks, axis=1)))


def check_both_sides(masks: Bool[np.ndarray, 'M N']) -> None:
    """Refuses masks under which some example has no standard error.

    Before anything is trained, too: a design and a number of members may leave an example in, or
    out of, fewer than two subsets.

    Args:
      masks: `[M N]`, of complete members, or as drawn.

    Raises:
      ValueError: naming how many examples and the first of them, and the cure: the balanced design
        or more members; or fewer than 4 members.
    """
    members = len(masks)
    if members < _FEWEST_MEMBERS:
        raise ValueError(
            f'{members} members are too few for standard errors: give at least {_FEWEST_MEMBERS}'
        )
    included = masks.sum(axis=0)
    lacking = np.flatnonzero((included < 2) | (members - included < 2))
    if lacking.size:
        others = masks.shape[1] - lacking.size
        raise ValueError(
            f'{lacking.size} of {masks.shape[1]} examples ({_listed(lacking)}) are in, or out of, '
            f'fewer than 2 of the {members} members: only the influence of the other '
            f'{others} can be estimated; draw subsets of the balanced design, which has every '
            f'example in equally many, use more members, or leave these columns of the masks out'
        )


def _listed(positions: Int[np.ndarray, ' _']) -> str:
    shown = ', '.join(str(i) for i in positions[:_NAMED_IN_MESSAGES])
    return shown + (', ...' if positions.size > _NAMED_IN_MESSAGES else '')


def examples_of_targets(
    target_examples: Int[AnyArray, ' T'] | None, *, examples: int, targets: int
) -> Int[np.ndarray, ' T']:
    """Which example each target is, -1 where it is none.

    By default target t is example t when there are as many targets as examples; with another
    number of targets none of them is an example.

    Raises:
      ValueError: `target_examples` is not integer `[T]` or holds something outside -1 .. N - 1.
    """
    if target_examples is None:
        return np.arange(targets) if targets == examples else np.full(targets, -1)
    positions = np.asarray(target_examples)
    if positions.shape != (targets,) or not np.issubdtype(positions.dtype, np.integer):
        raise ValueError(
            f'target_examples must be {targets} integers, one for each target, '
            f'not {positions.dtype} {list(positions.shape)}'
        )
    if positions.min() < -1 or positions.max() >= examples:
        raise ValueError(
            f'target_examples must lie in -1 .. {examples - 1}, '
            f'not {positions.min()} .. {positions.max()}'
        )
    return positions.astype(np.int64)


def average_repeats(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M T']
) -> tuple[Bool[np.ndarray, 'm N'], Float[np.ndarray, 'm T']]:
    """Averages the losses of members with the same mask, in the order of first appearance.

    Repeats lower the noise of training, not that of which examples were drawn: taken for
    independent members they would make the standard errors too small. What counts as a repeat:
    see `numbered_repeats`.
    """
    subset = numbered_repeats(masks)
    _, first = np.unique(subset, return_index=True)
    if len(first) == len(masks):
        return masks, losses
    sums = np.zeros((len(first), losses.shape[1]), np.float64)
    np.add.at(sums, subset, losses)
    means = sums / np.bincount(subset)[:, None]
    return masks[first], means.astype(losses.dtype)


def numbered_repeats(masks: Bool[np.ndarray, 'M N']) -> Int[np.ndarray, ' M']:
    """Numbers the subsets from 0 by first appearance: members of one number repeat one mask.

    With few examples, masks coincide by chance, and are independent then: if that would be no
    surprise, every member has a number of its own.
    """
    if differ_early(masks):
        return np.arange(len(masks))
    _, first, of_member = np.unique(
        np.packbits(masks, axis=1), axis=0, return_index=True, return_inverse=True
    )
    if len(first) == len(masks) or _chance_of_a_coincidence(masks) > 1e-3:
        return np.arange(len(masks))
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[of_member.ravel()]


def _chance_of_a_coincidence(masks: Bool[np.ndarray, 'M N']) -> float:
    """Expected number of equal pairs, if every example were included independently."""
    # Examples of one group enter together, by one draw.
    drawn = np.unique(np.packbits(masks, axis=0), axis=1, return_index=True)[1]
    rate = masks[:, drawn].mean(axis=0)
    same = np.log(rate**2 + (1 - rate) ** 2).sum()
    return math.comb(len(masks), 2) * math.exp(same)


def examples_by_id(target_ids: Sequence[str], example_ids: Sequence[str]) -> Int[np.ndarray, ' T']:
    """Returns the position of the example that each target is, -1 where it is none, by equal ids.

    Ids that are mere positions mean nothing, unless targets and examples have all in common.
    """
    targets, examples = list(target_ids), list(example_ids)
    if targets == examples:
        return np.arange(len(targets))
    if targets == list(map(str, range(len(targets)))):
        return np.full(len(targets), -1)
    position = {identity: i for i, identity in enumerate(examples)}
    return np.array([position.get(identity, -1) for identity in targets])
