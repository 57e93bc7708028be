"""Where things lie in a run directory, and how one comes to be."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from influence_jax.store.arrays import RowArray, RowFormat
from influence_jax.store.errors import BadManifest, NotARun
from influence_jax.store.files import make_directory, os_errors, sync_directory, write_atomically
from influence_jax.store.manifest import Manifest

LOCK = 'lock'
_MANIFEST = 'manifest.json'
_NOTES = 'notes.json'
_MASKS = 'masks.zarr'
_MEASUREMENTS = 'measurements'
_STATUS = 'status.zarr'
_TEXTS = 'texts'
_PARTS = {LOCK, f'{_MANIFEST}.partial', _MASKS, _MEASUREMENTS, _STATUS}
_BYTES_PER_MASKS_FILE = 2**22


@dataclasses.dataclass(frozen=True)
class Arrays:
    """The arrays of a run."""

    masks: RowArray
    measurements: Mapping[str, RowArray]
    status: RowArray


def read_notes(directory: Path) -> dict[str, Any]:
    """The notes of a run; BadManifest where the file is no JSON object."""
    path = directory / _NOTES
    with os_errors(path):
        text = path.read_text(encoding='utf-8') if path.exists() else '{}'
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError):
        notes = None
    if not isinstance(notes, dict):
        raise BadManifest(f'{path} is not a JSON object; delete it: it holds no results')
    return notes


def write_notes(directory: Path, notes: Mapping[str, Any]) -> None:
    """Replaces the notes of a run."""
    write_atomically(directory / _NOTES, json.dumps(notes, indent=1) + '\n')


def texts(directory: Path, name: str) -> Path:
    """The file of the texts of that name."""
    return directory / _TEXTS / f'{name}.json'


def is_run(directory: Path) -> bool:
    """Whether a directory is a run, complete or not."""
    with os_errors(directory):
        return (directory / _MANIFEST).exists()


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
    with os_errors(path):
        text = path.read_bytes()
    try:
        return Manifest.from_json(text)
    except ValueError as error:
        raise BadManifest(f'{path} is not the manifest of a run: {error}') from error


def create(directory: Path, manifest: Manifest, masks: Bool[np.ndarray, 'M N']) -> None:
    """Makes the parts of a run, the manifest last, so that half of it is not a run."""
    make_directory(directory / _MEASUREMENTS)
    forms = _formats(manifest)
    for path, form in forms.items():
        RowArray.create(directory / path, form)
    RowArray.open(directory / _MASKS, forms[_MASKS]).write(masks)
    with os_errors(directory):
        for path in (*forms, _MEASUREMENTS, '.'):
            sync_directory(directory / path)
    write_atomically(directory / _MANIFEST, manifest.to_json())


def open_arrays(directory: Path, manifest: Manifest) -> Arrays:
    """The arrays of a run; CorruptRun where one is absent or does not fit the manifest."""
    arrays = {
        path: RowArray.open(directory / path, form) for path, form in _formats(manifest).items()
    }
    return Arrays(
        masks=arrays[_MASKS],
        measurements={name: arrays[_measurement(name)] for name in manifest.measurements},
        status=arrays[_STATUS],
    )


def _measurement(name: str) -> str:
    return f'{_MEASUREMENTS}/{name}.zarr'


def _formats(manifest: Manifest) -> dict[str, RowFormat]:
    members, examples = manifest.members, len(manifest.example_ids)
    rows = max(1, min(members, _BYTES_PER_MASKS_FILE // examples))
    losses = RowFormat((members, len(manifest.target_ids)), 'float32', fill='NaN')
    return {
        _MASKS: RowFormat((members, examples), 'bool', False, rows, compressed=True),
        **{_measurement(name): losses for name in manifest.measurements},
        _STATUS: RowFormat((members,), 'uint8', fill=0),
    }
