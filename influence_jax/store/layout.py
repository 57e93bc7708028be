"""The parts of a run directory: how one is created, opened and extended.

A run is extended by making room in its arrays, writing the new rows of the masks and replacing the
manifest, in this order. Killed in between, it is the run it was: arrays may be longer than the
manifest says, and only the manifest's rows are read.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from influence_jax import files
from influence_jax.store.arrays import RowArray, RowFormat, lock_of
from influence_jax.store.files import (
    AGAIN,
    BadManifest,
    CorruptRun,
    NotARun,
    make_directory,
    os_errors,
    refuse_link,
    sync_directory,
    write_atomically,
)
from influence_jax.store.manifest import Manifest
from influence_jax.store.members import DIGEST_BYTES, masks_digest

PARAMS = 'params'
"""Folder of the members' parameters, where they are kept."""
IN_TRAINING = 'in_training'
"""Folder of the state of members while they train, where it is kept."""
FULL_DATA_MODEL = 'everything'
"""Folder of a run of one member, trained on all examples."""
COMPLETIONS = 'completions'
"""Texts, in that run, that it writes after each record's prompt."""
LOCK = 'lock'
_MANIFEST = 'manifest.json'
_MASKS = 'masks.zarr'
_MEASUREMENTS = 'measurements'
_DIGESTS = 'digests.zarr'
_STATUS = 'status.zarr'
_PARTS = {LOCK, f'{_MANIFEST}.partial', _MASKS, _MEASUREMENTS, _DIGESTS, _STATUS}
_BYTES_PER_MASKS_FILE = 2**22
_MOST_MANIFEST_BYTES = 2**28
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The arrays of a run; digests are None in one of an earlier version."""

    masks: RowArray
    measurements: Mapping[str, RowArray]
    digests: RowArray | None
    status: RowArray

    def of_members(self) -> list[RowArray]:
        """Returns those in which each member has a file."""
        found = [*self.measurements.values(), self.digests, self.status]
        return [array for array in found if array is not None]

    def all(self) -> list[RowArray]:
        """Returns every array."""
        return [self.masks, *self.of_members()]


def is_run(directory: Path) -> bool:
    """Whether a directory is a run, complete or not."""
    path = directory / _MANIFEST
    with os_errors(directory):
        # A link to nowhere is a manifest that cannot be read.
        return path.is_symlink() or path.exists()


def refuse_foreign(directory: Path) -> None:
    """Raises NotARun or BadManifest unless a run is there or can be created; changes nothing."""
    with os_errors(directory):
        if directory.exists() and not directory.is_dir():
            raise NotARun(f'{directory} is a file; choose another directory')
        if not directory.exists():
            return
        names = {path.name for path in directory.iterdir()}
    if _MANIFEST in names:
        read_manifest(directory)
        return
    if foreign := sorted(names - _PARTS):
        raise NotARun(
            f'{directory} is not empty and not a run (it holds {foreign[0]!r}); '
            'choose a new or empty directory'
        )
    with os_errors(directory):
        # Members are recorded only after the manifest was written: someone has removed it.
        if any((directory / _STATUS).glob('c.*')):
            raise NotARun(
                f'{directory} holds recorded members but no {_MANIFEST}; '
                'put it back, or choose another directory'
            )


def require_run(directory: Path) -> None:
    """Raises NotARun unless the directory is a run."""
    if is_run(directory):
        return
    with os_errors(directory):
        if not directory.is_dir():
            raise NotARun(f'{directory}: no such directory')
        names = {path.name for path in directory.iterdir()}
    if names and names <= _PARTS:
        raise NotARun(
            f'{directory} has no {_MANIFEST}: its creation was interrupted or is under way; '
            'repeat the command that creates it'
        )
    raise NotARun(f'{directory} is not a run: it has no {_MANIFEST}')


def read_manifest(directory: Path) -> Manifest:
    """Reads the directory's manifest.

    Raises:
        BadManifest: it cannot be read as one.
        NotARun: there is none.
    """
    require_run(directory)
    path = directory / _MANIFEST
    try:
        with os_errors(path):
            text = files.read_bytes(path, most_bytes=_MOST_MANIFEST_BYTES)
    except ValueError as error:
        raise BadManifest(f'{error}; put back the manifest.json of the run') from error
    try:
        return Manifest.from_json(text)
    except ValueError as error:
        raise BadManifest(
            f'{path} is not the manifest of a run: {error!s:.300}; {AGAIN}'
        ) from error


def create(
    directory: Path, manifest: Manifest, masks: Bool[np.ndarray, 'M N']
) -> tuple[Manifest, Arrays]:
    """Creates the parts of a run, the manifest last, so that half of it is not a run.

    Returns:
        The manifest that was written, with the digest of the masks, and the arrays.

    Raises:
        ValueError: the manifest is too large to be read again.
    """
    manifest = dataclasses.replace(manifest, masks_sha256=masks_digest(masks))
    text = _manifest_text(manifest)
    forms = _formats(manifest)
    for part in (directory / name for name in (_MEASUREMENTS, *forms)):
        # Remains of an interrupted creation are deleted, but nothing where a link leads.
        refuse_link(part)
    make_directory(directory / _MEASUREMENTS)
    for path, form in forms.items():
        RowArray.create(directory / path, form)
    RowArray.open(directory / _MASKS, forms[_MASKS]).write(masks)
    with os_errors(directory):
        for path in (*forms, _MEASUREMENTS, '.'):
            sync_directory(directory / path)
    write_atomically(directory / _MANIFEST, text)
    return manifest, open_arrays(directory, manifest)


def extend(
    directory: Path, manifest: Manifest, arrays: Arrays, masks: Bool[np.ndarray, 'M N']
) -> tuple[Manifest, Arrays]:
    """Adds members to a run, the manifest last, so that half of it is the run as it was.

    Args:
        directory: of the run, which nobody else writes.
        manifest: of the run as it is.
        arrays: its arrays.
        masks: of all members; the rows of those that there are must be the run's.

    Returns:
        The manifest that was written and the arrays.

    Raises:
        CorruptRun: members are recorded that the manifest does not have.
        ValueError: the manifest is too large to be read again.
    """
    if unknown := [member for member in arrays.status.files() if member >= manifest.members]:
        file = arrays.status.file_of(unknown[0])
        raise CorruptRun(
            f'{file} is of member {unknown[0]}, but {_MANIFEST} has only {manifest.members} '
            f'members: it is an earlier one of this run; put the later one back, or {AGAIN}',
            file=file,
        )
    extended = dataclasses.replace(
        manifest,
        members=len(masks),
        masks_sha256=masks_digest(masks) if manifest.has_digests else None,
    )
    text = _manifest_text(extended)
    for array in arrays.all():
        array.grow(extended.members)
    arrays.masks.write(masks[manifest.members :], start=manifest.members)
    write_atomically(directory / _MANIFEST, text)
    return extended, open_arrays(directory, extended)


def _manifest_text(manifest: Manifest) -> str:
    text = manifest.to_json()
    if len(text) > _MOST_MANIFEST_BYTES:
        raise ValueError(
            f'the manifest would have {len(text):,} bytes, but at most '
            f'{_MOST_MANIFEST_BYTES:,} are read again: choose shorter ids'
        )
    return text


def open_arrays(directory: Path, manifest: Manifest) -> Arrays:
    """Opens the arrays of a run; CorruptRun where one is absent or does not fit the manifest."""
    if not manifest.has_digests:
        with os_errors(directory):
            if (directory / _DIGESTS).exists():
                raise BadManifest(
                    f'{directory / _MANIFEST} lacks the checksum with which it was written; {AGAIN}'
                )
        _log.warning(
            '%s was made by an earlier version, without digests: that its files are whole is '
            'checked, but not whose they are',
            directory,
        )
    try:
        arrays = {
            path: RowArray.open(directory / path, form) for path, form in _formats(manifest).items()
        }
    except CorruptRun as error:
        raise CorruptRun(f'{error}; {AGAIN}', file=error.file) from error
    return Arrays(
        masks=arrays[_MASKS],
        measurements={name: arrays[_measurement(name)] for name in manifest.measurements},
        digests=arrays.get(_DIGESTS),
        status=arrays[_STATUS],
    )


def remove_remains(directory: Path, arrays: Arrays, members: Sequence[int]) -> None:
    """Removes members' files, and folders that are then empty, where there is no run any more.

    Writing creates the folders in which it writes. A run that somebody else has put there stays.
    """
    with contextlib.suppress(OSError):
        if is_run(directory) or (directory / LOCK).exists():
            return
        for array in arrays.of_members():
            for member in members:
                file = array.file_of(member)
                for path in (file, lock_of(file)):
                    path.unlink(missing_ok=True)
    for folder in (*(array.path for array in arrays.all()), directory / _MEASUREMENTS, directory):
        with contextlib.suppress(OSError):  # not empty, or gone
            folder.rmdir()


def read_masks(arrays: Arrays, manifest: Manifest) -> Bool[np.ndarray, 'M N']:
    """Reads the masks of a run; CorruptRun where they are not those that were written."""
    array = arrays.masks
    try:
        masks = array.read_written(range(manifest.members))
    except CorruptRun as error:
        raise CorruptRun(f'{error}; {AGAIN}', file=error.file) from error
    if manifest.has_digests and masks_digest(masks) != manifest.masks_sha256:
        raise CorruptRun(
            f'{array.path} is damaged: its masks are not those of this run (their checksum is '
            f'another than in {_MANIFEST}); {AGAIN}',
            file=array.path,
        )
    return masks


def _measurement(name: str) -> str:
    return f'{_MEASUREMENTS}/{name}.zarr'


def _formats(manifest: Manifest) -> dict[str, RowFormat]:
    members, examples = manifest.members, len(manifest.example_ids)
    rows = max(1, _BYTES_PER_MASKS_FILE // examples)
    losses = RowFormat((members, len(manifest.target_ids)), 'float32', fill='NaN')
    recorded = (members, 1 + len(manifest.measurements), DIGEST_BYTES)
    return {
        _MASKS: RowFormat((members, examples), 'bool', False, rows, compressed=True),
        **{_measurement(name): losses for name in manifest.measurements},
        **({_DIGESTS: RowFormat(recorded, 'uint8', fill=0)} if manifest.has_digests else {}),
        _STATUS: RowFormat((members,), 'uint8', fill=0),
    }
