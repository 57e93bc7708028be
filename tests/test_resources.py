"""What a computation costs."""

import gc
import time

import numpy as np

from influence_jax import resources
from influence_jax.resources import Cost, Stopwatch, available_bytes


def test_seconds_and_memory_of_a_block():
    gc.collect()  # what tests before left, and what is freed meanwhile would hide the block's
    resources.return_memory()
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


def test_memory_that_is_available(tmp_path, monkeypatch):
    file = tmp_path / 'meminfo'
    file.write_text('MemTotal:       24000000 kB\nMemAvailable:   17000000 kB\n')
    monkeypatch.setattr(resources, '_MEMINFO', file)
    assert available_bytes() == 17_000_000 * 1024
    file.write_text('MemTotal:       24000000 kB\n')
    assert available_bytes() is None
    monkeypatch.setattr(resources, '_MEMINFO', tmp_path / 'absent')
    assert available_bytes() is None
