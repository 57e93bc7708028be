"""What a `tokenizer.json` may ask for, checked before the library in Rust sees it.

That library panics on a pattern that matches nothing, ends the process where memory is short, and
does as much work as a file asks for: forty replacements that double a text make 2**40 of it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from influence_jax import json_files
from influence_jax.text import first_line, quoted

MOST_BYTES = 2**27
"""Of a tokenizer's file; the largest vocabularies there are have 40 MB."""
_MOST_DEPTH = 32
_MOST_STEPS = 64
_MOST_GROWTH = 64
"""How many times longer all replacements together may make a text."""
_MOST_PATTERN = 2_000
_MOST_FIXED = 2**20
_MOST_ID = 2**24

_SEQUENCES = {
    'normalizer': 'normalizers',
    'pre_tokenizer': 'pretokenizers',
    'decoder': 'decoders',
    'post_processor': 'processors',
}
_KNOWN = {
    'normalizer': {
        'BertNormalizer', 'StripAccents', 'Strip', 'NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase', 'Nmt',
        'Precompiled', 'Prepend', 'Replace', 'ByteLevel',
    },
    'pre_tokenizer': {
        'BertPreTokenizer', 'ByteLevel', 'CharDelimiterSplit', 'Metaspace', 'Whitespace',
        'WhitespaceSplit', 'Split', 'Punctuation', 'Digits', 'UnicodeScripts', 'FixedLength',
    },
    'decoder': {
        'BPEDecoder', 'ByteLevel', 'WordPiece', 'Metaspace', 'CTC', 'ByteFallback', 'Fuse', 'Strip',
        'Replace',
    },
    'post_processor': {
        'TemplateProcessing', 'BertProcessing', 'RobertaProcessing', 'ByteLevel',
    },
}  # fmt: skip
_MODELS = {'BPE', 'WordPiece', 'WordLevel', 'Unigram'}
# A group that repeats, of something that repeats: work that doubles with every character.
_NESTED = re.compile(r'[*+}][^()]*\)(?:[*+]|\{\d+,?\d*\})')
_COUNTED = re.compile(r'\{(\d*),?(\d*)\}')
_BACK_REFERENCE = re.compile(r'\\(?:[1-9]|k[<\'{]|g[<\'{])')


class Panicked(ValueError):
    """The library in Rust has failed in a way that is no error of Python."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raises Panicked for a panic in Rust, which would pass any `except Exception`."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == 'PanicException':
            raise Panicked(f'the tokenizers library failed: {first_line(error)}') from error
        raise


def read(path: Path) -> dict[str, Any]:
    """Reads and checks a `tokenizer.json`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no regular file, no JSON, or asks for what is not known or for more work
        than a text justifies; one line.
    """
    fields = json_files.read_json(path, most_bytes=MOST_BYTES, most_depth=_MOST_DEPTH)
    try:
        check(fields)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    return fields


def parse(text: str) -> dict[str, Any]:
    """Parses and checks the text of a `tokenizer.json`; raises as `read`, naming no file."""
    fields = json_files.parse_json(text, most_depth=_MOST_DEPTH)
    check(fields)
    return fields


def check(fields: Any) -> None:
    """Checks the fields of a `tokenizer.json`; ValueError says what is wrong, without the file."""
    _require(isinstance(fields, dict), 'it is no object of named fields')
    _check_model(fields.get('model'), fields.get('added_tokens'))
    for role in _SEQUENCES:
        steps: list[Mapping[str, Any]] = []
        _collect(role, fields.get(role), steps)
        growth = 1
        for step in steps:
            growth *= _growth(step)
            _require(
                growth <= _MOST_GROWTH,
                f'the {role} may make a text more than {_MOST_GROWTH} times as long',
            )
    strategy = (fields.get('padding') or {}) if isinstance(fields.get('padding'), dict) else {}
    fixed = strategy.get('strategy')
    if isinstance(fixed, dict):
        _size('the padding', fixed.get('Fixed'), _MOST_FIXED)


def _collect(role: str, step: Any, found: list[Mapping[str, Any]]) -> None:
    """Lists the steps of a role, those within sequences in their order, each checked."""
    if step is None:
        return
    _require(isinstance(step, dict), f'the {role} is {quoted(step)}, no object')
    kind = step.get('type')
    if kind == 'Sequence':
        inner = step.get(_SEQUENCES[role])
        _require(isinstance(inner, list), f'a sequence of the {role} has no list of steps')
        for one in inner:
            _require(one is not None, f'a step of the {role} is null')
            _collect(role, one, found)
        return
    _require(
        isinstance(kind, str) and kind in _KNOWN[role],
        f'the {role} {quoted(kind)} is unknown',
    )
    found.append(step)
    _require(len(found) <= _MOST_STEPS, f'the {role} has more than {_MOST_STEPS} steps')
    if kind == 'FixedLength':
        _size('the length of FixedLength', step.get('length'), 2**31, least=1)
    if 'pattern' in step:
        _check_pattern(role, step['pattern'])


def _check_pattern(role: str, pattern: Any) -> None:
    _require(
        isinstance(pattern, dict)
        and len(pattern) == 1
        and pattern.keys() <= {'String', 'Regex'}
        and all(isinstance(text, str) for text in pattern.values()),
        f'a pattern of the {role} is {quoted(pattern)}',
    )
    ((form, text),) = pattern.items()
    _require(bool(text), f'a pattern of the {role} is empty, and would match everywhere')
    _require(
        len(text) <= _MOST_PATTERN,
        f'a pattern of the {role} has {len(text):,} characters, more than {_MOST_PATTERN:,}',
    )
    if form == 'Regex':
        counts = [int(n) for pair in _COUNTED.findall(text) for n in pair if n and len(n) < 10]
        _require(
            not (_NESTED.search(text) or _BACK_REFERENCE.search(text))
            and all(count <= 100 for count in counts),
            f'the pattern {quoted(text)} of the {role} repeats what repeats, which takes '
            'unbounded time',
        )


def _growth(step: Mapping[str, Any]) -> int:
    """By what factor a step may lengthen a text."""
    match step.get('type'):
        case 'Replace':
            content = step.get('content', '')
            _require(isinstance(content, str), 'a replacement has no text')
            ((form, text),) = step.get('pattern', {'': ''}).items()
            shortest = len(text) if form == 'String' else 1
            return max(1, -(-len(content) // max(1, shortest)))
        case 'Prepend':
            prepended = step.get('prepend')
            _require(
                isinstance(prepended, str) and len(prepended) <= _MOST_GROWTH,
                'what is prepended is no short text',
            )
            return 1
        case 'ByteLevel' | 'NFKC' | 'NFKD':
            return 2
    return 1


def _check_model(model: Any, added: Any) -> None:
    _require(isinstance(model, dict), 'it has no model')
    kind = model.get('type', 'Unigram' if isinstance(model.get('vocab'), list) else 'BPE')
    _require(isinstance(kind, str) and kind in _MODELS, f'the model {quoted(kind)} is unknown')
    _require(
        model.get('dropout') in (None, 0),
        f'the model has dropout={quoted(model.get("dropout"))}, by which a text has other '
        'tokens every time; set it to null',
    )
    for name in ('continuing_subword_prefix', 'end_of_word_suffix', 'unk_token'):
        text = model.get(name)
        _require(
            text is None or (isinstance(text, str) and len(text) <= _MOST_PATTERN),
            f'{name} is {quoted(text)}',
        )
    if model.get('max_input_chars_per_word') is not None:
        _size('max_input_chars_per_word', model['max_input_chars_per_word'], 2**20)
    vocabulary = model.get('vocab')
    if kind == 'Unigram':
        _require(isinstance(vocabulary, list), 'the vocabulary is no list')
        ids: list[Any] = []
        count = len(vocabulary)
    else:
        _require(isinstance(vocabulary, dict), 'the vocabulary is no object')
        ids, count = list(vocabulary.values()), len(vocabulary)
    _require(
        added is None or (isinstance(added, list) and all(isinstance(one, dict) for one in added)),
        'added_tokens is no list of objects',
    )
    for one in added or ():
        content = one.get('content')
        _require(
            isinstance(content, str) and bool(content),
            f'an added token is {quoted(content)}',
        )
        ids.append(one.get('id'))
    # Tables over all ids are made, so a few tokens must not have ids in the billions.
    most = min(_MOST_ID, 16 * (count + len(added or ())) + 1_000)
    wrong = [number for number in ids if type(number) is not int or not 0 <= number <= most]
    if wrong:
        _size('a token id', wrong[0], most)


def _size(what: str, value: Any, most: int, *, least: int = 0) -> None:
    _require(
        type(value) is int and least <= value <= most,
        f'{what} is {quoted(value)}, but must be from {least} to {most:,}',
    )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
