"""Anyone's own arrays from a `.npz` file: labelled images, or a table or anything else."""

from pathlib import Path

import numpy as np

from influence_jax.data.dataset import Dataset
from influence_jax.data.sources import image_arrays, numpy_files
from influence_jax.data.sources.numpy_files import Arrays
from influence_jax.text import quoted

# The first name of each is the documented one; the others are those under which images and labels
# are commonly saved, in any case of letters.
_IMAGES = ('images', 'image', 'x_train', 'train_x', 'train_images', 'x', 'data', 'imgs')
_LABELS = ('labels', 'label', 'y_train', 'train_y', 'train_labels', 'y', 'target', 'targets')
_TEXTS = ('class_names', 'names', 'ids')
_OPTIONAL = (*_TEXTS, 'groups', 'mislabelled')
_LEAST_IMAGE_AXES = 3


def load(path: str | Path) -> Dataset:
    """Reads a dataset from a `.npz` file, as `numpy.savez` writes it.

    A file with `images` (uint8 `[N H W C]`) and `labels` (integers `[N]` from 0) becomes the
    arrays `image` and `label`. Images and labels of other common names (`x_train` and `y_train`,
    `X` and `y`), shapes and types are accepted where the meaning is certain (see
    `image_arrays`), and the dataset's `notes` name what was changed; other arrays are not read.

    Of any other file all arrays are read, under their own names; each must have the leading axis
    N.

    Either may hold `class_names` (text, one a class; of images by default the labels' numbers),
    `names` (text), `ids` (text or integers, unique; by default the file's name and the position),
    `groups` (integers) and `mislabelled` (bool: which labels are known to be wrong). Nothing in
    the file can run code: Python objects are refused.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no `.npz` file, is damaged, or an array is wrong or could mean several
        things.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'{path}: no such file; give the path of an existing .npz file')
    with numpy_files.opened(path) as arrays:
        try:
            return _images(path, arrays) if _has_images(arrays) else _plain(path, arrays)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error


def _has_images(arrays: Arrays) -> bool:
    images = _candidates(arrays, _IMAGES)
    return bool(images) and bool(_candidates(arrays, _LABELS))


def _images(path: Path, arrays: Arrays) -> Dataset:
    of_images, of_labels = _the_one(arrays, _IMAGES), _the_one(arrays, _LABELS)
    about = _about(path, arrays)
    labels = image_arrays.to_labels(arrays.read(of_labels), about.get('class_names', ()))
    count = len(labels.numbers)
    if (shape := arrays.shape(of_images)) and shape[0] not in (0, count):
        raise ValueError(
            f'labels must be one for each of the {shape[0]} images, found {count}; '
            f'images have the shape {shape}, the first axis of which counts them'
        )
    images = image_arrays.to_images(arrays.read(of_images))
    about.setdefault('class_names', labels.class_names or _numbers(labels.numbers))
    return Dataset(
        {'image': images.pixels, 'label': labels.numbers},
        **{'ids': _positions(path.stem, count)} | about,
        notes=tuple(filter(None, (_renamed(of_images, of_labels), images.note, labels.note))),
    )


def _plain(path: Path, arrays: Arrays) -> Dataset:
    about = _about(path, arrays)
    found = {name: arrays.read(name) for name in arrays.headers if name not in _OPTIONAL}
    lengths = {len(array) for array in found.values() if array.ndim}
    if len(lengths) == 1:  # else the dataset refuses them, and says which
        about.setdefault('ids', _positions(path.stem, lengths.pop()))
    return Dataset(found, **about)


def _about(path: Path, arrays: Arrays) -> dict:
    """The fields of a dataset beside its arrays, as far as the file gives them."""
    given = {key: arrays.read(key) for key in _OPTIONAL if key in arrays.headers}
    if 'ids' in given and given['ids'].dtype.kind in 'iu' and given['ids'].ndim == 1:
        given['ids'] = given['ids'].astype(str)
    texts = {key: image_arrays.to_texts(key, given[key]) for key in _TEXTS if key in given}
    return {'name': path.stem, 'provenance': path.name} | given | texts


def _candidates(arrays: Arrays, names: tuple[str, ...]) -> list[str]:
    """The arrays that may have a role: the documented name alone, or whatever has another."""
    if names[0] in arrays.headers:
        return [names[0]]
    found = [name for name in arrays.headers if name.lower() in names]
    if names is _IMAGES:  # under such names tables are saved as well
        found = [name for name in found if len(arrays.shape(name)) >= _LEAST_IMAGE_AXES]
    return found


def _the_one(arrays: Arrays, names: tuple[str, ...]) -> str:
    found = _candidates(arrays, names)
    if len(found) > 1:
        raise ValueError(
            f'the {names[0]} may be any of {", ".join(map(quoted, sorted(found)))}; '
            f'call one of them {names[0]!r} (found: {arrays.listed()})'
        )
    return found[0]


def _renamed(of_images: str, of_labels: str) -> str:
    """Which arrays were read, where these are not the documented ones."""
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


def _positions(stem: str, examples: int) -> tuple[str, ...]:
    return tuple(f'{stem}-{i:05d}' for i in range(examples))
