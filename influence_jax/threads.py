"""Work in threads, one a core: numpy and C++ leave Python's lock while they compute."""

import concurrent.futures
import contextlib
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import threadpoolctl

IN_CACHE = 32
"""Targets whose losses a thread works on at once: they stay in its cache."""

Item = TypeVar('Item')
Piece = TypeVar('Piece')

_of_thread = threading.local()


def in_threads(work: Callable[[slice], Piece], rows: int, *, step: int) -> list[Piece]:
    """Does the work for all rows, `step` at a time, on every core.

    Within such work, or that of `side_by_side`, in its own thread alone: the others have work.

    Returns what it returned, in the order of the rows.
    """
    pieces = [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
    if len(pieces) < 2 or _is_one_of_several():
        return [work(piece) for piece in pieces]
    found: list[Piece | None] = [None] * len(pieces)
    failed: list[BaseException] = []
    places = itertools.count()

    def take() -> None:
        try:
            with _one_of_several():
                while not failed and (place := next(places)) < len(pieces):
                    found[place] = work(pieces[place])
        except BaseException as error:
            failed.append(error)

    # This thread works, too; a pool of threads takes longer to make than many blocks to scan.
    others = [threading.Thread(target=take) for _ in range(min(num_cores(), len(pieces)) - 1)]
    with _blas_in_one_thread():
        for other in others:
            other.start()
        take()
        for other in others:
            other.join()
    if failed:
        raise failed[0]
    return cast(list[Piece], found)


def side_by_side(
    work: Callable[[Item], Piece], items: Iterable[Item], *, most: int | None = None
) -> Iterator[Piece]:
    """Yields what the work makes of item after item, an item on each core at a time.

    One item more is begun before what became of the first is asked for. A single item is worked on
    in the caller's thread, and may use all cores itself.

    Args:
        work: of one item.
        items: of the work.
        most: how many at a time, where there are more cores.
    """
    items = iter(items)
    first = list(itertools.islice(items, 2))
    workers = min(num_cores(), most or num_cores())
    if len(first) < 2 or workers == 1 or _is_one_of_several():
        yield from map(work, itertools.chain(first, items))
        return

    def alone(item: Item) -> Piece:
        with _one_of_several():
            return work(item)

    begun: deque[concurrent.futures.Future[Piece]] = deque()
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        with _blas_in_one_thread():
            for item in itertools.chain(first, items):
                begun.append(pool.submit(alone, item))
                if len(begun) > workers:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def num_cores() -> int:
    """How many cores this process may use: Linux tells; elsewhere it is all of them."""
    allowed = getattr(os, 'sched_getaffinity', None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _is_one_of_several() -> bool:
    return getattr(_of_thread, 'is_one_of_several', False)


@contextlib.contextmanager
def _one_of_several() -> Iterator[None]:
    """The thread is one of those that use all cores together."""
    before, _of_thread.is_one_of_several = _is_one_of_several(), True
    try:
        yield
    finally:
        _of_thread.is_one_of_several = before


class _Blas:
    """BLAS's own threads, which would wait, spinning, on the cores that ours need.

    Their number is the process's: whoever comes first lowers it, whoever leaves last restores it.
    """

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._limit: Any = None

    @contextlib.contextmanager
    def in_one_thread(self) -> Iterator[None]:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._limit = _libraries().limit(limits=1)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._limit.restore_original_limits()


_blas_in_one_thread = _Blas().in_one_thread


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()
