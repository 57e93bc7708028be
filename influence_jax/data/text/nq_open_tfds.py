"""NQ-open's training questions as TFDS prepared them; the only module here that imports TFDS."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

_NAME = 'natural_questions_open'
_FEATURES = 'tensorflow_datasets.core.features'
_TEXT_CLASSES = (f'{_FEATURES}.tensor_feature.Tensor', f'{_FEATURES}.text_feature.Text')
_ALLOWED_CLASSES = {
    'record': (f'{_FEATURES}.features_dict.FeaturesDict',),
    'question': _TEXT_CLASSES,
    'answer': (f'{_FEATURES}.sequence_feature.Sequence',),
    'one answer': _TEXT_CLASSES,
}

_PREPARE_AGAIN = f'prepare it again with `tfds build {_NAME} --file_format=array_record`'


def read(folder: Path) -> list[tuple[str, str]]:
    """Reads the training split, without TensorFlow and without network.

    Args:
      folder: the version's folder, such as
        `~/tensorflow_datasets/natural_questions_open/1.0.0`.

    Returns:
      Questions, each with its first answer, in the order in which TFDS shuffled them.

    Raises:
      FileNotFoundError: the training split was not prepared in the array_record format.
      ValueError: the folder is of another dataset, its files are damaged, or a package that
        reads them is missing.
    """
    _check_is_nq_open(folder)
    if not any(folder.glob(f'{_NAME}-train.array_record-*')):
        raise FileNotFoundError(
            f'{folder}: no training split in the array_record format, the only one that is read '
            f'without TensorFlow; {_PREPARE_AGAIN}'
        )
    try:
        source = tfds.builder_from_directory(folder, file_format='array_record').as_data_source(
            split='train'
        )
        return _read_records(source)
    except ImportError as error:
        raise ValueError(
            f'{folder}: reading array_record files needs a package that is missing ({error}); '
            'pip install array_record, or use the .jsonl files of NQ-open'
        ) from error
    # TFDS and its readers raise what they like, some of it over many lines.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f'{folder}: damaged or incomplete ({reason}); {_PREPARE_AGAIN}') from error


def _check_is_nq_open(folder: Path) -> None:
    """Refuses other datasets, and feature classes that TFDS would import by the name given."""
    try:
        info = json.loads((folder / 'dataset_info.json').read_text(encoding='utf-8'))
        features = json.loads((folder / 'features.json').read_text(encoding='utf-8'))
        name = info['name']
        fields = features['featuresDict']['features']
        classes = {key: field['pythonClassName'] for key, field in fields.items()}
        classes['record'] = features['pythonClassName']
        if 'answer' in fields:
            classes['one answer'] = fields['answer']['sequence']['feature']['pythonClassName']
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{folder}: dataset_info.json or features.json is missing or damaged; {_PREPARE_AGAIN}'
        ) from error
    fits = classes.keys() == _ALLOWED_CLASSES.keys() and all(
        classes[key] in allowed for key, allowed in _ALLOWED_CLASSES.items()
    )
    if name != _NAME or not fits:
        raise ValueError(
            f'{folder}: holds the dataset {name!r} with the features {sorted(fields)}, not '
            f'TFDS {_NAME} with a text "question" and a sequence of texts "answer"; '
            f'{_PREPARE_AGAIN}'
        )


def _read_records(source: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    pairs = []
    for i in range(len(source)):
        record = source[i]
        # A shard cut in certain places reads as records without content.
        question = (record['question'] or b'').decode()
        answer = record['answer'][0].decode() if len(record['answer']) else ''
        if not question.strip() or not answer.strip():
            raise ValueError(f'record {i} has no question or no answer')
        pairs.append((question, answer))
    return pairs
