"""Text from data, made fit to leave the program: for terminals, pages, tables and error lines.

Names, keys, paths and messages may hold anything. What is shown of them holds nothing that steers
a terminal, turns the direction of writing or cannot be seen, and is never endless.
"""

from typing import Any

ELLIPSIS = '\N{HORIZONTAL ELLIPSIS}'

LONGEST_NAME = 200
"""Characters of an id or a name, wherever it is shown."""

LONGEST = 4000
"""Characters of anything else."""

# Invisible, but part of the spelling of some languages and of emoji.
_JOINERS = '\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}'


def clean(text: str, *, most: int | None = LONGEST, keep: str = '') -> str:
    r"""The text on one line, with nothing in it that cannot be seen.

    Line breaks become arrows and other white space spaces. Control characters, marks that turn the
    direction of writing, and halves of characters, which no file can hold, are replaced.

    Args:
      text: anything.
      most: how many characters to keep, of the beginning and of the end; None for all.
      keep: characters to be left as they are: '\n' for text of several lines.
    """
    if most is not None:
        text = middle_out(text, most)
    if text.isprintable():
        return text
    return ''.join(c if c.isprintable() or c in keep else _seen(c) for c in text)


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters; an ellipsis where it goes on."""
    return text if len(text) <= most else text[: most - 1] + ELLIPSIS


def middle_out(text: str, most: int) -> str:
    """A text of at most so many characters; an ellipsis in place of its middle.

    For messages: what is wrong stands at their beginning, what to do at their end.
    """
    if len(text) <= most:
        return text
    end = (most - 1) // 3
    return text[: most - 1 - end] + ELLIPSIS + text[len(text) - end :]


def quoted(value: Any, *, most: int = 60) -> str:
    """A value for a message: as Python writes it, escaped to ASCII and cut to `most` characters."""
    # Cut first where it is long: the whole of a megabyte need not be escaped.
    written = ascii(f'{value[:most]}...' if isinstance(value, str) and len(value) > most else value)
    return written if len(written) <= 2 * most else f'{written[: 2 * most]}...'


def escaped(text: str, *, most: int = 200) -> str:
    """A text without quotes: as it is where it is printable and short, else escaped and cut."""
    begin = text[: most + 1]
    plain = begin if begin.isprintable() else ascii(begin)[1:-1]
    return plain if len(plain) <= most else f'{plain[:most]}...'


def first_line(error: BaseException, *, most: int = 200) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return escaped((str(error).strip().splitlines() or [type(error).__name__])[0], most=most)


def _seen(character: str) -> str:
    """What stands for a character that is not printable."""
    if character in '\r\n':
        return '\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}'
    if character.isspace():
        return ' '
    if character in _JOINERS:
        return character
    return '\N{REPLACEMENT CHARACTER}'
