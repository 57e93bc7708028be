"""CIFAR-10's training images, from the dataset's own binary files or as TFDS prepared them."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Int, Int32, UInt8

from influence_jax import files
from influence_jax.data.dataset import Dataset
from influence_jax.data.sources import tfds_records
from influence_jax.data.sources.tfds_records import Kind, Prepared

CLASS_NAMES = (
    'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck',
)  # fmt: skip

_ARCHIVE_FOLDER = 'cifar-10-batches-bin'
_BATCH = re.compile(r'data_batch_([1-5])\.bin')
_BATCH_EXAMPLES = 10_000
_PIXELS = 3 * 32 * 32
_BATCH_BYTES = _BATCH_EXAMPLES * (1 + _PIXELS)
_TFDS_ID = re.compile(rb'train_(\d{5})')
_PREPARED = Prepared(
    'cifar10',
    {'id': Kind.TEXT, 'image': Kind.IMAGE, 'label': Kind.LABEL},
    most_records=50_000,
    instead='the binary files of CIFAR-10',
)

_HOW_TO_GET_IT = (
    'download cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, unpack it, '
    f'and give the folder {_ARCHIVE_FOLDER} as data_dir; or give the data_dir of TFDS after '
    '`tfds build cifar10 --file_format=array_record`'
)


def load(data_dir: str | Path | None = None) -> Dataset:
    """Reads the training images that are in a folder; never touches the network.

    Args:
      data_dir: a folder with `data_batch_*.bin` (whichever of the five are there), or one in
        which the archive was unpacked, or a `data_dir` of TFDS in which `cifar10` was prepared
        in the array_record format. None: TFDS's own default, `~/tensorflow_datasets`.

    Returns:
      The images in the order of the full training set. Ids are positions in it, such as
      'cifar10-train-00042', whichever way and however many of them are read.

    Raises:
      FileNotFoundError: nothing is there; the message says what to download and where to put it.
      ValueError: a file is truncated or wrong.
    """
    folder = Path(tfds_records.DEFAULT_DIR if data_dir is None else data_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f'CIFAR-10: no folder {folder}; {_HOW_TO_GET_IT}')
    batches = _batch_files(folder) or _batch_files(folder / _ARCHIVE_FOLDER)
    if batches:
        parts = [_read_batch(path) for path in batches.values()]
        positions = [np.arange(_BATCH_EXAMPLES) + (k - 1) * _BATCH_EXAMPLES for k in batches]
        return _dataset(
            np.concatenate([images for images, _ in parts]),
            np.concatenate([labels for _, labels in parts]),
            np.concatenate(positions),
        )
    if version := tfds_records.newest_version(folder, 'cifar10'):
        return _dataset(*_read_prepared(version))
    if (folder / 'data_batch_1').exists():
        raise FileNotFoundError(
            f'CIFAR-10: {folder} holds the Python version, whose pickles are not read; '
            f'{_HOW_TO_GET_IT}'
        )
    raise FileNotFoundError(f'CIFAR-10: nothing of it in {folder}; {_HOW_TO_GET_IT}')


def _dataset(
    images: UInt8[np.ndarray, 'N 32 32 3'],
    labels: Int32[np.ndarray, ' N'],
    positions: Int[np.ndarray, ' N'],
) -> Dataset:
    return Dataset(
        {'image': images, 'label': labels},
        name='cifar10',
        ids=tuple(f'cifar10-train-{position:05d}' for position in positions),
        class_names=CLASS_NAMES,
        provenance='CIFAR-10 training set (Krizhevsky, 2009), https://www.cs.toronto.edu/~kriz/cifar.html',
    )


def _batch_files(folder: Path) -> dict[int, Path]:
    """The batch files in a folder by their number, in ascending order."""
    if not folder.is_dir():
        return {}
    matches = {path: _BATCH.fullmatch(path.name) for path in sorted(folder.iterdir())}
    return {int(match[1]): path for path, match in matches.items() if match}


def _read_batch(path: Path) -> tuple[UInt8[np.ndarray, 'N 32 32 3'], Int32[np.ndarray, ' N']]:
    """A label byte and then red, green and blue planes, row by row, for each image."""
    size = files.check_regular(path).st_size
    if size != _BATCH_BYTES:
        problem = 'truncated' if size < _BATCH_BYTES else 'too long'
        raise ValueError(
            f'{path}: {problem}: {size} bytes, but a batch of {_BATCH_EXAMPLES} records of '
            f'{1 + _PIXELS} bytes has {_BATCH_BYTES}; unpack or download it again'
        )
    with files.open_regular(path) as file:
        content = file.read(_BATCH_BYTES)
    if len(content) < _BATCH_BYTES:
        raise ValueError(f'{path}: truncated while it was read; unpack or download it again')
    records = np.frombuffer(content, np.uint8).reshape(_BATCH_EXAMPLES, 1 + _PIXELS)
    labels = records[:, 0].astype(np.int32)
    wrong = np.flatnonzero(labels >= len(CLASS_NAMES))
    if wrong.size:
        raise ValueError(
            f'{path}: record {wrong[0]} has the label {labels[wrong[0]]}, but CIFAR-10 has the '
            'labels 0 to 9; the file is damaged or of another dataset'
        )
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _read_prepared(
    folder: Path,
) -> tuple[UInt8[np.ndarray, 'N 32 32 3'], Int32[np.ndarray, ' N'], Int[np.ndarray, ' N']]:
    """Images, labels and positions in the training set, in ascending order of the latter.

    TFDS stores the records shuffled, under ids that hold the position.
    """
    images, labels, positions = [], [], []
    for number, record in enumerate(tfds_records.read(folder, _PREPARED)):
        try:
            position, label, image = _fields(number, record)
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


def _fields(number: int, record: dict[str, Any]) -> tuple[int, int, UInt8[np.ndarray, '32 32 3']]:
    # A shard cut in certain places reads as records without content.
    match = _TFDS_ID.fullmatch(record['id'] or b'')
    if match is None:
        raise ValueError(f'record {number} has the id {record["id"]!r}')
    label = int(record['label'])
    if not 0 <= label < len(CLASS_NAMES):
        raise ValueError(f'record {number} has the label {label}')
    return int(match[1]), label, _decode(record['image'])


def _decode(png: bytes) -> UInt8[np.ndarray, '32 32 3']:
    with PIL.Image.open(io.BytesIO(png), formats=['PNG']) as image:
        # Before decoding, which a few bytes can make as large as they like; and assigning would
        # broadcast a gray or a smaller image silently.
        if (image.size, image.mode) != ((32, 32), 'RGB'):
            raise ValueError(
                f'an image has {image.size} pixels of {image.mode} instead of (32, 32) of RGB'
            )
        return np.asarray(image)
