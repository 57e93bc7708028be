"""CIFAR-10's training images, from the dataset's own binary files or as TFDS prepared them."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from influence_jax import files
from influence_jax.data import tfds_folders
from influence_jax.data.dataset import ImageDataset

CLASS_NAMES = (
    'airplane',
    'automobile',
    'bird',
    'cat',
    'deer',
    'dog',
    'frog',
    'horse',
    'ship',
    'truck',
)

_ARCHIVE_FOLDER = 'cifar-10-batches-bin'
_BATCH = re.compile(r'data_batch_([1-5])\.bin')
_BATCH_EXAMPLES = 10_000
_PIXELS = 3 * 32 * 32
_BATCH_BYTES = _BATCH_EXAMPLES * (1 + _PIXELS)

_HOW_TO_GET_IT = (
    'download cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, unpack it, '
    f'and give the folder {_ARCHIVE_FOLDER} as data_dir; or give the data_dir of TFDS after '
    '`tfds build cifar10 --file_format=array_record`'
)


def load(data_dir: Path | None = None) -> ImageDataset:
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
    folder = Path(tfds_folders.DEFAULT_DIR).expanduser() if data_dir is None else Path(data_dir)
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
    if version := tfds_folders.newest_version(folder, 'cifar10'):
        # TFDS takes long to import and is needed on this path alone.
        from influence_jax.data import cifar10_tfds

        return _dataset(*cifar10_tfds.read(version))
    if (folder / 'data_batch_1').exists():
        raise FileNotFoundError(
            f'CIFAR-10: {folder} holds the Python version, whose pickles are not read; '
            f'{_HOW_TO_GET_IT}'
        )
    raise FileNotFoundError(f'CIFAR-10: nothing of it in {folder}; {_HOW_TO_GET_IT}')


def _dataset(
    images: UInt8[np.ndarray, 'N 32 32 3'],
    labels: Int32[np.ndarray, ' N'],
    positions: np.ndarray,
) -> ImageDataset:
    return ImageDataset(
        name='cifar10',
        images=images,
        labels=labels,
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
