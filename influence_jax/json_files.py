"""JSON from elsewhere: bounded in size and depth before it is parsed, and unambiguous.

`json.loads` recurses as deep as a text does, keeps the last of two equal keys, and takes `NaN`
and `1e999`, which are no JSON and no finite number.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from influence_jax import files
from influence_jax.text import quoted

MOST_DEPTH = 64
"""Deeper nesting than any file that is read here has."""

_MOST_DIGITS = 308
"""Of a whole number; every one of so many digits is below the largest float64."""
# Linear in the text, also where a string does not end.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(r'[\[\]{}]')


def read_json(path: Path, *, most_bytes: int, most_depth: int = MOST_DEPTH) -> Any:
    """Reads a file of one JSON value.

    Args:
        path: a regular file, or a link to one.
        most_bytes: larger files are refused before they are read.
        most_depth: arrays and objects within each other; deeper ones are refused before parsing.

    Raises:
        FileNotFoundError: nothing has that name.
        ValueError: not a regular file, too large, not UTF-8, not JSON, too deep, an object with
            the same key twice, or a number that is not finite; one line that names the file.
        OSError: the system refused to read it.
    """
    content = files.read_bytes(path, most_bytes=most_bytes)
    try:
        return parse_json(content, most_depth=most_depth)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def parse_json(content: bytes | str, *, most_depth: int = MOST_DEPTH) -> Any:
    """Parses one JSON value, as `read_json` does; ValueError names no file."""
    if isinstance(content, bytes):
        try:
            content = content.decode('utf-8-sig')
        except UnicodeDecodeError as error:
            raise ValueError(f'not JSON: byte {error.start} is not UTF-8') from error
    if (depth := _depth(content, most=most_depth)) > most_depth:
        raise ValueError(f'not JSON of this kind: nested deeper than {most_depth} levels')
    try:
        return json.loads(
            content,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_whole_number,
            parse_float=_number,
        )
    except RecursionError as error:  # the caller itself has used up the interpreter's stack
        raise ValueError(f'not JSON of this kind: nested {depth} levels deep') from error
    except json.JSONDecodeError as error:
        raise ValueError(f'not JSON ({error})') from error


def _depth(text: str, *, most: int) -> int:
    """How deep the text nests; looks no further once it is deeper than `most`."""
    if text.count('[') + text.count('{') <= most:
        return most
    depth = deepest = 0
    for bracket in _BRACKET.finditer(_STRING.sub('', text)):
        depth += 1 if bracket[0] in '[{' else -1
        deepest = max(deepest, depth)
        if depth > most:
            break
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f'an object has the key {quoted(twice)} twice')
    return found


def _constant(name: str) -> Any:
    raise ValueError(f'not JSON: {name} is not a finite number')


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f'a number of {len(digits)} digits: {quoted(digits)}')
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'the number {quoted(text)} is beyond float64')
    return value
