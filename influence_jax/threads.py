"""Work in threads, one a core: numpy and C++ leave Python's lock while they compute."""

import concurrent.futures
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

import threadpoolctl

IN_CACHE = 32
"""Targets whose losses a thread works on at once: they stay in its cache."""

Item = TypeVar('Item')
Piece = TypeVar('Piece')

_of_thread = threading.local()


def in_threads(work: Callable[[slice], Piece], rows: int, *, step: int) -> list[Piece]:
    """Does the work for all rows, `step` at a time, on every core.

    Within `side_by_side` in its own thread alone: the others have work of their own.

    Returns what it returned, in the order of the rows.
    """
    pieces = [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
    if len(pieces) < 2 or getattr(_of_thread, 'is_one_of_several', False):
        return [work(piece) for piece in pieces]
    found: list[Piece | None] = [None] * len(pieces)
    failed: list[BaseException] = []
    places = itertools.count()

    def take() -> None:
        try:
            while not failed and (place := next(places)) < len(pieces):
                found[place] = work(pieces[place])
        except BaseException as error:
            failed.append(error)

    # This thread works, too; a pool of threads takes longer to make than many blocks to scan.
    others = [threading.Thread(target=take) for _ in range(min(num_cores(), len(pieces)) - 1)]
    # BLAS's own threads would wait, spinning, on the cores that these need.
    with _libraries().limit(limits=1):
        for other in others:
            other.start()
        take()
        for other in others:
            other.join()
    if failed:
        raise failed[0]
    return cast(list[Piece], found)


def side_by_side(work: Callable[[Item], Piece], items: Iterable[Item]) -> Iterator[Piece]:
    """Yields what the work makes of item after item, an item on each core at a time.

    A few items more than there are cores are begun before what became of the first is asked for.
    """

    def alone(item: Item) -> Piece:
        _of_thread.is_one_of_several = True
        return work(item)

    begun: deque[concurrent.futures.Future[Piece]] = deque()
    pool = concurrent.futures.ThreadPoolExecutor(num_cores())
    try:
        # BLAS's own threads would wait, spinning, on the cores that these need.
        with _libraries().limit(limits=1):
            for item in items:
                begun.append(pool.submit(alone, item))
                if len(begun) > num_cores():
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def num_cores() -> int:
    """How many cores this process may use: Linux tells; elsewhere it is all of them."""
    allowed = getattr(os, 'sched_getaffinity', None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()
