"""Whatever a text holds, what leaves of it can be seen, steers nothing and is not endless."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_jax.text import (
    LONGEST,
    clean,
    escaped,
    first_line,
    middle_out,
    quoted,
    shortened,
)

STEERING = (
    '\x00',
    '\x1b',
    '\x07',
    '\x7f',
    '\x9b',
    '\u202e',
    '\u2066',
    '\u200f',
    '\u061c',
    '\ufeff',
)


@given(st.text(), st.integers(1, 50))
def test_everything_that_is_left_can_be_seen(text, most):
    cleaned = clean(text, most=most)
    assert len(cleaned) <= most
    assert cleaned.replace('\u200c', '').replace('\u200d', '').isprintable()
    assert clean(cleaned, most=most) == cleaned
    cleaned.encode()


@given(st.text(st.characters(categories=['L', 'M', 'N', 'P', 'S'])))
def test_what_can_be_seen_stays(text):
    assert clean(text) == text


@pytest.mark.parametrize('character', STEERING)
def test_what_steers_goes(character):
    assert clean(f'a{character}b') == 'a\ufffdb'
    assert unicodedata.category(character) in ('Cc', 'Cf')


def test_lines_may_be_kept():
    assert clean('a\n\tb\x1b\r', keep='\n\t') == 'a\n\tb\ufffd↵'


def test_long_texts_keep_their_beginning_and_messages_their_end_too():
    assert shortened('abcdef', 4) == 'abc…'
    assert shortened('abcd', 4) == 'abcd'
    assert middle_out('abcdefghij', 7) == 'abcd…ij'
    message = f'wrong: {"x" * 10**6}; do better'
    assert len(clean(message)) == LONGEST
    assert clean(message).startswith('wrong: x') and clean(message).endswith('x; do better')
    assert len(quoted('\x1b' * 10**6)) < 1000


@pytest.mark.parametrize('text', ['می\u200cروم', '👩\u200d💻'])
def test_joiners_of_languages_and_emoji_stay(text):
    assert clean(text) == text


ANY = st.text() | st.integers() | st.none() | st.floats() | st.lists(st.text() | st.integers())


@given(ANY, st.integers(5, 100))
def test_any_value_is_shown_printable_and_short(value, most):
    written = quoted(value, most=most)
    assert written.isprintable() and written.isascii()
    assert len(written) <= 2 * most + 3


@given(st.text(), st.integers(5, 100))
def test_any_text_is_plain_and_short(text, most):
    plain = escaped(text, most=most)
    assert plain.isprintable()
    assert len(plain) <= most + 3
    assert plain == text or not text.isprintable() or len(text) > most


def test_short_values_are_as_python_writes_them():
    assert quoted('a') == "'a'"
    assert quoted(10**12) == '1000000000000'
    assert quoted('\x1b\u202e') == r"'\x1b\u202e'"
    assert quoted('x' * 10**6) == f"'{'x' * 60}...'"


def test_the_reason_of_an_error():
    assert first_line(ValueError('first\nsecond')) == 'first'
    assert first_line(ValueError('a\x07b')) == r'a\x07b'
    assert first_line(KeyError()) == 'KeyError'
