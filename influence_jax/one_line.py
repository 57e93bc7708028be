"""What stands in a file or an error, as part of a one-line message: printable and short."""

from typing import Any


def shown(value: Any, *, most: int = 60) -> str:
    """A value as Python writes it, escaped to ASCII and cut to `most` characters."""
    # Cut first where it is long: the whole of a megabyte need not be escaped.
    written = ascii(f'{value[:most]}...' if isinstance(value, str) and len(value) > most else value)
    return written if len(written) <= 2 * most else f'{written[: 2 * most]}...'


def plain(text: str, *, most: int = 200) -> str:
    """A text without quotes: as it is where it is printable and short, else escaped and cut."""
    clean = text[: most + 1] if text[: most + 1].isprintable() else ascii(text[: most + 1])[1:-1]
    return clean if len(clean) <= most else f'{clean[:most]}...'


def reason(error: BaseException, *, most: int = 200) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return plain((str(error).strip().splitlines() or [type(error).__name__])[0], most=most)
