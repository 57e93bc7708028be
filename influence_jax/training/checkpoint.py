"""Members on disk, through orbax: their trained parameters, and their state while they train."""

import functools
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Bool, Int

from influence_jax import files
from influence_jax.json_files import MOST_DEPTH, read_json
from influence_jax.training import checksums
from influence_jax.training.member import State
from influence_jax.training.multihost import all_equal, by_primary, from_primary
from influence_jax.trees import named
from influence_jax.types import AnyArray, Masks, Params

_ABOUT = 'influence_jax'
_MOST_BYTES = 2**26
"""Of one of orbax's own files about a checkpoint."""


def save_members(directory: Path, members: Int[np.ndarray, ' C'], params: Params) -> None:
    """Writes each member's parameters to a checkpoint of its own, whole or not at all.

    Args:
        directory: holds one checkpoint a member.
        members: their numbers.
        params: pytree with a leading axis C, or a longer one whose first rows are theirs; on the
            host, or on the devices of one process or several.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        for row, member in enumerate(members):
            own = jax.tree.map(functools.partial(_row, row=row), params)
            about = {'member': int(member), 'arrays': _about_arrays(own)}
            path = _path(directory, int(member))
            checkpointer.save(path, own, force=True, custom_metadata={_ABOUT: about})


def kept_members(directory: Path) -> Int[np.ndarray, ' R']:
    """Numbers of the members whose parameters are there, ascending."""
    names = [path.name for path in directory.glob('*') if re.fullmatch('[0-9]{6,9}', path.name)]
    return np.array(sorted(map(int, names)), int)


def load_member(directory: Path, member: int, like: Params | None) -> Params:
    """Reads one member's parameters.

    Args:
        directory: as given to `save_members`.
        member: its number.
        like: arrays or `ShapeDtypeStruct`s of the parameters' shapes, e.g. of `eval_shape`; without
            it they are read into nested dicts.

    Raises:
        FileNotFoundError: the member's parameters were not kept.
        ValueError: they cannot be read, are of other shapes, or are not those that were written
            for this member, as far as that is on record: earlier versions kept none.
    """
    path = _path(directory, member)
    if not path.exists():
        raise FileNotFoundError(f'no parameters of member {member} in {directory}')
    with ocp.StandardCheckpointer() as checkpointer:
        params = _restored(path, lambda: checkpointer.restore(path, like), remedy='remove it')
    kept = _restored(path, lambda: _kept_about(path), remedy='remove it')
    if like is None and not _agrees(kept, member, params):
        params = _unboxed(params)
    if not _agrees(kept, member, params):
        raise ValueError(f'{path} is not what was written for member {member}; remove it')
    return params


def remove(directory: Path) -> None:
    """Removes what a `Checkpointer` has left in a directory, and the directory."""
    # Under other names first: what a kill leaves of a checkpoint must not pass for one.
    for step in _steps(directory):
        aside = step.with_name(f'removed_{step.name}')
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier kill
        step.rename(aside)
    shutil.rmtree(directory, ignore_errors=True)


class Checkpointer:
    """The state of large members while they train: the latest checkpoint, then nothing.

    The members of one chunk at a time; they are gone when the next chunk begins. Whoever stops
    before all members are trained clears them. Where the devices belong to several processes,
    the directory is one that all of them see.
    """

    def __init__(
        self,
        directory: Path,
        *,
        every: int,
        configuration: Mapping[str, Any],
        least_minutes: float = 0.0,
    ) -> None:
        """Nothing is read or written before `open`.

        Args:
            directory: for these checkpoints alone; made when the first is written.
            every: steps from one checkpoint to the next.
            configuration: all that determines the run's results, as JSON has it; a checkpoint of
                another one is refused.
            least_minutes: no sooner after the one before, or after the members began to train;
                the next is then at a later multiple of `every`.

        Raises:
            ValueError: less than a step apart, or less than 0 minutes.
        """
        if every < 1:
            raise ValueError(f'checkpoints must be at least 1 step apart, not {every}')
        if not 0 <= least_minutes < math.inf:
            raise ValueError(f'checkpoints must be 0 minutes or more apart, not {least_minutes}')
        self._directory, self.every = directory.absolute(), every
        self._least_seconds = 60 * least_minutes
        self._last: float | None = None
        self._identity: dict[str, Any] = {'configuration': dict(configuration)}
        self._manager: ocp.CheckpointManager | None = None
        self._home: tuple[int, int] | None = None
        self._masks: Bool[np.ndarray, 'M N'] = np.zeros((0, 0), bool)

    def open(
        self,
        identity: Mapping[str, Any],
        *,
        masks: Masks,
        untrained: Int[np.ndarray, ' R'],
    ) -> Int[np.ndarray, ' S']:
        """Looks at what is there; it is removed if any of its members is trained already.

        A kill can come when some members of a chunk are on record and the others are not: the
        others are then trained anew, in another chunk.

        Args:
            identity: what else a checkpoint must have in common with what is trained now, such as
                `members_at_once`.
            masks: `[M N]`, the subset of each member.
            untrained: numbers of the members that are to be trained.

        Returns:
            Numbers of the members that were in training: the first to `resume`.

        Raises:
            ValueError: the checkpoint is of another configuration, or cannot be read.
        """
        self._identity |= identity
        self._masks = np.asarray(masks)
        self._home = _inode(self._directory.parent)
        kept = self._kept()
        if kept is not None and not set(kept['members']) <= set(untrained.tolist()):
            self.clear()
            kept = None
        if kept is None:
            return np.zeros(0, untrained.dtype)
        members = np.array(kept['members'], untrained.dtype)
        now = json.loads(json.dumps(self._identity_of(members)))
        differences = sorted(_differences(kept['identity'], now))
        if differences:
            more = f' and {len(differences) - 1} more' if len(differences) > 1 else ''
            raise ValueError(
                f'{self._directory} holds a checkpoint of another configuration '
                f'({differences[0]}{more}); repeat the old one to go on from there, or remove it'
            )
        return members

    def resume(self, like: State) -> tuple[int, State] | None:
        """How many steps the next members have taken, and their state; None to begin anew.

        Args:
            like: shapes and shardings of the state.

        Raises:
            ValueError: the checkpoint cannot be read, or processes do not see the same.
        """
        self._last = time.monotonic()
        kept = self._kept()
        if not all_equal(-1 if self._manager is None else self._manager.latest_step() or 0):
            raise ValueError(
                f'not all processes find the same in {self._directory}: choose a directory on a '
                f'disk that they share, or keep no checkpoints of members in training'
            )
        if kept is None:
            return None
        assert self._manager is not None
        restore = ocp.args.StandardRestore(named(like))
        manager, step = self._manager, self._manager.latest_step()
        restored = _restored(
            self._directory,
            lambda: manager.restore(step, args=ocp.args.Composite(state=restore))['state'],
            remedy=_BEGIN_ANEW,
        )
        if damaged := checksums.differing(restored, kept['checksums']):
            raise ValueError(
                f'{self._directory} is damaged: {damaged[0]} is not what was written; {_BEGIN_ANEW}'
            )
        return step, jax.tree.unflatten(
            jax.tree.structure(like), [restored[n] for n in named(like)]
        )

    def save(self, members: Int[np.ndarray, ' R'], steps: int, state: State) -> None:
        """Writes a checkpoint, whole or not at all, if it is time to; older ones are removed.

        Args:
            members: whose.
            steps: how many they have taken.
            state: of all of them.

        Raises:
            FileNotFoundError: the directory around this one was deleted or replaced meanwhile.
        """
        if steps % self.every or not self._is_time():
            return
        manager = self._opened()
        about = {
            'members': members.tolist(),
            'identity': self._identity_of(members),
            'checksums': checksums.of_arrays(named(state)),
        }
        manager.save(
            steps,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(named(state)), about=ocp.args.JsonSave(about)
            ),
        )
        if all(device.platform == 'cpu' for device in jax.tree.leaves(state)[0].devices()):
            # Elsewhere a copy is written while training goes on; here it could be no copy, but
            # the memory into which the next step writes.
            manager.wait_until_finished()
        self._last = time.monotonic()

    def clear(self) -> None:
        """Removes what is there: the members are done."""
        if self._manager:
            self._manager.close()
            self._manager = None
        by_primary(lambda: remove(self._directory))

    def _identity_of(self, members: Int[np.ndarray, ' R']) -> dict[str, Any]:
        """What goes on from a checkpoint of these members must have in common with it."""
        subsets = hashlib.sha256(np.packbits(self._masks[members]).tobytes()).hexdigest()
        return self._identity | {'subsets': subsets}

    def _is_time(self) -> bool:
        now = time.monotonic()
        if self._last is None:
            self._last = now
        late = now - self._last >= self._least_seconds
        gone = self._home is not None and _inode(self._directory.parent) != self._home
        # Clocks differ, and a checkpoint takes all processes, as it takes all to give up.
        late, gone = from_primary(np.array([late, gone]))
        if gone:
            raise FileNotFoundError(
                f'{self._directory.parent} was deleted, moved or replaced while members were '
                f'trained; put it back or remove what is left of it, and start the same command '
                f'again'
            )
        return bool(late)

    def _kept(self) -> dict[str, Any] | None:
        if not self._directory.is_dir():
            return None
        return _restored(self._directory, self._about, remedy=_BEGIN_ANEW)

    def _about(self) -> dict[str, Any] | None:
        for step in _steps(self._directory):
            _check_files(step)
        manager = self._opened()
        step = manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(about=ocp.args.JsonRestore())
        about = manager.restore(step, args=args)['about']
        members = about['members']
        is_list = isinstance(members, list) and all(type(member) is int for member in members)
        if not (is_list and 0 < len(members) <= about['identity']['members_at_once']):
            raise ValueError(f'{members!r:.60} are no members')
        return {
            'members': members,
            'identity': dict(about['identity']),
            'checksums': dict(about['checksums']),
        }

    def _opened(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True)
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        return self._manager


_BEGIN_ANEW = 'remove it: the members that were in training begin anew'


def _steps(directory: Path) -> list[Path]:
    """The checkpoints in a directory, whole."""
    return [path for path in directory.glob('*') if path.name.isdecimal()]


def _restored(path: Path, restore: Callable[[], Any], *, remedy: str) -> Any:
    """What is read from a checkpoint; ValueError where that fails, whatever orbax says of it."""
    try:
        if path.name.isdecimal():
            _check_files(path)
        return restore()
    except jax.errors.JaxRuntimeError:
        raise  # too little memory says nothing of the checkpoint
    except Exception as error:
        # Damage shows as any kind of error, in orbax or in what it builds on.
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise ValueError(f'{path} cannot be read ({reason:.300}); {remedy}') from error


def _kept_about(path: Path) -> Any:
    """What `save_members` has kept of a member's parameters; None in an earlier version."""
    metadata = read_json(path / '_CHECKPOINT_METADATA', most_bytes=_MOST_BYTES)
    return (metadata.get('custom_metadata') or {}).get(_ABOUT)


def _unboxed(params: Params) -> Params:
    """Nested dicts without the `value` that orbax reads in the place of each `nnx.Param`."""

    def is_box(node: Any) -> bool:
        return isinstance(node, dict) and node.keys() == {'value'}

    return jax.tree.map(lambda n: n['value'] if is_box(n) else n, params, is_leaf=is_box)


def _about_arrays(params: Params) -> dict[str, Any]:
    """The type and the checksum of each array."""
    arrays = named(params)
    sums = checksums.of_arrays(arrays)
    return {name: [str(jnp.result_type(leaf)), sums[name]] for name, leaf in arrays.items()}


def _agrees(kept: Any, member: int, params: Params) -> bool:
    """Whether parameters are those of the member on record; arrays read as another type may be."""
    if kept is None:
        return True
    try:
        if kept['member'] != member:
            return False
        found, arrays = _about_arrays(params), dict(kept['arrays'])
        same = {name for name in found if arrays[name][0] == found[name][0]}
        return all(arrays[name] == found[name] for name in same)
    except (KeyError, TypeError, ValueError, IndexError):
        return False


def _check_files(checkpoint: Path) -> None:
    """ValueError unless there are regular files alone, and those of JSON can be parsed."""
    for folder, _, names in os.walk(checkpoint):
        for name in names:
            path = Path(folder, name)
            files.check_regular(path)
            if _is_json(path):
                # orbax recurses as deep as they are nested.
                read_json(path, most_bytes=_MOST_BYTES, most_depth=MOST_DEPTH + 4)


def _is_json(path: Path) -> bool:
    about = {'_CHECKPOINT_METADATA', '_METADATA', '_sharding', 'metadata'}
    return path.name in about or path.parent.name == 'array_metadatas'


def _inode(path: Path) -> tuple[int, int] | None:
    """Which directory this is; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _row(leaf: AnyArray, row: int) -> AnyArray:
    if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding):
        # Spread over devices as it was: left to itself, every one would be given all of it.
        spread = NamedSharding(leaf.sharding.mesh, PartitionSpec(*leaf.sharding.spec[1:]))
        return jax.jit(_at, out_shardings=spread)(leaf, np.int32(row))
    return leaf[row, ...]  # an array also of one number, where `leaf[row]` is a numpy scalar


def _at(rows: jax.Array, row: jax.Array) -> jax.Array:
    return rows[row]


def _differences(old: Any, new: Any, name: str = '') -> Iterator[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield f'{name}: {old} -> {new}'
        return
    for key in sorted(old.keys() | new.keys()):
        yield from _differences(old.get(key), new.get(key), f'{name}.{key}' if name else key)


def _path(directory: Path, member: int) -> Path:
    return directory.absolute() / f'{member:06}'
