"""What a run keeps besides its results: notes, texts of targets, what reports show of examples.

Each is JSON with a checksum that binds it to the run; pixels are an array beside it.
"""

import dataclasses
import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from influence_jax import files
from influence_jax.json_files import MOST_DEPTH, parse_json, read_json
from influence_jax.store.arrays import RowArray, RowFormat
from influence_jax.store.files import (
    CorruptRun,
    make_directory,
    os_errors,
    refuse_link,
    storage_failed,
    sync_directory,
    write_atomically,
)
from influence_jax.store.manifest import json_digest

LONGEST_SIDE = 64
"""Pixels of a side of an image that is kept."""

_NOTES, _TEXTS = 'notes.json', 'texts'
_EXAMPLES, _PIXELS = 'examples.json', 'examples.zarr'
_CHECKSUM = 'checksum'
_MOST_NOTES_BYTES, _MOST_TEXTS_BYTES = 2**24, 2**30
_BYTES_PER_PIXELS_FILE = 2**22
_NO_RESULTS = 'delete it: it holds no results'


def read_notes(directory: Path, *, run: str | None) -> dict[str, Any]:
    """Reads the notes of a run; empty where there are none yet.

    Args:
        directory: of the run.
        run: its identity; None in a run of an earlier version, whose notes have no checksum.

    Raises:
        CorruptRun: the file is no JSON object, was changed, or is not of this run.
    """
    path = directory / _NOTES
    try:
        notes = _read(path, most_bytes=_MOST_NOTES_BYTES, most_depth=MOST_DEPTH, advice=_NO_RESULTS)
    except FileNotFoundError:
        return {}
    if isinstance(notes, dict):
        checksum = notes.pop(_CHECKSUM, None) if run else None
        if run is None or checksum == json_digest([run, 'notes', notes]):
            return notes
    raise _damaged(path, _NO_RESULTS)


def write_notes(directory: Path, notes: Mapping[str, Any], *, run: str | None) -> None:
    """Replaces the notes of a run; ValueError where JSON cannot hold them."""
    try:
        text = json.dumps(dict(notes), indent=1, allow_nan=False)
        notes = parse_json(text, most_depth=MOST_DEPTH - 1)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'notes must hold only what JSON can: {error}') from error
    if run is not None:
        notes = {**notes, _CHECKSUM: json_digest([run, 'notes', notes])}
    write_atomically(directory / _NOTES, json.dumps(notes, indent=1) + '\n')


def read_texts(directory: Path, name: str, *, count: int, run: str | None) -> tuple[str, ...]:
    """Reads one text a target; CorruptRun where they are missing, damaged or another run's."""
    path = directory / _TEXTS / f'{name}.json'
    advice = f'delete {directory} and repeat the command that made it'
    try:
        fields = _read(path, most_bytes=_MOST_TEXTS_BYTES, most_depth=2, advice=advice)
    except FileNotFoundError as error:
        raise CorruptRun(f'{path} is missing; {advice}', file=path) from error
    try:
        texts = _texts(name, fields['texts'], count)
        if fields['sha256'] == _texts_digest(name, texts, run):
            return texts
    except (ValueError, KeyError, TypeError):
        pass
    raise _damaged(path, advice)


def write_texts(directory: Path, name: str, texts: Sequence[str], *, run: str | None) -> None:
    """Writes one text a target, whole or not at all; durable on return."""
    path = directory / _TEXTS / f'{name}.json'
    make_directory(path.parent)
    fields = {'sha256': _texts_digest(name, tuple(texts), run), 'texts': list(texts)}
    write_atomically(path, json.dumps(fields, indent=1) + '\n')


def _texts_digest(name: str, texts: tuple[str, ...], run: str | None) -> str:
    # The second is the digest of earlier versions, which does not depend on the run.
    if run:
        return json_digest([run, 'texts', name, texts])
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """What a report shows of the N examples of a run.

    names: what a person would call each example.
    labels: class or kind of each; '' where it has none, as by default.
    groups: the same number for examples that are near-duplicates of each other; None if unknown.
    changes: how each differs from the example of which it is a near-duplicate; '' for originals.
    texts: records as text.
    prompts, completions: what a language model is given of each record, and what should follow.
    images: uint8 `[N H W C]`, C being 1 or 3: further channels are dropped, and sides longer than
        64 pixels reduced.
    columns, rows: names of columns, and a text for each of them of every example: a table.
    class_names: all classes, also those of no example.
    provenance: where the examples come from.
    notes: what was changed of the examples as they were read, a sentence each.

    Raises ValueError where a field is not of this kind or not of N entries.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...] = ()
    groups: Int[np.ndarray, ' N'] | None = None
    changes: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None
    prompts: tuple[str, ...] | None = None
    completions: tuple[str, ...] | None = None
    images: UInt8[np.ndarray, 'N H W C'] | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] | None = None
    class_names: tuple[str, ...] = ()
    provenance: str = ''
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in _checked(_fields(self)).items():
            object.__setattr__(self, name, value)


def read_shown(directory: Path, *, count: int, run: str) -> Shown | None:
    """Reads what reports show of the examples of a run; None where nothing was kept.

    Args:
        directory: of the run.
        count: N.
        run: its identity.

    Raises:
        CorruptRun: it is damaged, incomplete, or another run's.
    """
    path = directory / _EXAMPLES
    advice = f'delete {path} and repeat the command of the run: it holds no results'
    try:
        sealed = _read(path, most_bytes=_MOST_TEXTS_BYTES, most_depth=4, advice=advice)
    except FileNotFoundError:
        return None
    try:
        fields = sealed['examples']
        if sealed[_CHECKSUM] != json_digest([run, 'examples', fields]):
            raise ValueError('its checksum does not match')
        if len(fields['names']) != count:
            raise ValueError(f'{len(fields["names"])} names for {count} examples')
        if (pixels := fields['images']) is not None:
            fields['images'] = _read_pixels(directory / _PIXELS, count, **pixels)
        if fields['groups'] is not None:
            fields['groups'] = np.array(fields['groups'], np.int64)
        shown = Shown(**_checked(fields))
    except CorruptRun as error:
        raise CorruptRun(f'{error}; {advice}', file=error.file) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _damaged(path, advice) from error
    return shown


def write_shown(directory: Path, shown: Shown, *, run: str) -> None:
    """Writes it, whole or not at all, unless the same is there; durable on return.

    Raises:
        ValueError: there is more text than is read again.
        NotARun: a link is in the place of the pixels.
        StorageFailed: disk full, read-only ...
    """
    path, fields = directory / _EXAMPLES, _json_fields(shown)
    sealed = {_CHECKSUM: json_digest([run, 'examples', fields]), 'examples': fields}
    text = json.dumps(sealed, indent=1) + '\n'
    if len(text) > _MOST_TEXTS_BYTES:
        raise ValueError(
            f'what is shown of examples takes {len(text):,} bytes, but at most '
            f'{_MOST_TEXTS_BYTES:,} are read again; shorten the texts, or leave them out'
        )
    try:
        there = read_shown(directory, count=len(shown.names), run=run)
    except CorruptRun:
        there = None
    if there is not None and _json_fields(there) == fields:
        return
    with os_errors(path):
        # Without it nothing is shown, so that new pixels are never taken for those of old names.
        path.unlink(missing_ok=True)
        sync_directory(directory)
    if shown.images is not None:
        refuse_link(pixels := directory / _PIXELS)
        make_directory(pixels)
        RowArray.create(pixels, _pixels_format(shown.images.shape)).write(shown.images)
        with os_errors(pixels):
            sync_directory(pixels)
    write_atomically(path, text)


def _fields(shown: Shown) -> dict[str, Any]:
    return {field.name: getattr(shown, field.name) for field in dataclasses.fields(shown)}


def _json_fields(shown: Shown) -> dict[str, Any]:
    """Returns what is kept as JSON; of the pixels their shape and digest."""
    fields = _fields(shown)
    if shown.groups is not None:
        fields['groups'] = shown.groups.tolist()
    if shown.images is not None:
        fields['images'] = {'shape': list(shown.images.shape), 'sha256': _sha256(shown.images)}
    return fields


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Shown` as it keeps them; ValueError where one is not of its kind."""
    checked = dict(fields)
    checked['names'] = names = _texts('names', fields['names'])
    for name in ('labels', 'changes'):
        checked[name] = _texts(name, fields[name] or ('',) * len(names), len(names))
    for name in ('columns', 'class_names', 'notes'):
        checked[name] = _texts(name, fields[name])
    for name in ('texts', 'prompts', 'completions'):
        if fields[name] is not None:
            checked[name] = _texts(name, fields[name], len(names))
    if not isinstance(fields['provenance'], str):
        raise ValueError(f'provenance must be text, not {type(fields["provenance"]).__name__}')
    if (rows := fields['rows']) is not None:
        if len(rows) != len(names):
            raise ValueError(f'{len(rows)} rows for {len(names)} examples; give one for each')
        checked['rows'] = tuple(_texts('a row', row, len(checked['columns'])) for row in rows)
    if fields['groups'] is not None:
        checked['groups'] = _groups(fields['groups'], len(names))
    if fields['images'] is not None:
        checked['images'] = _images(fields['images'], len(names))
    return checked


def _read_pixels(
    path: Path, count: int, *, shape: Any, sha256: Any
) -> UInt8[np.ndarray, 'N H W C']:
    examples, height, width, channels = shape
    # Before memory is taken: a shape is a claim.
    if (
        not all(type(size) is int for size in shape)
        or not (1 <= height <= LONGEST_SIDE and 1 <= width <= LONGEST_SIDE)
        or (examples, channels) not in ((count, 1), (count, 3))
    ):
        raise ValueError(f'images of shape {shape} for {count} examples')
    images = RowArray.open(path, _pixels_format(tuple(shape))).read_written(range(count))
    if _sha256(images) != sha256:
        raise CorruptRun(f'{path} is damaged or of another run', file=path)
    return images


def _pixels_format(shape: tuple[int, ...]) -> RowFormat:
    rows = max(1, _BYTES_PER_PIXELS_FILE // int(np.prod(shape[1:])))
    return RowFormat(shape, 'uint8', fill=0, rows_per_file=rows, compressed=True)


def _sha256(images: UInt8[np.ndarray, 'N H W C']) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()


def _images(images: Any, count: int) -> UInt8[np.ndarray, 'N H W C']:
    """Returns images as they are kept: grey or RGB, and small."""
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape:
        raise ValueError(f'images must be uint8 [N H W C], not {images.dtype}{list(images.shape)}')
    if len(images) != count:
        raise ValueError(f'{len(images)} images for {count} examples; give one for each')
    images = images[..., :3] if images.shape[-1] >= 3 else images[..., :1]
    height, width = images.shape[1:3]
    if max(height, width) <= LONGEST_SIDE:
        return images
    scale = LONGEST_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = images.squeeze(-1) if images.shape[-1] == 1 else images  # as Pillow has grey images
    reduced = (Image.fromarray(one).resize(size, Image.Resampling.BOX) for one in pixels)
    return np.stack([np.asarray(one) for one in reduced]).reshape(
        count, size[1], size[0], images.shape[-1]
    )


def _groups(groups: Any, count: int) -> Int[np.ndarray, ' N']:
    groups = np.asarray(groups)
    if groups.shape != (count,) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(
            f'groups must be {count} whole numbers, not {groups.dtype}{list(groups.shape)}'
        )
    if np.abs(groups.astype(np.int64)).max(initial=0) >= 2**31:
        raise ValueError('groups must be numbers of 32 bits')
    return groups.astype(np.int32)


def _texts(name: str, values: Any, count: int | None = None) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise ValueError(f'{name} must be a sequence of text')
    if count is not None and len(values) != count:
        raise ValueError(f'{len(values)} {name}, expected {count}')
    return tuple(values)


def _read(path: Path, *, most_bytes: int, most_depth: int, advice: str) -> Any:
    """Reads a JSON file; FileNotFoundError where there is none, CorruptRun where it is no JSON."""
    try:
        return read_json(path, most_bytes=most_bytes, most_depth=most_depth)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(path) from error
    except OSError as error:
        raise storage_failed(path, error.errno or errno.EIO) from error
    except files.NotRegular as error:
        raise CorruptRun(f'{path} is {error.kind}, not a file; {advice}', file=path) from error
    except ValueError as error:
        raise _damaged(path, advice) from error


def _damaged(path: Path, advice: str) -> CorruptRun:
    return CorruptRun(f'{path} is damaged; {advice}', file=path)
