"""Anyone's own images, from a `.npz` file."""

from pathlib import Path

import numpy as np

from influence_jax.data import image_arrays, npz_arrays
from influence_jax.data.dataset import ImageDataset
from influence_jax.data.npz_arrays import Arrays

# The first name of each is the documented one; the others are those under which images and labels
# are commonly saved, in any case of letters.
_IMAGES = ('images', 'image', 'x_train', 'train_x', 'train_images', 'x', 'data', 'imgs')
_LABELS = ('labels', 'label', 'y_train', 'train_y', 'train_labels', 'y', 'target', 'targets')
_OPTIONAL = ('class_names', 'names', 'ids')


def load(path: str | Path) -> ImageDataset:
    """Reads a dataset from a `.npz` file, as `numpy.savez` writes it.

    The file holds `images` (uint8 `[N H W C]`) and `labels` (integers `[N]` from 0), and may
    hold `class_names` (text, one a class; by default the labels' numbers), `names` (text) and
    `ids` (text or integers, unique; by default the file's name and the position). Other arrays
    are not read. Nothing in the file can run code: Python objects are refused.

    Images and labels of other common names (`x_train` and `y_train`, `X` and `y`), shapes and
    types are taken where the meaning is certain (see `image_arrays`); the dataset's `notes` tell
    what was changed.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no `.npz` file, is damaged, or an array is missing, wrong or could mean
        several things.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'{path}: no such file; give the path of an existing .npz file')
    with npz_arrays.opened(path) as arrays:
        try:
            return _dataset(path, arrays)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error


def _dataset(path: Path, arrays: Arrays) -> ImageDataset:
    of_images, of_labels = _the_one(arrays, _IMAGES), _the_one(arrays, _LABELS)
    given = {key: arrays.read(key) for key in _OPTIONAL if key in arrays.headers}
    names = image_arrays.to_texts('names', given['names']) if 'names' in given else ()
    class_names: tuple[str, ...] = ()
    if 'class_names' in given:
        class_names = image_arrays.to_texts('class_names', given['class_names'])
    labels = image_arrays.labels(arrays.read(of_labels), class_names)
    count = len(labels.numbers)
    if (shape := arrays.shape(of_images)) and shape[0] not in (0, count):
        raise ValueError(
            f'labels must be one for each of the {shape[0]} images, found {count}; '
            f'images have the shape {shape}, the first axis of which counts them'
        )
    images = image_arrays.images(arrays.read(of_images))
    return ImageDataset(
        name=path.stem,
        images=images.pixels,
        labels=labels.numbers,
        ids=_ids(given.get('ids'), path.stem, count),
        class_names=class_names or labels.class_names or _numbers(labels.numbers),
        names=names,
        provenance=path.name,
        notes=tuple(filter(None, (_taken(of_images, of_labels), images.note, labels.note))),
    )


def _the_one(arrays: Arrays, names: tuple[str, ...]) -> str:
    """The array of a role: under its documented name, or the only one under another."""
    documented = names[0]
    if documented in arrays.headers:
        return documented
    found = [name for name in arrays.headers if name.lower() in names]
    if len(found) > 1:
        raise ValueError(
            f'the {documented} may be any of {", ".join(map(ascii, sorted(found)))}; '
            f'call one of them {documented!r} (found: {arrays.told()})'
        )
    if not found:
        raise ValueError(
            f'no array {documented!r}; the file must hold images and labels, and may hold '
            f'{", ".join(_OPTIONAL)} (found: {arrays.told()})'
        )
    return found[0]


def _taken(of_images: str, of_labels: str) -> str:
    """Under which names, where these are not the documented ones."""
    if (of_images, of_labels) == (_IMAGES[0], _LABELS[0]):
        return ''
    return f'Array {of_images!r} taken as the images, {of_labels!r} as the labels.'


def _numbers(labels: np.ndarray) -> tuple[str, ...]:
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
    if np.issubdtype(given.dtype, np.integer) and given.ndim == 1:
        return tuple(map(str, given.tolist()))
    return image_arrays.to_texts('ids', given)
