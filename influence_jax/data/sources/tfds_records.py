"""Records that TFDS prepared, read with features of our own; the only module that imports TFDS.

TFDS itself would import any module that a folder's features.json names. So no feature is made of
what that file says: it is compared with what is expected, and the features are built here. TFDS
is slow to import, so this happens when records are read, and not before.
"""

import enum
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from influence_jax import files, json_files
from influence_jax.text import first_line, quoted

DEFAULT_DIR = '~/tensorflow_datasets'
"""Where TFDS keeps what it prepared."""

_MOST_BYTES = 2**20
"""Of a description; those of the datasets read here have a few kilobytes."""
_MOST_DEPTH = 16
_FEATURES = 'tensorflow_datasets.core.features'
_OTHER_FORMS = {'type', 'python_class_name'}


class Kind(enum.Enum):
    """The kind of a field: the classes by which TFDS may name it."""

    TEXT = (f'{_FEATURES}.tensor_feature.Tensor', f'{_FEATURES}.text_feature.Text')
    IMAGE = (f'{_FEATURES}.image_feature.Image',)
    LABEL = (f'{_FEATURES}.class_label_feature.ClassLabel',)
    TEXTS = (f'{_FEATURES}.sequence_feature.Sequence',)


class Prepared(NamedTuple):
    """A dataset that TFDS prepares.

    name: of the dataset.
    fields: what each field of a record is to be.
    most_records: more than its training split has.
    instead: what a user may use where array_record files cannot be read.
    """

    name: str
    fields: Mapping[str, Kind]
    most_records: int
    instead: str

    @property
    def prepare_again(self) -> str:
        """What to do where a folder is of no use."""
        return f'prepare it again with `tfds build {self.name} --file_format=array_record`'


def newest_version(folder: Path, dataset: str) -> Path | None:
    """Finds the newest version of a dataset below a `data_dir` of TFDS, or which is that folder."""
    if (folder / 'dataset_info.json').is_file():
        return folder
    versions = [path.parent for path in (folder / dataset).glob('*/dataset_info.json')]
    numbered = [path for path in versions if re.fullmatch(r'\d+\.\d+\.\d+', path.name)]
    if not numbered:
        return None
    return max(numbered, key=lambda path: tuple(int(part) for part in path.name.split('.')))


def read(folder: Path, prepared: Prepared) -> Iterator[dict[str, Any]]:
    """Reads the records of the training split, without TensorFlow and without network.

    Args:
      folder: the version's folder, such as `~/tensorflow_datasets/cifar10/3.0.2`.
      prepared: which dataset it must be.

    Yields:
      A record's fields in the order in which TFDS shuffled them: bytes of texts and of images
      (which are not decoded), a number of a label.

    Raises:
      FileNotFoundError: the training split was not prepared in the array_record format.
      ValueError: the folder is of another dataset, its files are damaged, or a package that
        reads them is missing.
    """
    counts = _checked(folder, prepared)
    shards = _shards(folder, prepared, counts)
    import tensorflow_datasets as tfds

    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        source = ArrayRecordDataSource([str(shard) for shard in shards])
        if len(source) != sum(counts):
            raise ValueError(f'{sum(counts):,} records promised, {len(source):,} found')
        features = tfds.features.FeaturesDict(
            {name: _feature(kind) for name, kind in prepared.fields.items()}
        )
        # TFDS would recommend OpenCV on the terminal; Pillow decodes the PNGs as well.
        decoders = {
            name: tfds.decode.SkipDecoding()
            for name, kind in prepared.fields.items()
            if kind is Kind.IMAGE
        }
        for i in range(len(source)):
            yield features.deserialize_example_np(source[i], decoders=decoders)
    except ImportError as error:
        raise ValueError(
            f'{folder}: reading array_record files needs a package that is missing ({error}); '
            f'pip install array_record, or use {prepared.instead}'
        ) from error
    # TFDS and its readers raise what they like, some of it over many lines.
    except Exception as error:
        raise damaged(folder, prepared, error) from error


def damaged(folder: Path, prepared: Prepared, error: Exception) -> ValueError:
    """Returns the error for records that are not what they should be."""
    return ValueError(
        f'{folder}: damaged or incomplete ({first_line(error)}); {prepared.prepare_again}'
    )


def _feature(kind: Kind) -> Any:
    import tensorflow_datasets as tfds

    match kind:
        case Kind.TEXT:
            return tfds.features.Text()
        case Kind.TEXTS:
            return tfds.features.Sequence(tfds.features.Text())
        case Kind.IMAGE:
            return tfds.features.Image(shape=(32, 32, 3), encoding_format='png')
        case Kind.LABEL:
            return tfds.features.ClassLabel(num_classes=10)


def _checked(folder: Path, prepared: Prepared) -> list[int]:
    """Returns how many records each shard has, by a description that is of the expected dataset."""
    try:
        info, features = (
            json_files.read_json(folder / name, most_bytes=_MOST_BYTES, most_depth=_MOST_DEPTH)
            for name in ('dataset_info.json', 'features.json')
        )
        name = info['name']
        fields = features['featuresDict']['features']
        classes = {key: field['pythonClassName'] for key, field in fields.items()}
        classes[''] = features['pythonClassName']
        inner = {
            key: fields[key]['sequence']['feature']['pythonClassName']
            for key, kind in prepared.fields.items()
            if kind is Kind.TEXTS and key in fields
        }
        (train,) = (split for split in info['splits'] if split['name'] == 'train')
        counts = [int(count) for count in train.get('shardLengths', [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f' ({first_line(error)})' if isinstance(error, ValueError) else ''
        raise ValueError(
            f'{folder}: dataset_info.json or features.json is missing or damaged{reason}; '
            f'{prepared.prepare_again}'
        ) from error
    fits = (
        classes.pop('') == f'{_FEATURES}.features_dict.FeaturesDict'
        and classes.keys() == prepared.fields.keys()
        and all(classes[key] in kind.value for key, kind in prepared.fields.items())
        and all(of_one in Kind.TEXT.value for of_one in inner.values())
        and not _names_classes_otherwise(features)
    )
    if name != prepared.name or not fits:
        listed = ', '.join(sorted(quoted(key) for key in list(classes)[:20]))
        raise ValueError(
            f'{folder}: holds the dataset {quoted(name)} with the features [{listed}], not '
            f'TFDS {prepared.name} with {sorted(prepared.fields)} of its own classes; '
            f'{prepared.prepare_again}'
        )
    if not 0 < sum(counts) <= prepared.most_records or min(counts) < 0:
        raise ValueError(
            f'{folder}: damaged or incomplete (dataset_info.json claims {sum(counts):,} training '
            f'records; at most {prepared.most_records:,} make sense); {prepared.prepare_again}'
        )
    return counts


def _names_classes_otherwise(value: Any) -> bool:
    """Whether an object within a JSON value names a class in another form that TFDS follows."""
    if isinstance(value, dict):
        return bool(value.keys() & _OTHER_FORMS) or any(
            map(_names_classes_otherwise, value.values())
        )
    return isinstance(value, list) and any(map(_names_classes_otherwise, value))


def _shards(folder: Path, prepared: Prepared, counts: list[int]) -> list[Path]:
    start = f'{prepared.name}-train.array_record-'
    found = sorted(folder.glob(f'{start}*'))
    if not found:
        raise FileNotFoundError(
            f'{folder}: no training split in the array_record format, the only one that is read '
            f'without TensorFlow; {prepared.prepare_again}'
        )
    expected = [f'{start}{i:05d}-of-{len(counts):05d}' for i in range(len(counts))]
    if [path.name for path in found] != expected:
        raise ValueError(
            f'{folder}: damaged or incomplete ({len(counts)} files of the training split promised, '
            f'{len(found)} found); {prepared.prepare_again}'
        )
    for path in found:
        files.check_regular(path)
    return found
