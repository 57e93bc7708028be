"""What a computation costs: seconds, and memory beyond what was there before."""

import ctypes
import os
import re
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_STATM = Path('/proc/self/statm')
_MEMINFO = Path('/proc/meminfo')
_PAGE, _INTERVAL = os.sysconf('SC_PAGE_SIZE'), 0.01


class Cost(NamedTuple):
    """What computing something took.

    seconds: of wall time.
    peak_bytes: memory beyond what was there before; None where the system does not report it.
    """

    seconds: float
    peak_bytes: int | None

    def plus(self, other: 'Cost') -> 'Cost':
        """Returns the cost of this, and then of another computation."""
        peaks = [one for one in (self.peak_bytes, other.peak_bytes) if one is not None]
        return Cost(self.seconds + other.seconds, max(peaks, default=None))


class Stopwatch:
    """Measures the cost of a `with` block, and has it in `cost` afterwards."""

    cost: Cost

    def __enter__(self) -> 'Stopwatch':
        self._before = self._most = _resident_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._start
        self._ended.set()
        self._thread.join()
        self.cost = Cost(seconds, self._most - self._before if _STATM.exists() else None)

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self._most = max(self._most, _resident_bytes())


def return_memory() -> None:
    """Returns freed memory to the system: glibc keeps much of it; elsewhere this does nothing."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None) if os.name == 'posix' else None
    if trim is not None:
        trim(0)


def available_bytes() -> int | None:
    """Memory that can be taken without swapping; None where the system does not report it.

    What is beyond it is often granted all the same, and the process killed when it is used.
    """
    try:
        found = re.search(r'^MemAvailable: *(\d+) kB$', _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 2**10 if found else None


def _resident_bytes() -> int:
    """Memory of this process; 0 where the system does not report it."""
    return int(_STATM.read_text().split()[1]) * _PAGE if _STATM.exists() else 0
