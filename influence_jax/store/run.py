"""A run directory as an object: made or resumed by the one writer, opened by any reader."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, UInt8

from influence_jax.store import checks, digests, layout, texts
from influence_jax.store.arrays import write_rows
from influence_jax.store.errors import ConfigurationMismatch, CorruptRun, RunError, RunGone
from influence_jax.store.files import Lock, make_directory, os_errors
from influence_jax.store.layout import Arrays
from influence_jax.store.manifest import Manifest
from influence_jax.store.status import MemberStatus, Statuses, of_rows
from influence_jax.types import AnyArray


def create_or_resume(
    directory: Path | str, manifest: Manifest, masks: Bool[AnyArray, 'M N']
) -> 'Run':
    """Makes a run directory, or resumes the one that is there; close what is returned.

    A directory whose making was interrupted is finished. On resuming, the manifest in the
    directory is kept; it may differ in where it came from (versions, command), not in what
    determines the results.

    Args:
        directory: where; absent, empty, or a run.
        manifest: what the run is.
        masks: bool `[M N]`, the subset of each member.

    Raises:
        ValueError: masks do not fit the manifest.
        ConfigurationMismatch: the directory holds a run of another configuration.
        NotARun: the directory holds something else.
        RunLocked: another process is writing to it.
        RunError: its files are damaged, or the disk is full or read-only.
    """
    directory = Path(directory).absolute()
    masks = checks.masks(masks, manifest)
    layout.refuse_foreign(directory)
    make_directory(directory)
    lock = Lock(directory / layout.LOCK)
    try:
        # Once more: another process may have made the run between the first look and the lock.
        layout.refuse_foreign(directory)
        if not layout.is_run(directory):
            manifest, arrays = layout.create(directory, manifest, masks)
            return Run(directory, manifest, masks, arrays, lock)
        old = layout.read_manifest(directory)
        if differences := old.differences(manifest):
            raise ConfigurationMismatch(directory, differences)
        arrays = layout.open_arrays(directory, old)
        old_masks = layout.read_masks(arrays, old)
        if len(changed := np.flatnonzero((old_masks != masks).any(axis=1))):
            raise ConfigurationMismatch(
                directory, [f'masks: {len(changed)} of {len(masks)} rows, first {changed[0]}']
            )
        return Run(directory, old, old_masks, arrays, lock)
    except BaseException:
        lock.release()
        raise


def open_run(directory: Path | str) -> 'Run':
    """Opens a run for reading, also while it is being written.

    What it then says is what was recorded when it was opened; open it again to see more.

    Raises:
        NotARun: the directory is absent, not a run, or not yet finished being made.
        RunError: its files are damaged or cannot be read.
    """
    directory = Path(directory).absolute()
    layout.require_run(directory)
    manifest = layout.read_manifest(directory)
    arrays = layout.open_arrays(directory, manifest)
    masks = layout.read_masks(arrays, manifest)
    return Run(directory, manifest, masks, arrays, None)


class Run(Statuses):
    """A run: `create_or_resume` gives one to write to, `open_run` one to read.

    directory: its absolute path.
    manifest: what the run is.
    masks: bool `[M N]`, read-only; row m is the subset on which member m trains.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        masks: Bool[np.ndarray, 'M N'],
        arrays: Arrays,
        lock: Lock | None,
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.masks = masks
        self.masks.flags.writeable = False
        self._arrays = arrays
        self._lock = lock
        self._status = self._read_status()
        # Of the rows of each member that is not missing; read once, as the status is.
        self._digests = self._read_digests()

    def _read_status(self) -> Int8[np.ndarray, ' M']:
        array = self._arrays.status
        status = np.full(self.manifest.members, MemberStatus.MISSING, np.int8)
        recorded = array.files()
        try:
            found = array.read_written(recorded)
        except CorruptRun as error:
            assert error.member is not None
            raise self._trained_again(error.member, f'{error}', file=error.file) from error
        for member, state in zip(recorded, found.tolist(), strict=True):
            if state not in list(MemberStatus):
                file = array.file_of(member)
                raise self._trained_again(
                    member, f'{file}: unknown status {state} of member {member}', file=file
                )
            status[member] = state
        return status

    def _read_digests(self) -> dict[int, UInt8[np.ndarray, 'D B']]:
        array = self._arrays.digests
        if array is None:
            return {}
        recorded = np.flatnonzero(self._status != MemberStatus.MISSING).tolist()
        try:
            found = dict(zip(recorded, array.read_written(recorded), strict=True))
        except CorruptRun as error:
            assert error.member is not None
            raise self._trained_again(error.member, f'{error}', file=error.file) from error
        for member, record in found.items():
            state = int(self._status[member])
            expected = digests.of_record(self.manifest.identity, member, state, record[1:])
            if not np.array_equal(record[0], expected):
                files = f'{self._arrays.status.file_of(member)} and {array.file_of(member)}'
                raise self._trained_again(
                    member,
                    f'{files} were not written together for member {member} of this run',
                    file=array.file_of(member),
                )
        return found

    def _trained_again(self, member: int, message: str, *, file: Path) -> CorruptRun:
        """The error for a member's damaged file: what to delete so that it counts as missing."""
        status = self._arrays.status.file_of(member)
        delete = 'it' if status == file else status
        return CorruptRun(
            f'{message}; delete {delete} and start the same command again: member {member} is '
            f'then trained anew',
            file=file,
            member=member,
        )

    def __repr__(self) -> str:
        done, diverged = len(self.complete), len(self.diverged)
        return f'Run({self.directory}: {done} of {len(self._status)} members, {diverged} diverged)'

    @property
    def example_ids(self) -> tuple[str, ...]:
        """Ids of the examples: the columns of `masks`."""
        return self.manifest.example_ids

    @property
    def target_ids(self) -> tuple[str, ...]:
        """Ids of the targets: the columns of every measurement."""
        return self.manifest.target_ids

    @property
    def notes(self) -> dict[str, Any]:
        """What `note` has kept; empty at first."""
        return layout.read_notes(self.directory, run=self._owner)

    def note(self, name: str, value: Any) -> None:
        """Keeps a value (of what JSON can hold) for whoever continues the run; durable on return.

        For choices that are measured once and then kept, such as how many members are vmapped:
        they change results within floating-point noise, so they are no part of the manifest.
        """
        self.require_in_place()
        layout.write_notes(self.directory, self.notes | {name: value}, run=self._owner)

    def measurement(self, name: str = 'loss') -> Float[np.ndarray, 'M T']:
        """A measurement of every member and target, float32; losses are in nats.

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
            assert error.member is not None
            if not layout.is_run(self.directory):
                raise RunGone(f'{self.directory} was deleted or moved; open it again') from error
            raise self._trained_again(error.member, f'{error}', file=error.file) from error
        return values

    def _check_rows(
        self, name: str, members: Sequence[int], rows: Float[np.ndarray, 'R T']
    ) -> None:
        """CorruptRun unless complete members' rows are finite, and theirs."""
        array = self._arrays.measurements[name]
        number = 1 + self.manifest.measurements.index(name)
        for member, row in zip(members, rows, strict=True):
            reason = None
            if not np.isfinite(row).all():
                reason = 'it holds values that are not finite, but the member is complete'
            elif member in self._digests:
                own = digests.of_row(self.manifest.identity, name, member, row)
                if not np.array_equal(own, self._digests[member][number]):
                    reason = 'it is not the file that was written for this member'
            if reason:
                file = array.file_of(member)
                raise CorruptRun(
                    f'{file} of member {member} is damaged: {reason}', file=file, member=member
                )

    def write(
        self, members: Int[AnyArray, ' C'], measurements: Mapping[str, Float[AnyArray, 'C T']]
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
        if self._lock is None:
            raise ValueError(f'{self!r} is open for reading only, or closed')
        members = checks.members(members, total=len(self._status))
        recorded = members[self._status[members] != MemberStatus.MISSING]
        if len(recorded):
            raise ValueError(f'members {recorded.tolist()} are already recorded')
        rows = checks.rows(measurements, self.manifest, count=len(members))
        status = of_rows(rows)
        indices = members.tolist()
        to_write = [(self._arrays.measurements[name], values) for name, values in rows.items()]
        recorded = None
        if self._arrays.digests is not None:
            recorded = digests.of_rows(self.manifest.identity, members, rows, status)
            to_write.append((self._arrays.digests, recorded))
        self.require_in_place()
        try:
            write_rows(indices, to_write)
            self.require_in_place()
            # Only now: an entry in status says that all rows of the member are on the disk.
            write_rows(indices, [(self._arrays.status, status.astype(np.uint8))])
        finally:
            # Once more: it may have gone meanwhile, and what was written have made part of it.
            try:
                self.require_in_place()
            except RunGone:
                layout.remove_remains(self.directory, self._arrays, indices)
                raise
        self._status[members] = status
        if recorded is not None:
            self._digests.update(zip(indices, recorded, strict=True))

    def require_in_place(self) -> None:
        """RunGone where the directory was deleted, moved or replaced since it was opened to write.

        To be called before anything is written below it, which would make half of it again.
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
        """What `write_texts` has kept, one a target; CorruptRun where it is missing or damaged."""
        path = layout.texts(self.directory, name)
        return texts.read(path, count=len(self.target_ids), run=self._owner)

    def write_texts(self, name: str, of_targets: Sequence[str]) -> None:
        """Keeps a text for each target, such as what a member has written; durable on return.

        Args:
            name: of these texts; those that had it are replaced.
            of_targets: as many as there are targets.

        Raises:
            ValueError: the run was opened for reading or is closed, or there are more or fewer.
            StorageFailed: disk full, read-only ...
        """
        if self._lock is None:
            raise ValueError(f'{self!r} is open for reading only, or closed')
        if len(of_targets) != len(self.target_ids):
            raise ValueError(f'{len(of_targets)} texts for {len(self.target_ids)} targets')
        self.require_in_place()
        texts.write(layout.texts(self.directory, name), of_targets, run=self._owner)

    @property
    def _owner(self) -> str | None:
        return self.manifest.identity if self.manifest.has_digests else None

    def close(self) -> None:
        """Lets the next writer in; what is recorded can still be read."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> 'Run':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
