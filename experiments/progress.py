"""How far an ensemble is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from types import TracebackType
from typing import Self

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Prints members done, members a second and the time left."""

    def __init__(self, *, total: int, done: int, quiet: bool = False) -> None:
        """`done` of `total` members were there before; they do not count for the speed.

        With `quiet` nothing is printed: another process does.
        """
        self._quiet = quiet
        self._total, self._before, self._done = total, done, done
        self._note = ''
        self._on_terminal = sys.stderr.isatty() and not quiet
        self._start = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        if self._before:
            self.say(f'continuing: {self._before} of {self._total} members are there')
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._on_terminal:
            self._write('\n')

    def say(self, text: str) -> None:
        """Prints a line, and starts the clock: what came before was set-up."""
        self._print(text)
        self._start = time.monotonic()

    def advance(self, members: int) -> None:
        """Counts members that are done and recorded."""
        self._done += members
        now = time.monotonic()
        if self._on_terminal:
            self._write(f'\r{self._line(now)}\033[K')
        elif self._done == self._total or now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            self._print(self._line(now))

    def aim(self, more: int, note: str) -> None:
        """Changes how many members are still to come, and says why behind the figures."""
        self._total, self._note = self._done + more, f'; {note}'
        now = time.monotonic()
        if not self._on_terminal and self._done > self._before:
            self._printed = now
            self._print(self._line(now))

    def _print(self, text: str) -> None:
        self._write(f'{text}\n')

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
        total = max(self._total, self._done)  # what was aimed at may be passed
        left = round((total - self._done) / rate)
        clock = f'{left // 3600}:{left // 60 % 60:02}:{left % 60:02}'
        return f'{self._done}/{total} members, {rate:.3g} members/s, {clock} left{self._note}'
