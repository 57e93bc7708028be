"""What a launch prints at its end: whatever the terminal can show, and whoever reads it."""

import contextlib
import os
import sys
from pathlib import Path

from rich.console import Console, RenderableType

from influence_jax import report
from influence_jax.text import clean


def take_any_character() -> None:
    """Makes the streams write '?' for what their encoding cannot, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, 'reconfigure', None)
        if reconfigure:
            reconfigure(errors='replace')


def log(text: str) -> None:
    """Prints a line of progress; whoever has stopped reading does not stop the work."""
    with contextlib.suppress(OSError):
        print(clean(text), file=sys.stderr, flush=True)


def save_and_show(
    results: report.Results,
    directory: Path | str,
    *,
    tensors: report.KeptTensors | None = None,
    origin: str | None = None,
) -> Path:
    """Writes a report, prints it in short, and returns the page's path.

    What is printed has been written to files before; nobody need read it to its end.
    """
    page = report.save(results, directory, tensors=tensors, origin=origin)
    show(report.terminal(results), page)
    return page


def show(summary: RenderableType, page: Path) -> None:
    """Prints a report in short, and where its page is."""
    from influence_jax.report.tables import printable  # slow to import

    console = _Console()
    with contextlib.suppress(BrokenPipeError):
        console.print(summary)
        console.print(printable(f'report: {page}'), soft_wrap=True)
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
