"""Blocks of targets: as many at once as memory allows, and no matrix that cannot be held."""

import numpy as np
import pytest

from influence_jax.estimators import difference_in_means, summarize, tiling
from influence_jax.estimators.tiling import TILE, tile_for


@pytest.mark.parametrize(
    ('examples', 'tile'), [(1, TILE), (2**17, TILE), (2**18, 256), (10**6, 67), (10**9, 16)]
)
def test_fewer_targets_at_once_where_columns_are_long(examples, tile):
    assert tile_for(examples) == tile


def test_a_summary_takes_blocks_of_that_width(monkeypatch):
    monkeypatch.setattr(tiling, '_MOST_ENTRIES', 40 * 20)
    generator = np.random.default_rng(0)
    masks, losses = generator.random((12, 40)) < 0.5, generator.normal(size=(12, 50))
    widths = []

    def zeros(masks, losses, *, target_examples):
        widths.append(losses.shape[1])
        return np.zeros((masks.shape[1], losses.shape[1]), np.float32)

    summarize(masks, losses, estimator=zeros)
    assert widths == [20, 20, 10]
    widths.clear()
    summarize(masks, losses, estimator=zeros, tile=30)
    assert widths == [30, 20]


def test_a_matrix_that_cannot_be_held_is_refused_before_memory_is_taken(monkeypatch):
    """The system would grant the memory, and kill the process when it is used."""
    monkeypatch.setattr(tiling, 'available_bytes', lambda: 8 * 40 * 50 - 1)
    generator = np.random.default_rng(0)
    masks, losses = generator.random((12, 40)) < 0.5, generator.normal(size=(12, 50))
    with pytest.raises(MemoryError, match=r'16,000 bytes.*15,999 are available.*Run\.summary'):
        difference_in_means(masks, losses)
    monkeypatch.setattr(tiling, 'available_bytes', lambda: None)
    assert difference_in_means(masks, losses).values.shape == (40, 50)
