"""Contenders in processes of their own, taking turns so that the machine's drift hits all alike."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Prepare = Callable[[], Callable[[], int]]


class Contender:
    """One or more processes that do the same work side by side, each on its own cores."""

    def __init__(self, prepare: Prepare, cores: list[set[int]]) -> None:
        context = multiprocessing.get_context('spawn')
        self._pipes, self._processes = [], []
        for own in cores:
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(prepare, own, there), daemon=True)
            process.start()
            there.close()  # so that the end of the process is noticed
            self._pipes.append(here)
            self._processes.append(process)

    def wait(self) -> None:
        """Waits until all are ready; EOFError where one has failed."""
        for pipe in self._pipes:
            pipe.recv()

    def rate(self, seconds: float) -> float:
        """Units of work a second, over about so long."""
        for pipe in self._pipes:
            pipe.send(seconds)
        return sum(pipe.recv() for pipe in self._pipes)

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.terminate()


def _serve(prepare: Prepare, cores: set[int], pipe: Any) -> None:
    os.sched_setaffinity(0, cores)
    os.environ.setdefault('OMP_NUM_THREADS', str(len(cores)))
    work = prepare()
    work()
    pipe.send('ready')
    while True:
        seconds, done = pipe.recv(), 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds or not done:
            done += work()
        pipe.send(done / elapsed)


def compete(
    contenders: Mapping[str, tuple[Prepare, list[set[int]]]],
    *,
    rounds: int,
    seconds: float,
    together: bool = False,
) -> dict[str, list[float]]:
    """Rates of every contender in every round; in a round each has its turn.

    `together`, all prepare at the same time, and one that fails to is left out, which is printed.
    """
    running = {}
    for name, (prepare, cores) in contenders.items():
        print(f'starting: {name}', flush=True)
        running[name] = Contender(prepare, cores)
        if not together:
            running[name].wait()
    if together:
        for name, contender in list(running.items()):
            try:
                contender.wait()
            except EOFError:
                print(f'left out, since it failed: {name}', flush=True)
                del running[name]
    try:
        rates: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(rounds):
            for name, contender in running.items():
                rates[name].append(contender.rate(seconds))
        return rates
    finally:
        for contender in running.values():
            contender.close()


def ratio(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """Smallest, median and largest of a / b, round by round."""
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    return ratios[0], statistics.median(ratios), ratios[-1]
