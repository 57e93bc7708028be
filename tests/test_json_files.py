"""Files from elsewhere: what is read of them, and what is refused without blocking or dying."""

import json
import os
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_jax import files
from influence_jax.json_files import parse_json, read_json

_LARGE = 2**20


def _refusal(call, *arguments, **options):
    with pytest.raises(ValueError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message and '\n' not in message
    return message


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)  # fmt: skip


@given(_VALUES)
def test_what_json_wrote_is_read(value):
    assert parse_json(json.dumps(value), most_depth=100) == value
    assert parse_json(json.dumps(value, ensure_ascii=True).encode(), most_depth=100) == value


@settings(max_examples=300)
@given(st.text(alphabet='[]{}":,\\0eE1.-NaInfity \n') | st.binary(max_size=40))
def test_any_text_is_a_value_or_one_line(content):
    try:
        parse_json(content)
    except ValueError as error:
        assert '\n' not in str(error)


@pytest.mark.parametrize('opening', ['[', '{"a":', '[{"a":'])
@pytest.mark.parametrize('depth', [65, 1000, 100_000, 1_000_000])
def test_deep_nesting_is_refused_before_parsing(opening, depth):
    assert '64 levels' in _refusal(parse_json, opening * depth)


def test_the_deepest_that_is_allowed():
    assert parse_json('[' * 64 + ']' * 64, most_depth=64)
    assert '63 levels' in _refusal(parse_json, '[' * 64 + ']' * 64, most_depth=63)


def test_brackets_in_strings_and_beside_each_other_are_not_deep():
    wide = [[], {}] * 1000
    texts = ['[' * 1000, '"[' * 100, '\\', '\\"[{', {'[' * 100: 1}]
    assert parse_json(json.dumps([wide, texts])) == [wide, texts]


@pytest.mark.parametrize('unfinished', ['"' + '\\"' * 300_000, '[[' * 40 + '"' + '\\"[' * 300_000])
def test_a_string_without_an_end_takes_no_long_time(unfinished):
    start = time.monotonic()
    _refusal(parse_json, unfinished)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        ('{"a": 1, "b": 2, "a": 3}', "'a' twice"),
        ('[{"x": {"a": 1, "a": 1}}]', "'a' twice"),
        ('{"\\u0061": 1, "a": 1}', "'a' twice"),
        ('{"\\n\\u001b' + 'x' * 100 + '": 1, "\\n\\u001b' + 'x' * 100 + '": 1}', r'\x1b'),
        ('[NaN]', 'NaN'),
        ('-Infinity', 'Infinity'),
        ('1e999', '1e999'),
        ('-1e999', '1e999'),
        ('1' * 5000, '5000 digits'),
        ('1' * 400, '400 digits'),
        ('', 'not JSON'),
        ('[1] 2', 'not JSON'),
        ('\0', 'not JSON'),
        (b'"\xff"', 'byte 1'),
        ('[]'.encode('utf-16'), 'UTF-8'),
    ],
)
def test_what_is_refused(text, match):
    message = _refusal(parse_json, text)
    assert match in message
    assert len(message) < 200


def test_numbers_that_float64_holds_are_read():
    assert parse_json('[1000000000000000019884624838656, 1e308, -1e-400]') == [
        1000000000000000019884624838656,
        1e308,
        0.0,
    ]


def test_a_file_is_named(tmp_path):
    path = tmp_path / 'a.json'
    path.write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert read_json(path, most_bytes=_LARGE) == {'a': [1]}
    path.write_text('{"a": 1, "a": 1}')
    assert _refusal(read_json, path, most_bytes=_LARGE).startswith(f'{path}: ')
    assert f'{path} has 16 bytes' in _refusal(read_json, path, most_bytes=15)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / 'none', most_bytes=_LARGE)


def test_links_to_files_are_followed(tmp_path):
    (tmp_path / 'a').write_text('1')
    (tmp_path / 'b').symlink_to('a')
    assert read_json(tmp_path / 'b', most_bytes=1) == 1


def _socket(path):
    with socket.socket(socket.AF_UNIX) as opened:
        os.chdir(path.parent)
        opened.bind(path.name)


IRREGULAR = {
    'a directory': lambda path: path.mkdir(),
    'a pipe': lambda path: os.mkfifo(path),
    'a socket': _socket,
    'a device': lambda path: path.symlink_to('/dev/zero'),
    'no file': lambda path: path.symlink_to('nowhere'),
    'leads to no file': lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize(('kind', 'make'), IRREGULAR.items(), ids=IRREGULAR.keys())
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, kind, make):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'a.json'
    make(path)
    for call in (files.check_regular, files.open_regular):
        message = _refusal(call, path)
        assert str(path) in message and kind in message
    assert str(path) in _refusal(read_json, path, most_bytes=_LARGE)


def test_a_pipe_put_in_a_files_place_between_looking_and_opening(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    path.write_text('1')
    real = os.open

    def replaced(name, *arguments):
        path.unlink()
        os.mkfifo(path)
        return real(name, *arguments)

    monkeypatch.setattr(os, 'open', replaced)
    assert 'a pipe' in _refusal(files.open_regular, path)


def test_a_file_larger_than_the_system_says_is_not_read_whole(tmp_path):
    path = tmp_path / 'a'
    path.symlink_to('/proc/self/maps')  # a regular file of 0 bytes, so they say
    assert 'at most 10' in _refusal(files.read_bytes, path, most_bytes=10)
