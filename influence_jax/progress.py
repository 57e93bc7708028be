"""How far an ensemble is: what the library reports, and a bar on a terminal."""

import sys
import time
from typing import Protocol, runtime_checkable

_SECONDS_BETWEEN_LINES = 15.0


@runtime_checkable
class Progress(Protocol):
    """What training reports to."""

    def start(self, *, total: int, done: int) -> None:
        """Begins; `done` of `total` members were there before."""

    def log(self, text: str) -> None:
        """Takes a line of text."""

    def advance(self, members: int) -> None:
        """Counts members that are done and recorded."""

    def set_total(self, more: int, note: str) -> None:
        """Changes how many members are still to come, and why."""

    def close(self) -> None:
        """Ends."""


class Quiet:
    """Reports nothing."""

    def start(self, *, total: int, done: int) -> None:
        """Does nothing."""

    def log(self, text: str) -> None:
        """Does nothing."""

    def advance(self, members: int) -> None:
        """Does nothing."""

    def set_total(self, more: int, note: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class TerminalProgress:
    """Prints members done, members a second and the time left: a bar, or lines in a log.

    title: begins each line; for what is not the ensemble itself.
    """

    def __init__(self, title: str = '') -> None:
        self._title = f'{title}: ' if title else ''
        self._total = self._before = self._done = 0
        self._note = ''
        self._quiet = False
        self._on_terminal = sys.stderr.isatty()
        self._start = self._printed = time.monotonic()

    def start(self, *, total: int, done: int) -> None:
        """Begins; members that were there before do not count for the speed."""
        self._total, self._before, self._done = total, done, done
        self._note = ''
        self._start = self._printed = time.monotonic()
        if done:
            self.log(f'continuing: {done} of {total} members are there')

    def log(self, text: str) -> None:
        """Prints a line, and starts the clock: what came before was set-up."""
        self._print(text)
        self._start = time.monotonic()

    def advance(self, members: int) -> None:
        """Counts members that are done and recorded."""
        self._done += members
        now = time.monotonic()
        if self._on_terminal:
            self._write(f'\r{self._title}{self._line(now)}\033[K')
        elif self._done == self._total or now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            self._print(self._line(now))

    def set_total(self, more: int, note: str) -> None:
        """Changes how many members are still to come, and puts the reason behind the figures."""
        self._total, self._note = self._done + more, f'; {note}'
        now = time.monotonic()
        if not self._on_terminal and self._done > self._before:
            self._printed = now
            self._print(self._line(now))

    def close(self) -> None:
        """Leaves the line of the bar."""
        if self._on_terminal:
            self._write('\n')

    def _print(self, text: str) -> None:
        self._write(f'{self._title}{text}\n')

    def _write(self, text: str) -> None:
        """Whoever has stopped reading does not stop the training."""
        if self._quiet:
            return
        try:
            print(text, end='', file=sys.stderr, flush=True)
        except OSError:
            self._quiet = True

    def _line(self, now: float) -> str:
        rate = (self._done - self._before) / max(now - self._start, 1e-9)
        total = max(self._total, self._done)  # the total that was set may be passed
        left = round((total - self._done) / rate)
        clock = f'{left // 3600}:{left // 60 % 60:02}:{left % 60:02}'
        return f'{self._done}/{total} members, {rate:.3g} members/s, {clock} left{self._note}'
