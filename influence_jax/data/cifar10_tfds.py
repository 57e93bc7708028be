"""CIFAR-10's training images as TFDS prepared them: the only module that imports TFDS."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from jaxtyping import Int, Int32, UInt8

_SHAPE = (32, 32, 3)
_FEATURE_CLASSES = {
    'id': 'tensorflow_datasets.core.features.text_feature.Text',
    'image': 'tensorflow_datasets.core.features.image_feature.Image',
    'label': 'tensorflow_datasets.core.features.class_label_feature.ClassLabel',
}
_DICT_CLASS = 'tensorflow_datasets.core.features.features_dict.FeaturesDict'
_ID = re.compile(rb'train_(\d{5})')

_PREPARE_AGAIN = 'prepare it again with `tfds build cifar10 --file_format=array_record`'


def read(
    folder: Path,
) -> tuple[UInt8[np.ndarray, 'N 32 32 3'], Int32[np.ndarray, 'N'], Int[np.ndarray, 'N']]:
    """Reads the training split of a prepared `cifar10`, without TensorFlow and without network.

    Args:
      folder: the version's folder, such as `~/tensorflow_datasets/cifar10/3.0.2`.

    Returns:
      Images, labels, and positions in the full training set, in ascending order of the latter:
      TFDS stores the records shuffled, under ids that tell the position.

    Raises:
      FileNotFoundError: the training split was not prepared in the array_record format.
      ValueError: the folder is of another dataset, its files are damaged, or a package that
        reads them is missing.
    """
    _check_is_cifar10(folder)
    if not any(folder.glob('cifar10-train.array_record-*')):
        raise FileNotFoundError(
            f'{folder}: no training split in the array_record format, the only one that is read '
            f'without TensorFlow; {_PREPARE_AGAIN}'
        )
    try:
        source = tfds.builder_from_directory(folder, file_format='array_record').as_data_source(
            split='train',
            # TFDS would recommend OpenCV on the terminal; Pillow decodes the PNGs as well.
            decoders={'image': tfds.decode.SkipDecoding()},
        )
        return _read_records(source)
    except ImportError as error:
        raise ValueError(
            f'{folder}: reading array_record files needs a package that is missing ({error}); '
            'pip install array_record, or use the binary files of CIFAR-10'
        ) from error
    # TFDS and its readers raise what they like, some of it over many lines.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f'{folder}: damaged or incomplete ({reason}); {_PREPARE_AGAIN}') from error


def _check_is_cifar10(folder: Path) -> None:
    """Refuses other datasets, and feature classes that TFDS would import by the name given."""
    try:
        info = json.loads((folder / 'dataset_info.json').read_text(encoding='utf-8'))
        features = json.loads((folder / 'features.json').read_text(encoding='utf-8'))
        classes = {
            key: feature['pythonClassName']
            for key, feature in features['featuresDict']['features'].items()
        }
        found = info['name'], features['pythonClassName'], classes
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{folder}: dataset_info.json or features.json is missing or damaged; {_PREPARE_AGAIN}'
        ) from error
    if found != ('cifar10', _DICT_CLASS, _FEATURE_CLASSES):
        raise ValueError(
            f'{folder}: holds the dataset {found[0]!r} with the features {sorted(classes)}, not '
            f'TFDS cifar10 with {sorted(_FEATURE_CLASSES)}; {_PREPARE_AGAIN}'
        )


def _read_records(
    source: Sequence[dict[str, Any]],
) -> tuple[UInt8[np.ndarray, 'N 32 32 3'], Int32[np.ndarray, 'N'], Int[np.ndarray, 'N']]:
    images = np.empty((len(source), *_SHAPE), np.uint8)
    labels = np.empty(len(source), np.int32)
    positions = np.empty(len(source), np.int64)
    for i in range(len(source)):
        record = source[i]
        # A shard cut in certain places reads as records without content.
        match = _ID.fullmatch(record['id'] or b'')
        if match is None:
            raise ValueError(f'record {i} has the id {record["id"]!r}')
        positions[i] = int(match[1])
        labels[i] = record['label']
        images[i] = _decode(record['image'])
    order = np.argsort(positions)
    return images[order], labels[order], positions[order]


def _decode(png: bytes) -> UInt8[np.ndarray, '32 32 3']:
    with PIL.Image.open(io.BytesIO(png), formats=['PNG']) as image:
        pixels = np.asarray(image)
    # Assigning would broadcast a grey or a smaller image silently.
    if pixels.shape != _SHAPE:
        raise ValueError(f'an image has the shape {pixels.shape} instead of {_SHAPE}')
    return pixels
