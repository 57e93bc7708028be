"""Natural Questions, open domain: from the dataset's own files, or as TFDS prepared them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from influence_jax import files
from influence_jax.data.dataset import Dataset
from influence_jax.data.sources import jsonl, tfds_records
from influence_jax.data.sources.tfds_records import Kind, Prepared

_NAME = 'nq_open'
_PREFERRED = ('NQ-open.train.jsonl', 'NQ-open.dev.jsonl')
_URL = 'https://github.com/google-research-datasets/natural-questions/tree/master/nq_open'
_PREPARED = Prepared(
    'natural_questions_open',
    {'question': Kind.TEXT, 'answer': Kind.TEXTS},
    most_records=10**6,
    instead='the .jsonl files of NQ-open',
)

_HOW_TO_GET_IT = (
    f'download {_PREFERRED[0]} from {_URL} and give it, or the folder it is in, as data_dir; or '
    f'give the data_dir of TFDS after `tfds build {_PREPARED.name} --file_format=array_record`'
)


def load(data_dir: str | Path | None = None) -> Dataset:
    """Reads the questions, each with its first answer; never touches the network.

    Args:
      data_dir: a `.jsonl` file of `{"question", "answer"}`; or a folder with
        `NQ-open.train.jsonl`, else `NQ-open.dev.jsonl`, else one other `NQ-open*.jsonl`; or a
        `data_dir` of TFDS in which `natural_questions_open` was prepared in the array_record
        format, of which the training split is read. None: TFDS's own default,
        `~/tensorflow_datasets`.

    Returns:
      The records as 'Q: {question} A:' and ' {answer}', in ascending order of their ids. An id
      is a hash of the question, so that it and the order are the same whichever way the records
      are read. Records of the same question are of one group.

    Raises:
      FileNotFoundError: nothing is there; the message says what to download and where to put it.
      ValueError: a record is wrong, a file is damaged, or several files could be meant.
    """
    path = Path(tfds_records.DEFAULT_DIR if data_dir is None else data_dir).expanduser()
    if path.is_file():
        return _from_file(path)
    if not path.is_dir():
        raise FileNotFoundError(f'NQ-open: no folder {path}; {_HOW_TO_GET_IT}')
    if file := _own_file(path):
        return _from_file(file)
    if version := tfds_records.newest_version(path, _PREPARED.name):
        return _dataset(_read_prepared(version), where=str(version), source='TFDS, train')
    raise FileNotFoundError(f'NQ-open: nothing of it in {path}; {_HOW_TO_GET_IT}')


def _own_file(folder: Path) -> Path | None:
    for name in _PREFERRED:
        if (folder / name).exists():
            return folder / name
    files = sorted(folder.glob('NQ-open*.jsonl'))
    if len(files) > 1:
        raise ValueError(
            f'NQ-open: {folder} holds {len(files)} files of it ({files[0].name}, {files[1].name}'
            f'{", ..." if len(files) > 2 else ""}); give the one that is meant'
        )
    return files[0] if files else None


def _from_file(path: Path) -> Dataset:
    with files.open_regular(path) as file:
        content = file.read()
    pairs = []
    for record in jsonl.read_records(content, where=str(path)):
        try:
            pairs.append(jsonl.question_and_first_answer(record.fields))
        except ValueError as error:
            raise ValueError(f'{path}: line {record.line}: {error}') from error
    return _dataset(pairs, where=str(path), source=path.name)


def _dataset(pairs: Iterable[tuple[str, str]], *, where: str, source: str) -> Dataset:
    # A question met again must get the same of its numbers whatever the order was.
    ordered = sorted((question.strip(), answer.strip()) for question, answer in pairs)
    ids = jsonl.content_ids(_NAME, (question for question, _ in ordered))
    by_id = sorted(range(len(ids)), key=lambda i: ids[i])
    questions = sorted({question for question, _ in ordered})
    group = {question: number for number, question in enumerate(questions)}
    records = [jsonl.question_and_answer(*ordered[i]) for i in by_id]
    try:
        return Dataset(
            jsonl.text_arrays(records),
            name=_NAME,
            ids=[ids[i] for i in by_id],
            groups=[group[ordered[i][0]] for i in by_id],
            provenance=f'Natural Questions, NQ-open (CC BY-SA 3.0), {_URL}; {source}',
        )
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error


def _read_prepared(folder: Path) -> list[tuple[str, str]]:
    """Questions, each with its first answer, in the order in which TFDS shuffled them."""
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
