"""Masks and losses of anybody's models, as arrays or files: checked, named, and made a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from influence_jax.data.sources import array_files
from influence_jax.estimators import difference_in_means
from influence_jax.estimators.ensemble import complete_members, finite, finite_rows, never_written
from influence_jax.report.run import ArrayRun
from influence_jax.store import Shown
from influence_jax.text import quoted

Array: TypeAlias = str | Path | np.ndarray
"""An array, or the path of a `.npy` file."""

Ids: TypeAlias = str | Path | Sequence[str | int]
"""Ids, or the path of a text file (one a line), a `.json` (a list) or a `.npy` (a vector)."""

_LEAST_MEMBERS = difference_in_means.least_members
_NAMED_IN_MESSAGES = 5


def as_run(
    masks: Array,
    losses: Array,
    *,
    ids: Ids | None = None,
    target_ids: Ids | None = None,
    member_ids: Ids | None = None,
    drop_inestimable: bool = False,
) -> ArrayRun:
    """Returns a run of these masks and losses, for `report.write` and the estimators.

    Nothing in a file can run code. What is left out is in the run's notes, which the report shows.

    Args:
        masks: bool `[M N]`: whether member m was trained on example n.
        losses: floating `[M T]`: what was measured of member m on target t, lower being better.
            Members with anything that is not finite are left out.
        ids: names of the N examples; by default their positions.
        target_ids: names of the T targets; a target with the name of an example is that example.
            By default target t is example t if T = N, and else no target is an example.
        member_ids: names of the M members, for messages and notes.
        drop_inestimable: leave out examples that (nearly) all members were, or were not, trained
            on, instead of refusing them.

    Raises:
        OSError: a file is not there.
        ValueError: an array or a file, or what is in it, cannot be used; the message is one line.
    """
    mask_source, loss_source = _source(masks, 'masks'), _source(losses, 'losses')
    included, measured = _masks(masks, mask_source), _losses(losses, loss_source)
    if len(included) != len(measured):
        raise ValueError(
            f'{mask_source} has {len(included):,} rows and {loss_source} {len(measured):,}: '
            f'rows are members, give both of the same ones'
        )
    (members, examples), targets = included.shape, measured.shape[1]
    example_names = _ids(ids, 'example', examples)
    member_names = _ids(member_ids, 'member', members)
    target_names = _ids(target_ids, 'target', targets)
    by_position = target_ids is None and targets == examples
    if by_position:
        target_names = example_names
    _refuse_unwritten(included, measured, member_names)
    notes = _left_out(measured, member_names, target_names)
    # Repeats of a subset count as one member, as they do in every estimate.
    used = complete_members(included, measured).masks
    if len(used) < _LEAST_MEMBERS:
        raise ValueError(
            f'{len(used)} complete members of different subsets are too few for standard errors: '
            f'give at least {_LEAST_MEMBERS}'
        )

    own = np.full(targets, -1)
    if target_ids is not None or by_position:
        position = {name: i for i, name in enumerate(example_names)}
        own = np.array([position.get(name, -1) for name in target_names])
    if (own < 0).all():
        notes.append(_no_target_is_an_example(target_ids is not None, examples, targets))
    shown_names = example_names if ids is not None else [f'example {one}' for one in example_names]

    estimable = (used.sum(axis=0) >= 2) & ((~used).sum(axis=0) >= 2)
    if not estimable.all():
        remark = _inestimable(used, estimable, example_names)
        if not drop_inestimable or estimable.sum() < 2:
            advice = (
                'set drop_inestimable=True to leave these examples out'
                if estimable.sum() >= 2
                else 'draw subsets that leave each example out of some members and in others'
            )
            raise ValueError(f'{remark}; {advice}')
        notes.append(f'Left out: {remark}.')
        moved = np.where(estimable, np.cumsum(estimable) - 1, -1)
        own = np.where(own >= 0, moved[own], -1)
        included = included[:, estimable]
        example_names, shown_names = (
            tuple(np.array(names, object)[estimable]) for names in (example_names, shown_names)
        )
    return ArrayRun(
        included,
        {'loss': measured},
        example_names,
        target_names,
        target_examples=own,
        shown=Shown(names=tuple(shown_names), notes=tuple(notes)),
    )


def _source(array: Array, name: str) -> str:
    """What an array is called in messages."""
    return name if isinstance(array, np.ndarray) else str(array)


def _masks(given: Array, source: str) -> Bool[np.ndarray, 'M N']:
    masks = _array(given, remedy='masks.astype(bool)')
    if masks.dtype != bool:
        found = np.unique(masks)
        if not np.isin(found, [0, 1]).all():
            shown = ', '.join(f'{value}' for value in found[:_NAMED_IN_MESSAGES])
            raise ValueError(
                f'{source} holds {masks.dtype} with values such as {shown}, not booleans: save an '
                f'array that is True where the member was trained on the example'
            )
        raise ValueError(f'{source} holds {masks.dtype}, not booleans: save masks.astype(bool)')
    return _matrix(masks, source, 'members examples')


def _losses(given: Array, source: str) -> Float[np.ndarray, 'M T']:
    losses = _array(given, remedy='losses.astype(numpy.float32)')
    if losses.dtype.kind != 'f':
        raise ValueError(
            f'{source} holds {losses.dtype}, not floating numbers: '
            f'save losses.astype(numpy.float32)'
        )
    return _matrix(losses, source, 'members targets')


def _array(given: Array, *, remedy: str) -> np.ndarray:
    return given if isinstance(given, np.ndarray) else array_files.array(given, remedy=remedy)


def _matrix(values: np.ndarray, source: str, axes: str) -> np.ndarray:
    if values.ndim != 2 or not values.size:
        raise ValueError(f'{source} must hold a matrix [{axes}], not one of {list(values.shape)}')
    return np.asarray(values)  # the same memory, without the ways of a memmap


def _ids(given: Ids | None, what: str, expected: int) -> tuple[str, ...]:
    if given is None:
        return tuple(map(str, range(expected)))
    if isinstance(given, str | Path):
        return array_files.ids(given, what=what, expected=expected)
    return array_files.check_ids(given, source=f'{what} ids', what=what, expected=expected)


def _refuse_unwritten(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M T'], member_ids: tuple[str, ...]
) -> None:
    unwritten = np.flatnonzero(never_written(masks, losses) & finite_rows(losses))
    if unwritten.size:
        raise ValueError(
            f'{unwritten.size:,} of {len(masks):,} members have one and the same loss of every '
            f'target, as rows that were never written: '
            f'{_listed([member_ids[m] for m in unwritten])}; remove them, or set their losses to '
            f'NaN to leave them out'
        )


def _left_out(
    losses: Float[np.ndarray, 'M T'], member_ids: tuple[str, ...], target_ids: tuple[str, ...]
) -> list[str]:
    """What is to be said of the members that lack finite losses of some target."""
    is_finite = finite(losses)
    complete = np.all(is_finite, axis=1)
    missing = ~complete
    missing[missing] = np.isnan(losses[missing]).all(axis=1)
    if missing.all():
        raise ValueError('all losses are NaN: nothing was measured of any member')
    by_target = is_finite[~missing].sum(axis=0)
    if not by_target.min():
        target = target_ids[int(by_target.argmin())]
        raise ValueError(
            f'target {quoted(target)} has no finite loss of any member: leave its column out of '
            f'the losses'
        )
    if complete.sum() < _LEAST_MEMBERS:
        raise ValueError(
            f'{complete.sum()} of {len(complete):,} members have finite losses of all targets, '
            f'estimates need at least {_LEAST_MEMBERS}; of target '
            f'{quoted(target_ids[int(by_target.argmin())])} there are {by_target.min():,} finite '
            f'losses'
        )
    notes = []
    for left_out, why in (
        (missing, 'nothing was measured of them (rows of NaN)'),
        (
            ~complete & ~missing,
            'some of their losses are NaN, infinite or beyond what float32 holds',
        ),
    ):
        if left_out.any():
            names = [member_ids[m] for m in np.flatnonzero(left_out)]
            notes.append(
                f'Left out of every estimate: {len(names):,} of {len(complete):,} members, because '
                f'{why}: {_listed(names)}.'
            )
    return notes


def _inestimable(
    masks: Bool[np.ndarray, 'M N'],
    estimable: Bool[np.ndarray, ' N'],
    example_ids: tuple[str, ...],
) -> str:
    members, included = len(masks), masks.sum(axis=0)
    kinds = []
    for lacking, what in (
        (included == 0, 'in none'),
        (included == members, 'in all'),
        (included == 1, 'in only one'),
        (included == members - 1, 'out of only one'),
    ):
        if lacking.any():
            names = [example_ids[i] for i in np.flatnonzero(lacking)]
            kinds.append(f'{what}: {_listed(names)}')
    return (
        f'{(~estimable).sum():,} of {len(estimable):,} examples have no estimate, being in, or out '
        f'of, fewer than 2 of the {members:,} complete members ({"; ".join(kinds)}); the other '
        f'{estimable.sum():,} can be estimated'
    )


def _no_target_is_an_example(named: bool, examples: int, targets: int) -> str:
    if named:
        why = 'no target has the id of an example'
    else:
        why = f'{targets:,} targets and {examples:,} examples without ids in common'
    return (
        f'No target is taken to be an example ({why}), so there is no self-influence; give those '
        f'that are the same the same ids and target_ids.'
    )


def _listed(names: list[str]) -> str:
    """Quoted, because names come from files and go to terminals."""
    shown = ', '.join(map(quoted, names[:_NAMED_IN_MESSAGES]))
    rest = len(names) - _NAMED_IN_MESSAGES
    return f'{shown} and {rest:,} more' if rest > 0 else shown
