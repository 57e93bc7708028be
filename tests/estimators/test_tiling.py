"""Blocks of targets: as many at once as memory allows, and no matrix that cannot be held."""

import dataclasses

import numpy as np
import pytest

from influence_jax.estimators import columns, difference_in_means, shrunk, summarize, tiling
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


def test_blocks_of_columns_that_are_held_are_narrower(monkeypatch):
    """And say the same."""
    generator = np.random.default_rng(0)
    masks, losses = generator.random((48, 90)) < 0.5, generator.normal(size=(48, 90))
    losses -= 2 * masks
    widths, tiles = [], shrunk.tiles

    def watched(masks, losses, **more):
        widths.append(more['tile'])
        return tiles(masks, losses, **more)

    watching = dataclasses.replace(shrunk, tiles=watched)
    wide = summarize(masks, losses, estimator=watching)
    monkeypatch.setattr(columns, '_IN_REACH', 90 * 40)
    monkeypatch.setattr(columns, '_LEAST_HELD', 16)
    narrow = summarize(masks, losses, estimator=watching)
    assert widths == [TILE, 32]
    np.testing.assert_allclose(narrow.top_values, wide.top_values, rtol=1e-5)
    assert summarize(masks, losses, estimator=watching, tile=16) and widths[-1] == 16


def test_a_matrix_that_cannot_be_held_is_refused_before_memory_is_taken(monkeypatch):
    """The system would grant the memory, and kill the process when it is used."""
    monkeypatch.setattr(tiling, 'available_bytes', lambda: 8 * 40 * 50 - 1)
    generator = np.random.default_rng(0)
    masks, losses = generator.random((12, 40)) < 0.5, generator.normal(size=(12, 50))
    with pytest.raises(MemoryError, match=r'16,000 bytes.*15,999 are available.*Run\.summary'):
        difference_in_means(masks, losses)
    monkeypatch.setattr(tiling, 'available_bytes', lambda: None)
    assert difference_in_means(masks, losses).values.shape == (40, 50)
