"""Anyone's own images, from a `.npz` file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from influence_jax.data.dataset import ImageDataset

_REQUIRED = ('images', 'labels')
_OPTIONAL = ('class_names', 'names', 'ids')


def load(path: str | Path) -> ImageDataset:
    """Reads a dataset from a `.npz` file, as `numpy.savez` writes it.

    The file holds `images` (uint8 `[N H W C]`) and `labels` (integers `[N]` from 0), and may
    hold `class_names` (text, one a class; by default the labels' numbers), `names` (text) and
    `ids` (text or integers, unique; by default the file's name and the position). Other arrays
    are not read. Nothing in the file can run code: Python objects are refused.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no `.npz` file, is damaged, or an array is missing or wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; give the path of an existing .npz file')
    arrays = _read(path)
    for key in _REQUIRED:
        if key not in arrays:
            raise ValueError(
                f'{path}: no array {key!r}; the file must hold {" and ".join(_REQUIRED)}, and may '
                f'hold {", ".join(_OPTIONAL)} (found: {", ".join(sorted(arrays)) or "nothing"})'
            )
    try:
        labels = _labels(arrays['labels'])
        return ImageDataset(
            name=path.stem,
            images=arrays['images'],
            labels=labels,
            ids=_ids(arrays.get('ids'), path.stem, len(labels)),
            class_names=_class_names(arrays.get('class_names'), labels),
            names=_texts('names', arrays['names']) if 'names' in arrays else (),
            provenance=path.name,
        )
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays that concern us; they are decompressed only here, each once."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f'{path}: not a complete .npz file; write it with numpy.savez, or copy it again'
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in (*_REQUIRED, *_OPTIONAL) if key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f'{path}: cannot be read ({error}); it must hold plain arrays, no Python objects, '
            'and be complete'
        ) from error


def _labels(labels: np.ndarray) -> Int32[np.ndarray, 'N']:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1 or not labels.size:
        raise ValueError(
            'labels must be a vector of integers, one an image; '
            f'found {labels.dtype} of shape {labels.shape}'
        )
    # Before narrowing, which would wrap a huge label to a valid one.
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f'labels run from {labels.min()} to {labels.max()}, but must be 0 or more and '
            'less than the number of classes'
        )
    return labels.astype(np.int32)


def _class_names(given: np.ndarray | None, labels: np.ndarray) -> tuple[str, ...]:
    if given is not None:
        return _texts('class_names', given)
    classes = int(labels.max()) + 1
    if classes > len(labels):
        raise ValueError(
            f'label {classes - 1} is out of range: without class_names, {len(labels)} images can '
            f'have the labels 0 to {len(labels) - 1}; number the classes from 0'
        )
    return tuple(str(label) for label in range(classes))


def _ids(given: np.ndarray | None, stem: str, examples: int) -> tuple[str, ...]:
    if given is None:
        return tuple(f'{stem}-{i:05d}' for i in range(examples))
    if np.issubdtype(given.dtype, np.integer):
        given = given.astype(str)
    return _texts('ids', given)


def _texts(what: str, texts: np.ndarray) -> tuple[str, ...]:
    if texts.dtype.kind != 'U' or texts.ndim != 1:
        raise ValueError(
            f'{what} must be a vector of text, found {texts.dtype} of shape {texts.shape}'
        )
    return tuple(texts.tolist())
