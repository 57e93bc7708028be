"""What is known of members: their states, checked rows, and digests that bind both to the run.

A file's own checksum shows that it is whole, not that it is the file that was written there.
"""

import enum
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Shaped, UInt8

from influence_jax.store.manifest import Manifest, canonical_json
from influence_jax.types import AnyArray

if TYPE_CHECKING:
    from influence_jax.store.shown import Shown

M = TypeVar('M', bound='Members')

DIGEST_BYTES = 16


class MemberStatus(enum.IntEnum):
    """What is known of a member."""

    MISSING = 0
    COMPLETE = 1
    DIVERGED = 2


def status_of_rows(rows: Mapping[str, Float[np.ndarray, 'C T']]) -> Int8[np.ndarray, ' C']:
    """Returns each member's status: diverged where any of its measured values is not finite."""
    finite = np.all([np.isfinite(values).all(axis=1) for values in rows.values()], axis=0)
    return np.where(finite, MemberStatus.COMPLETE, MemberStatus.DIVERGED).astype(np.int8)


class Members:
    """Which members of a run there are.

    directory: its absolute path.
    manifest: what the run is.
    masks: bool `[M N]`, read-only; row m is the subset on which member m trains.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        masks: Bool[np.ndarray, 'M N'],
        status: Int8[np.ndarray, ' M'],
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.masks = masks
        self.masks.flags.writeable = False
        self._status = status

    @property
    def example_ids(self) -> tuple[str, ...]:
        """Ids of the examples: the columns of `masks`."""
        return self.manifest.example_ids

    @property
    def target_ids(self) -> tuple[str, ...]:
        """Ids of the targets: the columns of every measurement."""
        return self.manifest.target_ids

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of what is recorded of each member and target."""
        return self.manifest.measurements

    @property
    def member_status(self) -> Int8[np.ndarray, ' M']:
        """Each member's `MemberStatus`."""
        return self._status.copy()

    @property
    def missing(self) -> Int[np.ndarray, ' R']:
        """Indices of the members still to be trained."""
        return np.flatnonzero(self._status == MemberStatus.MISSING)

    @property
    def complete(self) -> Int[np.ndarray, ' R']:
        """Indices of the members whose measurements are there and finite."""
        return np.flatnonzero(self._status == MemberStatus.COMPLETE)

    @property
    def diverged(self) -> Int[np.ndarray, ' R']:
        """Indices of the members with a measurement that is not finite."""
        return np.flatnonzero(self._status == MemberStatus.DIVERGED)

    def close(self) -> None:
        """Ends writing."""

    def __enter__(self: M) -> M:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        done, diverged = len(self.complete), len(self.diverged)
        return (
            f'{type(self).__name__}({self.directory}: {done} of {len(self._status)} members, '
            f'{diverged} diverged)'
        )


class ReadOnlyRun(Members):
    """A run as the processes besides the primary know it, which alone writes to the disk.

    It remembers the members that are written, as the primary records them, so that all processes
    agree on which are missing. It neither reads nor writes files: the disk may be another host's.
    """

    def __init__(
        self,
        directory: Path | str,
        manifest: Manifest,
        masks: Bool[AnyArray, 'M N'],
        status: Int8[np.ndarray, ' M'],
    ) -> None:
        """Takes what the primary's `Run` has: manifest, masks and status."""
        masks = checked_masks(masks, manifest)
        super().__init__(Path(directory).absolute(), manifest, masks, status.copy())

    def write(
        self,
        members: Sequence[int] | Int[AnyArray, ' C'],
        measurements: Mapping[str, Shaped[AnyArray, 'C T']],
    ) -> None:
        """Remembers that they are there; the primary records them."""
        rows = checked_rows(measurements, self.manifest, count=len(members))
        self._status[np.asarray(members)] = status_of_rows(rows)

    def require_in_place(self) -> None:
        """Does nothing: the primary checks."""

    def note(self, name: str, value: Any) -> None:
        """Does nothing: the primary keeps it."""

    def write_texts(self, name: str, of_targets: Sequence[str]) -> None:
        """Does nothing: the primary keeps them."""

    def write_shown(self, examples: 'Shown') -> None:
        """Does nothing: the primary keeps it."""


def checked_masks(values: Bool[AnyArray, '...'], manifest: Manifest) -> Bool[np.ndarray, 'M N']:
    """Returns a copy of the masks; ValueError where they do not fit the manifest."""
    values = np.array(values)
    expected = (manifest.members, len(manifest.example_ids))
    if values.dtype != np.bool_ or values.shape != expected:
        raise ValueError(
            f'masks are {values.dtype}{list(values.shape)}, expected bool{list(expected)}'
        )
    return values


def checked_members(
    indices: Sequence[int] | Int[AnyArray, ' C'], *, total: int
) -> Int[np.ndarray, ' C']:
    """Returns the indices; ValueError unless they are distinct and in `0..total - 1`."""
    indices = np.asarray(indices)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f'members must be a list of indices, not {indices.dtype}{list(indices.shape)}'
        )
    if np.any((indices < 0) | (indices >= total)):
        raise ValueError(f'members {indices.tolist()} are not all in 0..{total - 1}')
    if len(np.unique(indices)) != len(indices):
        raise ValueError(f'members {indices.tolist()} are not distinct')
    return indices


def checked_rows(
    measurements: Mapping[str, Shaped[AnyArray, 'C T']], manifest: Manifest, *, count: int
) -> dict[str, Float[np.ndarray, 'C T']]:
    """Returns the measurements as float32; ValueError where they do not fit the manifest."""
    names = manifest.measurements
    if set(measurements) != set(names):
        raise ValueError(f'measurements are {sorted(measurements)}, expected {sorted(names)}')
    expected = (count, len(manifest.target_ids))
    checked = {}
    for name in names:
        # What float32 cannot hold becomes infinite, and so the member diverged.
        with np.errstate(over='ignore', invalid='ignore'):
            checked[name] = np.asarray(measurements[name]).astype(np.float32)
        if checked[name].shape != expected:
            raise ValueError(
                f'measurement {name} has shape {list(checked[name].shape)}, '
                f'expected {list(expected)}'
            )
    return checked


def masks_digest(masks: Bool[np.ndarray, 'M N']) -> str:
    """Returns the sha256 of masks and of their shape."""
    digest = hashlib.sha256(canonical_json(list(masks.shape)))
    for row in masks:
        digest.update(np.packbits(row).tobytes())
    return digest.hexdigest()


def row_digest(
    run: str, name: str, member: int, row: Float[np.ndarray, ' T']
) -> UInt8[np.ndarray, ' B']:
    """Returns the digest of a member's row of a measurement.

    Args:
        run: the run's identity.
        name: of the measurement.
        member: whose row it is.
        row: the values.
    """
    return _digest([run, 'row', name, member], row.astype('<f4').tobytes())


def record_digest(
    run: str, member: int, status: int, rows: UInt8[np.ndarray, 'K B']
) -> UInt8[np.ndarray, ' B']:
    """Returns the digest of a member's status and of the digests of its rows."""
    return _digest([run, 'record', member, status], rows.tobytes())


def member_digests(
    run: str,
    members: Int[np.ndarray, ' C'],
    rows: Mapping[str, Float[np.ndarray, 'C T']],
    status: Int[np.ndarray, ' C'],
) -> UInt8[np.ndarray, 'C D B']:
    """Returns what is recorded of members: `record_digest`, then the digests of their K rows."""
    recorded = np.empty((len(members), 1 + len(rows), DIGEST_BYTES), np.uint8)
    for record, member, state, *own in zip(
        recorded, members.tolist(), status.tolist(), *rows.values(), strict=True
    ):
        for k, (name, row) in enumerate(zip(rows, own, strict=True)):
            record[1 + k] = row_digest(run, name, member, row)
        record[0] = record_digest(run, member, state, record[1:])
    return recorded


def _digest(head: Sequence[Any], content: bytes) -> UInt8[np.ndarray, ' B']:
    digest = hashlib.blake2b(canonical_json(list(head)), digest_size=DIGEST_BYTES)
    digest.update(content)
    return np.frombuffer(digest.digest(), np.uint8)
