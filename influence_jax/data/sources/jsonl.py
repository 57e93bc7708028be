"""Anyone's own texts, from a `.jsonl` file."""

import codecs
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from influence_jax import files, json_files
from influence_jax.data.dataset import Dataset
from influence_jax.text import quoted

_FORMS = ({'prompt', 'completion'}, {'question', 'answer'}, {'text'})
_FORMS_TEXT = '{"question", "answer"}, {"prompt", "completion"} or {"text"}'

_SHOWN_KEYS = 10


class Record(NamedTuple):
    """A record of a file.

    line: where it stands, from 1.
    fields: what stands there.
    """

    line: int
    fields: dict[str, Any]


def load(path: str | Path) -> Dataset:
    """Reads a dataset from a file with a JSON object a line, in UTF-8.

    A line holds `{"question", "answer"}` (the answer a text or a list of texts, of which the
    first is taken; written 'Q: ... A: ...'), or `{"prompt", "completion"}` (joined as they
    are), or `{"text"}`, and may hold an `"id"` (text or integer, unique). Without one the id is
    a hash of the text, which depends on no other line. Records of the same text are of one
    group. Other fields are not read, and blank lines are passed over.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is wrong; the message says which and how.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'{path}: no such file; give the path of an existing .jsonl file')
    with files.open_regular(path) as file:
        content = file.read()
    return parse(content, where=str(path), name=path.stem, provenance=path.name)


def parse(content: bytes, *, where: str, name: str, provenance: str) -> Dataset:
    """Reads a dataset from the bytes of such a file; `where` names it in messages."""
    records = read_records(content, where=where)
    pairs = []
    lines: dict[str, int] = {}
    given: list[str | None] = []
    for record in records:
        try:
            prompt, completion = _prompt_and_completion(record.fields)
            given.append(_given_id(record.fields, lines))
            pairs.append((prompt, completion))
        except ValueError as error:
            raise ValueError(f'{where}: line {record.line}: {error}') from error
        if (own := given[-1]) is not None:
            lines[own] = record.line
    texts = [prompt + completion for prompt, completion in pairs]
    hashed = content_ids(name, (f'{len(prompt)}:{prompt}{text}' for prompt, text in pairs))
    try:
        return Dataset(
            text_arrays(pairs),
            name=name,
            ids=[own or other for own, other in zip(given, hashed, strict=True)],
            groups=_groups(texts),
            provenance=provenance,
        )
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error


def read_records(content: bytes, *, where: str) -> list[Record]:
    """Reads the objects of the lines that are not blank.

    Raises:
      ValueError: a line is not UTF-8, no JSON or no object, or there is none.
    """
    records = []
    # As bytes: of text, line ends of Unicode that a JSON text may hold would be taken as well.
    lines = content.removeprefix(codecs.BOM_UTF8).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            fields = json_files.parse_json(line.decode('utf-8'))
        except UnicodeDecodeError as error:
            raise ValueError(
                f'{where}: line {number}: not UTF-8 (byte {error.start + 1} of the line); '
                'convert the file, for example with iconv'
            ) from error
        except ValueError as error:
            raise ValueError(
                f'{where}: line {number}: {error}; each line must be one JSON object'
            ) from error
        if not isinstance(fields, dict):
            raise ValueError(
                f'{where}: line {number}: holds {_kind(fields)}, but must be an object with '
                f'{_FORMS_TEXT}'
            )
        records.append(Record(number, fields))
    if not records:
        raise ValueError(f'{where}: there are no records; each line must be an object')
    return records


def question_and_first_answer(fields: dict[str, Any]) -> tuple[str, str]:
    """Reads the question of a record and its answer, the first where there are several.

    Raises:
      ValueError: one of them is missing, blank or no text.
    """
    if not {'question', 'answer'} <= fields.keys():
        raise ValueError(f'must hold {{"question", "answer"}}; found: {_keys(fields)}')
    answer = fields['answer']
    if isinstance(answer, list):
        if not answer:
            raise ValueError('"answer" is an empty list; leave the record out')
        answer = answer[0]
    return _not_blank('question', fields['question']), _not_blank('answer', answer)


def text_arrays(pairs: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Returns the arrays of a text dataset from prompts and their completions."""
    prompts, completions = zip(*pairs, strict=True)
    text = np.dtypes.StringDType()
    return {'prompt': np.array(prompts, text), 'completion': np.array(completions, text)}


def question_and_answer(question: str, answer: str) -> tuple[str, str]:
    """Writes a prompt and a completion as in the paper (2506.20481): 'Q: ... A: ...'.

    The space before the answer belongs to the completion, since byte-level tokenizers join it
    to the answer's first word.
    """
    return f'Q: {question.strip()} A:', f' {answer.strip()}'


def content_ids(stem: str, contents: Iterable[str]) -> tuple[str, ...]:
    """Makes an id of each content: `stem`, its hash and, from its second time on, '.2' ....

    They do not depend on the order, nor on what else is in the dataset.
    """
    times: Counter[str] = Counter()
    ids = []
    for content in contents:
        content_hash = hashlib.sha256(content.encode()).hexdigest()[:16]
        times[content_hash] += 1
        again = f'.{times[content_hash]}' if times[content_hash] > 1 else ''
        ids.append(f'{stem}-{content_hash}{again}')
    return tuple(ids)


def _prompt_and_completion(fields: dict[str, Any]) -> tuple[str, str]:
    forms = [form for form in _FORMS if form <= fields.keys()]
    if len(forms) != 1:
        raise ValueError(f'must hold one of {_FORMS_TEXT}; found: {_keys(fields)}')
    if 'question' in forms[0]:
        return question_and_answer(*question_and_first_answer(fields))
    if 'text' in forms[0]:
        return '', _not_blank('text', fields['text'])
    return _text('prompt', fields['prompt']), _not_blank('completion', fields['completion'])


def _given_id(fields: dict[str, Any], lines: dict[str, int]) -> str | None:
    own = fields.get('id')
    if own is None:
        return None
    if isinstance(own, int) and not isinstance(own, bool):
        own = str(own)
    own = _not_blank('id', own)
    if own in lines:
        raise ValueError(
            f'the id {quoted(own)} occurs in line {lines[own]} already; ids must differ'
        )
    return own


def _not_blank(key: str, value: object) -> str:
    text = _text(key, value)
    if not text.strip():
        raise ValueError(f'"{key}" is empty; leave the record out')
    return text


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'"{key}" must be text, found {_kind(value)}')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'"{key}" is no valid text: {error}') from error
    return value


def _keys(fields: dict[str, Any]) -> str:
    shown = [quoted(key) for key in sorted(fields)[:_SHOWN_KEYS]]
    more = f' and {len(fields) - _SHOWN_KEYS} more' if len(fields) > _SHOWN_KEYS else ''
    return ', '.join(shown) + more or 'nothing'


def _kind(value: object) -> str:
    """The name of a value's kind in JSON."""
    names = {dict: 'an object', list: 'a list', str: 'text', bool: 'true or false'}
    return 'null' if value is None else names.get(type(value), 'a number')


def _groups(texts: list[str]) -> list[int]:
    """Numbers in the order of first appearance."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(text, len(numbers)) for text in texts]
