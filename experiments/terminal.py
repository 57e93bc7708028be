"""What a launch prints at its end: whatever the terminal can show, and whoever reads it."""

import contextlib
import os
import sys
from collections.abc import Iterable

from rich.console import Console, RenderableType


def take_any_character() -> None:
    """Makes the streams write '?' for what their encoding cannot, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, 'reconfigure', None)
        if reconfigure:
            reconfigure(errors='replace')


def show(parts: Iterable[RenderableType], *, last: RenderableType) -> None:
    """Prints what has been written to files before; nobody need read it to its end.

    Args:
      parts: each broken into lines as wide as the terminal.
      last: the last line, of any length.
    """
    console = _Console()
    with contextlib.suppress(BrokenPipeError):
        for part in parts:
            console.print(part)
        console.print(last, soft_wrap=True)
        flush()
        return
    end_quietly()


class _Console(Console):
    """Leaves it to the caller what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def flush() -> None:
    """Writes out what has been printed."""
    if sys.stdout is not None:
        sys.stdout.flush()


def end_quietly() -> None:
    """After the reader of standard output has gone: Python would say so once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
            continue
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())
