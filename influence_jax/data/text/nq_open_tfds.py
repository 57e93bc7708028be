"""NQ-open's training questions as TFDS prepared them."""

from pathlib import Path
from typing import Any

from influence_jax.data import tfds_records
from influence_jax.data.tfds_records import Kind, Prepared

_PREPARED = Prepared(
    'natural_questions_open',
    {'question': Kind.TEXT, 'answer': Kind.TEXTS},
    most_records=10**6,
    instead='the .jsonl files of NQ-open',
)


def read(folder: Path) -> list[tuple[str, str]]:
    """Reads the training split of a prepared dataset; see `tfds_records.read`.

    Returns:
      Questions, each with its first answer, in the order in which TFDS shuffled them.
    """
    pairs = []
    for number, record in enumerate(tfds_records.read(folder, _PREPARED)):
        try:
            pairs.append(_pair(number, record))
        except (ValueError, TypeError, AttributeError) as error:
            raise tfds_records.damaged(folder, _PREPARED, error) from error
    return pairs


def _pair(number: int, record: dict[str, Any]) -> tuple[str, str]:
    # A shard cut in certain places reads as records without content.
    question = (record['question'] or b'').decode()
    answer = record['answer'][0].decode() if len(record['answer']) else ''
    if not question.strip() or not answer.strip():
        raise ValueError(f'record {number} has no question or no answer')
    return question, answer
