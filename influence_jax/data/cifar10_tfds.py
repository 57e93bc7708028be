"""CIFAR-10's training images as TFDS prepared them."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Int, Int32, UInt8

from influence_jax.data import tfds_records
from influence_jax.data.tfds_records import Kind, Prepared

_SHAPE = (32, 32, 3)
_CLASSES = 10
_ID = re.compile(rb'train_(\d{5})')
_PREPARED = Prepared(
    'cifar10',
    {'id': Kind.TEXT, 'image': Kind.IMAGE, 'label': Kind.LABEL},
    most_records=50_000,
    instead='the binary files of CIFAR-10',
)


def read(
    folder: Path,
) -> tuple[UInt8[np.ndarray, 'N 32 32 3'], Int32[np.ndarray, ' N'], Int[np.ndarray, ' N']]:
    """Reads the training split of a prepared `cifar10`; see `tfds_records.read`.

    Returns:
      Images, labels, and positions in the full training set, in ascending order of the latter:
      TFDS stores the records shuffled, under ids that tell the position.
    """
    images, labels, positions = [], [], []
    for number, record in enumerate(tfds_records.read(folder, _PREPARED)):
        try:
            position, label, image = _record(number, record)
        # Pillow raises what it likes.
        except Exception as error:
            raise tfds_records.damaged(folder, _PREPARED, error) from error
        positions.append(position)
        labels.append(label)
        images.append(image)
    order = np.argsort(positions)
    return (
        np.stack(images)[order],
        np.array(labels, np.int32)[order],
        np.array(positions, np.int64)[order],
    )


def _record(number: int, record: dict[str, Any]) -> tuple[int, int, UInt8[np.ndarray, '32 32 3']]:
    # A shard cut in certain places reads as records without content.
    match = _ID.fullmatch(record['id'] or b'')
    if match is None:
        raise ValueError(f'record {number} has the id {record["id"]!r}')
    label = int(record['label'])
    if not 0 <= label < _CLASSES:
        raise ValueError(f'record {number} has the label {label}')
    return int(match[1]), label, _decode(record['image'])


def _decode(png: bytes) -> UInt8[np.ndarray, '32 32 3']:
    with PIL.Image.open(io.BytesIO(png), formats=['PNG']) as image:
        # Before decoding, which a few bytes can make as large as they like; and assigning would
        # broadcast a grey or a smaller image silently.
        if (image.size, image.mode) != (_SHAPE[:2], 'RGB'):
            raise ValueError(
                f'an image has {image.size} pixels of {image.mode} instead of {_SHAPE[:2]} of RGB'
            )
        return np.asarray(image)
