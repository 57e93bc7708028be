"""A run directory as an object: created, resumed or extended by one writer, opened by readers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from influence_jax.resources import available_bytes
from influence_jax.store import layout, shown
from influence_jax.store.arrays import write_rows
from influence_jax.store.files import (
    ConfigurationMismatch,
    CorruptRun,
    FewerMembers,
    Lock,
    RunError,
    RunGone,
    make_directory,
    os_errors,
    refuse_irregular,
)
from influence_jax.store.layout import Arrays
from influence_jax.store.manifest import Manifest
from influence_jax.store.members import (
    Members,
    MemberStatus,
    checked_masks,
    checked_members,
    checked_rows,
    member_digests,
    record_digest,
    row_digest,
    status_of_rows,
)
from influence_jax.store.shown import Shown
from influence_jax.types import AnyArray

R = TypeVar('R', bound='Run')


class Run(Members):
    """A run: `create_or_resume` returns one to write to, `open` one to read."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        masks: Bool[np.ndarray, 'M N'],
        arrays: Arrays,
        lock: Lock | None,
    ) -> None:
        self._arrays = arrays
        self._lock = lock
        missing = np.full(manifest.members, MemberStatus.MISSING, np.int8)
        super().__init__(directory, manifest, masks, missing)
        self._read_status()
        # Of the rows of each member that is not missing; read once, as the status is.
        self._digests = self._read_digests()
        self._shown: Shown | None = None

    @classmethod
    def open(cls: type[R], directory: Path | str) -> R:
        """Opens a run for reading, also while it is being written or extended.

        What it contains is what was recorded when it was opened; open it again to see more.

        Raises:
            NotARun: the directory is absent, not a run, or not yet completely created.
            RunError: its files are damaged or cannot be read.
        """
        directory = Path(directory).absolute()
        layout.require_run(directory)
        manifest = layout.read_manifest(directory)
        arrays = layout.open_arrays(directory, manifest)
        masks = layout.read_masks(arrays, manifest)
        return cls(directory, manifest, masks, arrays, None)

    def _read_status(self) -> None:
        array = self._arrays.status
        # Later members may be there by now: those of a run that was extended since.
        recorded = [member for member in array.files() if member < self.manifest.members]
        try:
            found = array.read_written(recorded)
        except CorruptRun as error:
            raise self._damaged(error) from error
        for member, state in zip(recorded, found.tolist(), strict=True):
            if state not in list(MemberStatus):
                file = array.file_of(member)
                raise self._damaged(
                    CorruptRun(
                        f'{file}: unknown status {state} of member {member}',
                        file=file,
                        member=member,
                    )
                )
            self._status[member] = state

    def _read_digests(self) -> dict[int, UInt8[np.ndarray, 'D B']]:
        array = self._arrays.digests
        if array is None:
            return {}
        recorded = np.flatnonzero(self._status != MemberStatus.MISSING).tolist()
        try:
            found = dict(zip(recorded, array.read_written(recorded), strict=True))
        except CorruptRun as error:
            raise self._damaged(error) from error
        for member, record in found.items():
            state = int(self._status[member])
            expected = record_digest(self.manifest.identity, member, state, record[1:])
            if not np.array_equal(record[0], expected):
                file = array.file_of(member)
                files = f'{self._arrays.status.file_of(member)} and {file}'
                raise self._damaged(
                    CorruptRun(
                        f'{files} were not written together for member {member} of this run',
                        file=file,
                        member=member,
                    )
                )
        return found

    def _damaged(self, error: CorruptRun) -> CorruptRun:
        """Returns the error of a member's file, with what to delete so that it is trained again."""
        assert error.member is not None
        status = self._arrays.status.file_of(error.member)
        delete = 'it' if status == error.file else status
        return CorruptRun(
            f'{error}; delete {delete} and start the same command again: member {error.member} '
            f'is then trained again',
            file=error.file,
            member=error.member,
        )

    @property
    def notes(self) -> dict[str, Any]:
        """What `note` has kept; empty at first."""
        return shown.read_notes(self.directory, run=self._owner)

    def note(self, name: str, value: Any) -> None:
        """Keeps a value (of what JSON can hold) for whoever continues the run; durable on return.

        For choices that are measured once and then kept, such as how many members are vmapped:
        they change results within floating-point noise, so they are no part of the manifest.

        Raises:
            ValueError: the run was opened for reading or is closed, or JSON cannot hold the value.
            StorageFailed: disk full, read-only ...
        """
        self._require_writer()
        self.require_in_place()
        shown.write_notes(self.directory, self.notes | {name: value}, run=self._owner)

    def measurement(self, name: str = 'loss') -> Float[np.ndarray, 'M T']:
        """Reads a measurement of every member and target, float32; losses are in nats.

        Rows of missing and of diverged members are NaN, all others are finite.

        Raises:
            ValueError: no measurement has that name.
            CorruptRun: a complete member's row is damaged; names the member and the file.
            RunGone: the directory is no longer there.
            RunError: there is not enough memory.
        """
        if name not in self._arrays.measurements:
            names = ', '.join(self.manifest.measurements)
            raise ValueError(f'{self.directory} has no measurement {name!r}; it has: {names}')
        array = self._arrays.measurements[name]
        shape = len(self._status), len(self.target_ids)
        complete = self.complete.tolist()
        start = 0
        try:
            array.check_files(complete)  # before memory is taken
            if 4 * math.prod(shape) > (available_bytes() or math.inf):
                raise MemoryError  # the system would grant it, and then kill this process
            values = np.full(shape, np.nan, np.float32)
            for block in array.blocks(complete):
                members = complete[start : start + len(block)]
                self._check_rows(name, members, block)
                values[members] = block
                start += len(block)
        except MemoryError as error:
            raise RunError(
                f'{self.directory}: {name} of {shape[0]:,} members and {shape[1]:,} targets takes '
                f'{4 * math.prod(shape):,} bytes, more than there are here; use a larger machine'
            ) from error
        except CorruptRun as error:
            if not layout.is_run(self.directory):
                raise RunGone(f'{self.directory} was deleted or moved; open it again') from error
            raise self._damaged(error) from error
        return values

    def _check_rows(
        self, name: str, members: Sequence[int], rows: Float[np.ndarray, 'R T']
    ) -> None:
        """Raises CorruptRun unless complete members' rows are finite, and their own."""
        array = self._arrays.measurements[name]
        number = 1 + self.manifest.measurements.index(name)
        for member, row in zip(members, rows, strict=True):
            reason = None
            if not np.isfinite(row).all():
                reason = 'it holds values that are not finite, but the member is complete'
            elif member in self._digests:
                own = row_digest(self.manifest.identity, name, member, row)
                if not np.array_equal(own, self._digests[member][number]):
                    reason = 'it is not the file that was written for this member'
            if reason:
                file = array.file_of(member)
                raise CorruptRun(
                    f'{file} of member {member} is damaged: {reason}', file=file, member=member
                )

    def write(
        self,
        members: Sequence[int] | Int[AnyArray, ' C'],
        measurements: Mapping[str, Shaped[AnyArray, 'C T']],
    ) -> None:
        """Records some members' measurements; durable on return.

        Members of which any value is not finite are recorded as diverged.

        Args:
            members: indices `[C]` of missing members.
            measurements: `[C T]` for each of the manifest's measurements; kept as float32.

        Raises:
            ValueError: the run was opened for reading or is closed, a member is not missing,
                or names or shapes do not fit the manifest.
            RunGone: the directory was deleted, moved or replaced.
            StorageFailed: disk full, read-only ...; these members stay missing.
        """
        self._require_writer()
        members = checked_members(members, total=len(self._status))
        recorded = members[self._status[members] != MemberStatus.MISSING]
        if len(recorded):
            raise ValueError(f'members {recorded.tolist()} are already recorded')
        rows = checked_rows(measurements, self.manifest, count=len(members))
        status = status_of_rows(rows)
        indices = members.tolist()
        to_write = [(self._arrays.measurements[name], values) for name, values in rows.items()]
        recorded = None
        if self._arrays.digests is not None:
            recorded = member_digests(self.manifest.identity, members, rows, status)
            to_write.append((self._arrays.digests, recorded))
        self.require_in_place()
        try:
            write_rows(indices, to_write)
            self.require_in_place()
            # Only now: an entry in status says that all rows of the member are on the disk.
            write_rows(indices, [(self._arrays.status, status.astype(np.uint8))])
        finally:
            # Once more: it may be gone by now, and writing have created parts of it again.
            try:
                self.require_in_place()
            except RunGone:
                layout.remove_remains(self.directory, self._arrays, indices)
                raise
        self._status[members] = status
        if recorded is not None:
            self._digests.update(zip(indices, recorded, strict=True))

    def require_in_place(self) -> None:
        """Raises RunGone where the directory was deleted, moved or replaced since it was opened.

        To be called before anything is written below it, which would create half of it again.
        """
        if self._lock is None:
            return
        with os_errors(self.directory):
            there = layout.is_run(self.directory) and all(
                array.is_in_place() for array in self._arrays.all()
            )
        if not (there and self._lock.is_in_place()):
            raise RunGone(
                f'{self.directory} was deleted, moved or replaced while members were trained; put '
                f'it back or remove what is left of it, and start the same command again'
            )

    def texts(self, name: str) -> tuple[str, ...]:
        """Reads what `write_texts` has kept; CorruptRun where it is missing or damaged."""
        count = len(self.target_ids)
        return shown.read_texts(self.directory, name, count=count, run=self._owner)

    def write_texts(self, name: str, of_targets: Sequence[str]) -> None:
        """Keeps a text for each target, such as what a member has written; durable on return.

        Args:
            name: of these texts; those that had it are replaced.
            of_targets: as many as there are targets.

        Raises:
            ValueError: the run was opened for reading or is closed, or there are more or fewer.
            StorageFailed: disk full, read-only ...
        """
        self._require_writer()
        if len(of_targets) != len(self.target_ids):
            raise ValueError(f'{len(of_targets)} texts for {len(self.target_ids)} targets')
        self.require_in_place()
        shown.write_texts(self.directory, name, of_targets, run=self._owner)

    def text(self, name: str) -> str:
        """Reads what `write_text` has kept; CorruptRun where it is missing or damaged."""
        return shown.read_texts(self.directory, name, count=1, run=self._owner)[0]

    def write_text(self, name: str, text: str) -> None:
        """Keeps one text, such as the tokenizer of the task, as `write_texts` does."""
        self._require_writer()
        self.require_in_place()
        shown.write_texts(self.directory, name, (text,), run=self._owner)

    @property
    def shown(self) -> Shown | None:
        """What reports show of the examples; None in runs that keep nothing of it.

        Raises:
            CorruptRun: it is damaged, or another run's.
        """
        if self._shown is None:
            count = len(self.example_ids)
            self._shown = shown.read_shown(self.directory, count=count, run=self.manifest.identity)
        return self._shown

    def write_shown(self, examples: Shown) -> None:
        """Keeps what reports show of the examples, unless the same is kept; durable on return.

        Raises:
            ValueError: the run was opened for reading or is closed, or there are more or fewer.
            StorageFailed: disk full, read-only ...
        """
        self._require_writer()
        if len(examples.names) != len(self.example_ids):
            raise ValueError(f'{len(examples.names)} names for {len(self.example_ids)} examples')
        self.require_in_place()
        shown.write_shown(self.directory, examples, run=self.manifest.identity)
        self._shown = examples

    def _require_writer(self) -> None:
        if self._lock is None:
            raise ValueError(f'{self!r} is open for reading only, or closed')

    @property
    def _owner(self) -> str | None:
        return self.manifest.identity if self.manifest.has_digests else None

    def close(self) -> None:
        """Releases the lock for the next writer; what is recorded can still be read."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


@overload
def create_or_resume(
    directory: Path | str, manifest: Manifest, masks: Bool[AnyArray, 'M N']
) -> Run: ...
@overload
def create_or_resume(
    directory: Path | str, manifest: Manifest, masks: Bool[AnyArray, 'M N'], *, kind: type[R]
) -> R: ...
def create_or_resume(
    directory: Path | str,
    manifest: Manifest,
    masks: Bool[AnyArray, 'M N'],
    *,
    kind: type[Run] = Run,
) -> Run:
    """Creates a run directory, or resumes the one that is there; close what is returned.

    A run of fewer members than the manifest's is extended in place; its results are kept. A
    directory whose creation was interrupted is completed. On resuming, the manifest in the
    directory is kept; it may differ in where it came from (versions, command) and how it was
    executed, not in what determines the results.

    Args:
        directory: where; absent, empty, or a run.
        manifest: what the run is.
        masks: bool `[M N]`, the subset of each member; the first rows of a run that is there must
            be its own.
        kind: the class of what is returned.

    Raises:
        ValueError: masks do not fit the manifest.
        ConfigurationMismatch: the directory holds a run of another configuration or other masks.
        FewerMembers: the directory holds a run of more members.
        NotARun: the directory holds something else.
        RunLocked: another process is writing to it.
        RunError: its files are damaged, or the disk is full or read-only.
    """
    directory = Path(directory).absolute()
    masks = checked_masks(masks, manifest)
    layout.refuse_foreign(directory)
    make_directory(directory)
    refuse_irregular(path := directory / layout.LOCK)
    with os_errors(path):
        lock = Lock(path)
    try:
        # Once more: another process may have created the run between the first look and the lock.
        layout.refuse_foreign(directory)
        if layout.is_run(directory):
            manifest, arrays = _resumed(directory, manifest, masks)
        else:
            manifest, arrays = layout.create(directory, manifest, masks)
        return kind(directory, manifest, masks, arrays, lock)
    except BaseException:
        lock.release()
        raise


def _resumed(
    directory: Path, new: Manifest, masks: Bool[np.ndarray, 'M N']
) -> tuple[Manifest, Arrays]:
    """Opens the run that is there, extended to as many members as the new manifest's."""
    manifest = layout.read_manifest(directory)
    if differences := manifest.differences(new):
        raise ConfigurationMismatch(directory, differences)
    if new.members < manifest.members:
        raise FewerMembers(directory, existing=manifest.members, requested=new.members)
    arrays = layout.open_arrays(directory, manifest)
    there = layout.read_masks(arrays, manifest)
    if len(changed := np.flatnonzero((there != masks[: len(there)]).any(axis=1))):
        raise ConfigurationMismatch(
            directory, [f'masks: {len(changed)} of {len(there)} rows, first {changed[0]}']
        )
    if new.members > manifest.members:
        return layout.extend(directory, manifest, arrays, masks)
    return manifest, arrays


def open_run(directory: Path | str) -> Run:
    """Opens a run for reading, as `Run.open` does."""
    return Run.open(directory)
