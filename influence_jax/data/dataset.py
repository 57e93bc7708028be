"""A labelled set of images with stable ids: what every loader of this room returns."""

import dataclasses
import hashlib
from functools import cached_property

import numpy as np
from jaxtyping import Int, Int32, UInt8

from influence_jax.text import quoted
from influence_jax.types import AnyArray


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images, their labels and their ids, in the dataset's own order.

    The arrays are checked and made read-only, so that `fingerprint` stays true.

    Attributes:
      name: what the dataset is called in a run's manifest.
      images: pixel values from 0 to 255.
      labels: the class of each image, an index into `class_names`.
      ids: unique, and the same in every version and subset of the dataset.
      class_names: one text for each class.
      names: what a person would call each image; the ids where nothing is given.
      provenance: where the images come from, for the report.
      notes: what was changed of the images or labels as they were given, a line each, for the user.

    Raises:
      ValueError: a shape, dtype, label or id is wrong; the message says which and how.
    """

    name: str
    images: UInt8[np.ndarray, 'N H W C']
    labels: Int32[np.ndarray, ' N']
    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    names: tuple[str, ...] = ()
    provenance: str = ''
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, 'names', self.names or self.ids)
        try:
            _check_images(self.images)
            _check_labels(self.labels, len(self.images), len(self.class_names))
            _check_texts('ids', self.ids, len(self.images))
            _check_texts('names', self.names, len(self.images))
            _check_texts('class_names', self.class_names, len(self.class_names))
            _check_unique('id', self.ids)
            _check_unique('class name', self.class_names)
        except ValueError as error:
            raise ValueError(f'dataset {self.name!r}: {error}') from error
        object.__setattr__(self, 'images', _read_only(self.images))
        object.__setattr__(self, 'labels', _read_only(self.labels))

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """How many classes there are, those without an image included."""
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over images, labels, ids and their shapes.

        Names and provenance are left out: they change no result.
        """
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            digest.update(f'{array.dtype.name} {array.shape};'.encode())
            # Little-endian on every machine.
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder('<')).data)
        for example_id in self.ids:
            text = example_id.encode()
            # The length goes first: ('a', 'bc') must differ from ('ab', 'c').
            digest.update(f'{len(text)}:'.encode() + text)
        return digest.hexdigest()

    def take(self, indices: Int[AnyArray, ' K']) -> 'ImageDataset':
        """The chosen examples, in the order asked for, with the ids that they have here.

        Args:
          indices: which examples; distinct, from 0 to N - 1.

        Raises:
          ValueError: the indices are empty, not integers, out of range or repeated.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer) or not chosen.size:
            raise ValueError(
                'indices must be a non-empty vector of integers; '
                f'found {chosen.dtype} of shape {chosen.shape}'
            )
        if chosen.min() < 0 or chosen.max() >= self.num_examples:
            raise ValueError(
                f'indices run from {chosen.min()} to {chosen.max()}, but dataset {self.name!r} '
                f'has the examples 0 to {self.num_examples - 1}'
            )
        return dataclasses.replace(
            self,
            images=self.images[chosen],
            labels=self.labels[chosen],
            ids=tuple(self.ids[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
        )


def _check_images(images: np.ndarray) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        found = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(
            f'images must be uint8 from 0 to 255, found {found}; convert them first '
            '(pixels from 0 to 1: multiply by 255 and round)'
        )
    if images.ndim != 4:
        raise ValueError(
            f'images must have the shape [N H W C], found {images.shape}; '
            'grey images need a last axis of 1'
        )
    if 0 in images.shape:
        raise ValueError(f'there are no images or no pixels: shape {images.shape}')


def _check_labels(labels: np.ndarray, examples: int, classes: int) -> None:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int32:
        found = labels.dtype if isinstance(labels, np.ndarray) else type(labels).__name__
        raise ValueError(f'labels must be int32, found {found}')
    if labels.shape != (examples,):
        raise ValueError(
            f'labels must be one for each of the {examples} images, found shape {labels.shape}'
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(
            f'label {labels[wrong[0]]} of image {wrong[0]} is out of range: {classes} classes '
            f'have the labels 0 to {classes - 1} ({wrong.size} such labels)'
        )


def _check_texts(what: str, texts: tuple[str, ...], count: int) -> None:
    if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'{what} must be a tuple of str')
    if len(texts) != count:
        raise ValueError(f'{what} must number {count}, found {len(texts)}')
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f'{what} holds {quoted(text)}, which is no valid text: {error}'
            ) from error


def _check_unique(what: str, texts: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            raise ValueError(f'the {what} {quoted(text)} occurs more than once')
        seen.add(text)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view
