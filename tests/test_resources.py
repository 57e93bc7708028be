"""What a computation costs."""

import time

import numpy as np

from influence_jax.resources import Cost, Stopwatch


def test_seconds_and_memory_of_a_block():
    with Stopwatch() as watch:
        held = np.ones(2**24)  # 128 MiB
        time.sleep(0.1)
    assert held.size == 2**24
    assert 0.1 <= watch.cost.seconds < 10
    if watch.cost.peak_bytes is not None:
        assert 100 * 2**20 < watch.cost.peak_bytes < 500 * 2**20


def test_costs_add_up():
    assert Cost(1.0, 3).plus(Cost(2.0, 5)) == Cost(3.0, 5)
    assert Cost(1.0, None).plus(Cost(2.0, 5)).peak_bytes == 5
    assert Cost(1.0, None).plus(Cost(2.5, None)) == (3.5, None)
