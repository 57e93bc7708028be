"""Anyone's own masks and measurements, from files: checked, named, and told what is left out."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from experiments import array_files
from influence_jax.estimators import Estimator, adjusted, difference_in_means
from influence_jax.estimators.ensemble import complete_members, finite, never_written
from influence_jax.text import quoted

LEAST_MEMBERS = difference_in_means.least_members
_NAMED_IN_MESSAGES = 5


@dataclasses.dataclass(frozen=True)
class TensorSettings:
    """Which tensors, and how influence is estimated from them.

    Attributes:
        masks: .npy file, bool [M N]: whether member m was trained on example n.
        losses: .npy file, floating [M T]: what was measured of member m on target t, lower being
            better (negate a probability). Members with anything that is not finite are left out.
        unit: of the losses, for labels.
        ids: names of the N examples: a text file (one a line), .json (a list) or .npy; by default
            their positions.
        target_ids: names of the T targets, likewise; a target of the name of an example is that
            example. By default target t is example t if T = N, and else no target is an example.
        member_ids: names of the M members, likewise.
        estimator: difference of means, the same adjusted for each target's strongest influencers,
            or a linear datamodel, ridge or lasso. All but the first need at least 48 members;
            below, the first is used.
        drop_inestimable: leave out examples that (nearly) all members were, or were not, trained
            on, instead of refusing them.
        output_dir: directory of the report and its tables; new, empty, or holding a report.
    """

    masks: str = ''
    losses: str = ''
    unit: str = 'nats'
    ids: str = ''
    target_ids: str = ''
    member_ids: str = ''
    estimator: Estimator = adjusted
    drop_inestimable: bool = False
    output_dir: str = ''

    def check(self) -> None:
        """Refuses settings without the files and the directory that there must be.

        Raises:
          ValueError: naming the first that lacks, or a unit that is no label.
        """
        if not (self.unit.isprintable() and self.unit.strip()) or '$' in self.unit:
            raise ValueError(f'--unit must be a word for labels without $, not {self.unit!r}')
        for name, value in (('masks', 'FILE.npy'), ('losses', 'FILE.npy'), ('output_dir', 'DIR')):
            if not getattr(self, name):
                raise ValueError(f'--{name} is missing: give --{name}={value}')


class Tensors(NamedTuple):
    """What was read, in order.

    masks: `[M N]`.
    losses: `[M T]`; members with anything non-finite are still among them.
    example_ids: `[N]`.
    target_ids: `[T]`.
    target_examples: `[T]` position of the example that each target is, -1 where it is none.
    usable_members: how many have finite losses of all targets; repeats of a subset count once.
    notes: sentences on what was left out and what is not known, for whoever reads the results.
    """

    masks: Bool[np.ndarray, 'M N']
    losses: Float[np.ndarray, 'M T']
    example_ids: tuple[str, ...]
    target_ids: tuple[str, ...]
    target_examples: Int[np.ndarray, ' T']
    usable_members: int
    notes: tuple[str, ...]


def load(settings: TensorSettings) -> Tensors:
    """Reads and checks the files.

    Raises:
      OSError: a file is not there.
      ValueError: a file, or what is in it, cannot be used; the message is one line.
    """
    masks, losses = _masks(settings.masks), _losses(settings.losses)
    if len(masks) != len(losses):
        raise ValueError(
            f'{settings.masks} has {len(masks):,} rows and {settings.losses} {len(losses):,}: '
            f'rows are members, give both of the same ones'
        )
    (members, examples), targets = masks.shape, losses.shape[1]
    example_ids = _ids(settings.ids, 'example', examples)
    member_ids = _ids(settings.member_ids, 'member', members)
    target_ids = _ids(settings.target_ids, 'target', targets)
    if not settings.target_ids and targets == examples:
        target_ids = example_ids
    _refuse_unwritten(masks, losses, member_ids)
    notes = _left_out(losses, member_ids, target_ids)
    # Repeats of a subset count as one member, as they do in every estimate.
    used = complete_members(masks, losses).masks
    if len(used) < LEAST_MEMBERS:
        raise ValueError(
            f'{len(used)} complete members of different subsets are too few for standard errors: '
            f'give at least {LEAST_MEMBERS}'
        )

    # By name; without names T targets are the N examples only where there are as many.
    named = bool(settings.target_ids) or targets == examples
    position = {name: i for i, name in enumerate(example_ids)} if named else {}
    own = np.array([position.get(name, -1) for name in target_ids])
    if (own < 0).all():
        notes.append(_no_target_is_an_example(settings, examples, targets))

    estimable = (used.sum(axis=0) >= 2) & ((~used).sum(axis=0) >= 2)
    if not estimable.all():
        remark = _inestimable(used, estimable, example_ids)
        if not settings.drop_inestimable or estimable.sum() < 2:
            advice = (
                'add --drop_inestimable to leave these examples out'
                if estimable.sum() >= 2
                else 'draw subsets that leave each example out of some members and in others'
            )
            raise ValueError(f'{remark}; {advice}')
        notes.append(f'Left out: {remark}.')
        moved = np.where(estimable, np.cumsum(estimable) - 1, -1)
        own = np.where(own >= 0, moved[own], -1)
        masks = masks[:, estimable]
        example_ids = tuple(np.array(example_ids, object)[estimable])
    return Tensors(masks, losses, example_ids, target_ids, own, len(used), tuple(notes))


def _masks(path: str) -> Bool[np.ndarray, 'M N']:
    masks = array_files.array(path, remedy='masks.astype(bool)')
    if masks.dtype != bool:
        found = np.unique(masks)
        if not np.isin(found, [0, 1]).all():
            shown = ', '.join(f'{value}' for value in found[:_NAMED_IN_MESSAGES])
            raise ValueError(
                f'{path} holds {masks.dtype} with values such as {shown}, not booleans: save an '
                f'array that is True where the member was trained on the example'
            )
        raise ValueError(f'{path} holds {masks.dtype}, not booleans: save masks.astype(bool)')
    return _matrix(masks, path, 'members examples')


def _losses(path: str) -> Float[np.ndarray, 'M T']:
    losses = array_files.array(path, remedy='losses.astype(numpy.float32)')
    if losses.dtype.kind != 'f':
        raise ValueError(
            f'{path} holds {losses.dtype}, not floating numbers: save losses.astype(numpy.float32)'
        )
    return _matrix(losses, path, 'members targets')


def _matrix(values: np.ndarray, path: str, axes: str) -> np.ndarray:
    if values.ndim != 2 or not values.size:
        raise ValueError(f'{path} must hold a matrix [{axes}], not one of {list(values.shape)}')
    return np.asarray(values)  # the same memory, without the ways of a memmap


def _ids(path: str, what: str, expected: int) -> tuple[str, ...]:
    if not path:
        return tuple(map(str, range(expected)))
    return array_files.ids(path, what=what, expected=expected)


def _refuse_unwritten(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M T'], member_ids: tuple[str, ...]
) -> None:
    unwritten = np.flatnonzero(never_written(masks, losses) & finite(losses).all(axis=1))
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
    if complete.sum() < LEAST_MEMBERS:
        raise ValueError(
            f'{complete.sum()} of {len(complete):,} members have finite losses of all targets, '
            f'estimates need at least {LEAST_MEMBERS}; of target '
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


def _no_target_is_an_example(settings: TensorSettings, examples: int, targets: int) -> str:
    if settings.target_ids:
        why = 'no target has the id of an example'
    else:
        why = f'{targets:,} targets and {examples:,} examples without ids in common'
    return (
        f'No target is taken to be an example ({why}), so there is no self-influence; name them '
        f'alike by --ids and --target_ids where they are the same.'
    )


def _listed(names: list[str]) -> str:
    """Quoted, because names come from files and go to terminals."""
    shown = ', '.join(map(quoted, names[:_NAMED_IN_MESSAGES]))
    rest = len(names) - _NAMED_IN_MESSAGES
    return f'{shown} and {rest:,} more' if rest > 0 else shown
