"""Where things lie in a run directory, and how one comes to be."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from influence_jax import files
from influence_jax.json_files import MOST_DEPTH, parse_json, read_json
from influence_jax.store import digests
from influence_jax.store.arrays import RowArray, RowFormat, lock_of
from influence_jax.store.errors import AGAIN, BadManifest, CorruptRun, NotARun
from influence_jax.store.files import make_directory, os_errors, sync_directory, write_atomically
from influence_jax.store.manifest import Manifest

LOCK = 'lock'
_MANIFEST = 'manifest.json'
_NOTES = 'notes.json'
_MASKS = 'masks.zarr'
_MEASUREMENTS = 'measurements'
_DIGESTS = 'digests.zarr'
_STATUS = 'status.zarr'
_TEXTS = 'texts'
_PARTS = {LOCK, f'{_MANIFEST}.partial', _MASKS, _MEASUREMENTS, _DIGESTS, _STATUS}
_BYTES_PER_MASKS_FILE = 2**22
_MOST_MANIFEST_BYTES, _MOST_NOTES_BYTES = 2**28, 2**24
_CHECKSUM = 'checksum'
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The arrays of a run; digests are None in one of an earlier version."""

    masks: RowArray
    measurements: Mapping[str, RowArray]
    digests: RowArray | None
    status: RowArray

    def of_members(self) -> list[RowArray]:
        """Those of which each member has a file."""
        found = [*self.measurements.values(), self.digests, self.status]
        return [array for array in found if array is not None]

    def all(self) -> list[RowArray]:
        """Each of them."""
        return [self.masks, *self.of_members()]


def read_notes(directory: Path, *, run: str | None) -> dict[str, Any]:
    """The notes of a run; empty where there are none yet.

    Args:
        directory: where the run is.
        run: its identity; None in a run of an earlier version, whose notes have no checksum.

    Raises:
        BadManifest: the file is no JSON object, was changed, or is not of this run.
    """
    path = directory / _NOTES
    with os_errors(path):
        try:
            notes = read_json(path, most_bytes=_MOST_NOTES_BYTES)
        except FileNotFoundError:
            return {}
        except files.NotRegular as error:
            raise BadManifest(f'{path} is {error.kind}; remove it: it holds no results') from error
        except ValueError:
            notes = None
    if not isinstance(notes, dict):
        raise BadManifest(f'{path} is not a JSON object; delete it: it holds no results')
    if run is not None and notes.pop(_CHECKSUM, None) != _checksum_of_notes(run, notes):
        raise BadManifest(
            f'{path} is damaged: its checksum does not match; delete it: it holds no results'
        )
    return notes


def write_notes(directory: Path, notes: Mapping[str, Any], *, run: str | None) -> None:
    """Replaces the notes of a run; ValueError where JSON cannot hold them."""
    try:
        text = json.dumps(dict(notes), indent=1, allow_nan=False)
        notes = parse_json(text, most_depth=MOST_DEPTH - 1)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'notes must hold only what JSON can: {error}') from error
    if run is not None:
        notes = {**notes, _CHECKSUM: _checksum_of_notes(run, notes)}
    write_atomically(directory / _NOTES, json.dumps(notes, indent=1) + '\n')


def _checksum_of_notes(run: str, notes: Mapping[str, Any]) -> str:
    return digests.of_json([run, 'notes', dict(notes)])


def texts(directory: Path, name: str) -> Path:
    """The file of the texts of that name."""
    return directory / _TEXTS / f'{name}.json'


def is_run(directory: Path) -> bool:
    """Whether a directory is a run, complete or not."""
    path = directory / _MANIFEST
    with os_errors(directory):
        # A link to nowhere is a manifest that cannot be read.
        return path.is_symlink() or path.exists()


def refuse_foreign(directory: Path) -> None:
    """NotARun or BadManifest unless a run is there or can be made there; changes nothing."""
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
    """NotARun unless the directory is a run."""
    if is_run(directory):
        return
    with os_errors(directory):
        if not directory.is_dir():
            raise NotARun(f'{directory}: no such directory')
        names = {path.name for path in directory.iterdir()}
    if names and names <= _PARTS:
        raise NotARun(
            f'{directory} has no {_MANIFEST}: making it was interrupted or is under way; '
            'repeat the command that makes it'
        )
    raise NotARun(f'{directory} is not a run: it has no {_MANIFEST}')


def read_manifest(directory: Path) -> Manifest:
    """The directory's manifest; BadManifest where it is not one."""
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
    """Makes the parts of a run, the manifest last, so that half of it is not a run.

    Returns:
        The manifest that was written, which knows the masks, and the arrays.

    Raises:
        ValueError: the manifest is too large to be read again.
    """
    manifest = dataclasses.replace(manifest, masks_sha256=digests.of_masks(masks))
    text = manifest.to_json()
    if len(text) > _MOST_MANIFEST_BYTES:
        raise ValueError(
            f'the manifest would have {len(text):,} bytes, but at most '
            f'{_MOST_MANIFEST_BYTES:,} are read again: choose shorter ids'
        )
    forms = _formats(manifest)
    for part in (directory / name for name in (_MEASUREMENTS, *forms)):
        # What an interrupted making has left is deleted, but nothing where a link leads.
        if part.is_symlink():
            raise NotARun(f'{part} is a link; remove it, or choose another directory')
    make_directory(directory / _MEASUREMENTS)
    for path, form in forms.items():
        RowArray.create(directory / path, form)
    RowArray.open(directory / _MASKS, forms[_MASKS]).write(masks)
    with os_errors(directory):
        for path in (*forms, _MEASUREMENTS, '.'):
            sync_directory(directory / path)
    write_atomically(directory / _MANIFEST, text)
    return manifest, open_arrays(directory, manifest)


def open_arrays(directory: Path, manifest: Manifest) -> Arrays:
    """The arrays of a run; CorruptRun where one is absent or does not fit the manifest."""
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
    arrays = {
        path: RowArray.open(directory / path, form) for path, form in _formats(manifest).items()
    }
    return Arrays(
        masks=arrays[_MASKS],
        measurements={name: arrays[_measurement(name)] for name in manifest.measurements},
        digests=arrays.get(_DIGESTS),
        status=arrays[_STATUS],
    )


def remove_remains(directory: Path, arrays: Arrays, members: Sequence[int]) -> None:
    """Removes members' files, and folders that are then empty, where there is no run any more.

    Writing makes the folders in which it writes. A run that was put there by somebody else stays.
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
    """The masks of a run; CorruptRun where they are not those that were written."""
    array = arrays.masks
    try:
        masks = array.read_written(range(manifest.members))
    except CorruptRun as error:
        raise CorruptRun(f'{error}; {AGAIN}', file=error.file) from error
    if manifest.has_digests and digests.of_masks(masks) != manifest.masks_sha256:
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
    rows = max(1, min(members, _BYTES_PER_MASKS_FILE // examples))
    losses = RowFormat((members, len(manifest.target_ids)), 'float32', fill='NaN')
    recorded = (members, 1 + len(manifest.measurements), digests.SIZE)
    return {
        _MASKS: RowFormat((members, examples), 'bool', False, rows, compressed=True),
        **{_measurement(name): losses for name in manifest.measurements},
        **({_DIGESTS: RowFormat(recorded, 'uint8', fill=0)} if manifest.has_digests else {}),
        _STATUS: RowFormat((members,), 'uint8', fill=0),
    }
