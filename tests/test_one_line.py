"""Values in messages: printable, in a line, and short whatever they hold."""

from hypothesis import given
from hypothesis import strategies as st

from influence_jax import one_line

ANY = st.text() | st.integers() | st.none() | st.floats() | st.lists(st.text() | st.integers())


@given(ANY, st.integers(5, 100))
def test_any_value_is_shown_printable_and_short(value, most):
    shown = one_line.shown(value, most=most)
    assert shown.isprintable() and shown.isascii()
    assert len(shown) <= 2 * most + 3


@given(st.text(), st.integers(5, 100))
def test_any_text_is_plain_and_short(text, most):
    plain = one_line.plain(text, most=most)
    assert plain.isprintable()
    assert len(plain) <= most + 3
    assert plain == text or not text.isprintable() or len(text) > most


def test_short_values_are_as_python_writes_them():
    assert one_line.shown('a') == "'a'"
    assert one_line.shown(10**12) == '1000000000000'
    assert one_line.shown('\x1b\u202e') == r"'\x1b\u202e'"
    assert one_line.shown('x' * 10**6) == f"'{'x' * 60}...'"


def test_the_reason_of_an_error():
    assert one_line.reason(ValueError('first\nsecond')) == 'first'
    assert one_line.reason(ValueError('a\x07b')) == r'a\x07b'
    assert one_line.reason(KeyError()) == 'KeyError'
