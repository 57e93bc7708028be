"""Distances between images in pixel space, and the near-duplicates that they reveal."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int, UInt8

from influence_jax.data.dataset import Dataset
from influence_jax.types import AnyArray

_NEAR = 0.06
_TILE = 512
_PAIRS_AT_ONCE = 4096


def rms_distances(a: Float[AnyArray, 'N D'], b: Float[AnyArray, 'K _']) -> Float[np.ndarray, 'N K']:
    """Computes the root-mean-square distance of every row of `a` to every row of `b`.

    Computed tile by tile in float32 as |a|^2 + |b|^2 - 2 a.b: for rows within [0, 1] the
    squares are good to about 1e-6, so two equal rows may come out 1e-3 apart.

    Raises:
      ValueError: the rows' lengths differ.
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f'rows of one length are needed, found shapes {a.shape} and {b.shape}')
    distances = np.empty((len(a), len(b)), np.float32)
    for rows, columns, tile in _tiles(a, b):
        distances[rows, columns] = tile
    return distances


def near_duplicates(dataset: Dataset, threshold: float = _NEAR) -> Int[np.ndarray, 'P 2']:
    """Finds pairs of images of one class that nearly coincide pixel by pixel.

    Args:
      dataset: of uint8 images and integer labels: the arrays `image` and `label`.
      threshold: pairs whose RMS distance, of pixels from 0 to 1, is below it are kept; above 0.

    Returns:
      Positions of the two images of each pair, the smaller first, in ascending order.

    Raises:
      ValueError: the threshold is not above 0, or the dataset has no such arrays.
    """
    if not threshold > 0:
        raise ValueError(
            f'{threshold=} must be above 0: it is the RMS distance of pixels in [0, 1]'
        )
    found = [np.empty((0, 2), np.int64)]
    images, labels = dataset.array('image'), dataset.array('label')
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        pixels = images[members].reshape(len(members), -1)
        unit = pixels.astype(np.float32) / 255
        for rows, columns, tile in _tiles(unit, unit):
            if columns.stop <= rows.start:
                continue  # Below the diagonal: the same pairs the other way round.
            # Float32 only proposes (generously); whether a pair is near is decided exactly.
            near = np.argwhere(tile < threshold + 2e-3) + np.array((rows.start, columns.start))
            near = near[near[:, 0] < near[:, 1]]
            for some in np.array_split(near, len(near) // _PAIRS_AT_ONCE + 1):
                exact = _rms(pixels[some[:, 0]], pixels[some[:, 1]])
                found.append(members[some[exact < threshold]])
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def has_near_duplicate(pairs: Int[AnyArray, 'P 2'], num_examples: int) -> Bool[np.ndarray, ' N']:
    """Marks those of the N examples that are in at least one pair.

    Raises:
      ValueError: a pair names an example that does not exist.
    """
    pairs = _checked(pairs, num_examples)
    duplicated = np.zeros(num_examples, bool)
    duplicated[pairs.ravel()] = True
    return duplicated


def one_of_each_cluster(pairs: Int[AnyArray, 'P 2'], num_examples: int) -> Int[np.ndarray, ' K']:
    """Chooses examples of which no two are joined by pairs.

    Of examples that pairs join, directly or over others, the first is kept.

    Returns:
      Positions, in ascending order; all where there are no pairs.

    Raises:
      ValueError: a pair names an example that does not exist.
    """
    return np.sort(np.unique(clusters(pairs, num_examples), return_index=True)[1])


def clusters(pairs: Int[AnyArray, 'P 2'], num_examples: int) -> Int[np.ndarray, ' N']:
    """Numbers the clusters of examples that pairs join, directly or over others.

    Raises:
      ValueError: a pair names an example that does not exist.
    """
    pairs = _checked(pairs, num_examples)
    edges = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
    graph = scipy.sparse.coo_array(edges, shape=(num_examples, num_examples))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


def without_near_duplicates(dataset: Dataset) -> Dataset:
    """Keeps one image of each cluster of near-duplicates, and notes in the provenance how many go.

    What comes before near-duplicates are injected: 'unique' would not be true of the others.
    """
    kept = one_of_each_cluster(near_duplicates(dataset), len(dataset))
    left_out = len(dataset) - len(kept)
    note = f'{left_out:,} near-duplicates of its own left out (same class, RMS < {_NEAR})'
    provenance = '; '.join(filter(None, (dataset.provenance, note if left_out else '')))
    return dataclasses.replace(dataset.take(kept), provenance=provenance)


def _checked(pairs: Int[AnyArray, 'P 2'], num_examples: int) -> Int[np.ndarray, 'P 2']:
    pairs = np.asarray(pairs)
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < num_examples:
        raise ValueError(
            f'pairs name the examples {pairs.min()} to {pairs.max()}, but there are the examples '
            f'0 to {num_examples - 1}'
        )
    return pairs


def _rms(a: UInt8[np.ndarray, 'P D'], b: UInt8[np.ndarray, 'P D']) -> Float[np.ndarray, ' P']:
    difference = a.astype(np.int64) - b
    return np.sqrt(np.mean(difference * difference, axis=1)) / 255


def _tiles(
    a: Float[np.ndarray, 'N D'], b: Float[np.ndarray, 'K D']
) -> Iterator[tuple[slice, slice, Float[np.ndarray, 'rows columns']]]:
    """Distances tile by tile; every tile has the same shape on the device, compiled once."""
    for i in range(0, len(a), _TILE):
        rows = slice(i, min(i + _TILE, len(a)))
        a_tile = _padded(a[rows])
        for j in range(0, len(b), _TILE):
            columns = slice(j, min(j + _TILE, len(b)))
            tile = np.asarray(_tile_distances(a_tile, _padded(b[columns])))
            yield rows, columns, tile[: rows.stop - i, : columns.stop - j]


def _padded(rows: Float[np.ndarray, 'n D']) -> Float[np.ndarray, 'tile D']:
    return np.pad(rows, ((0, _TILE - len(rows)), (0, 0)))


@jax.jit
def _tile_distances(a: Float[Array, 'n D'], b: Float[Array, 'm D']) -> Float[Array, 'n m']:
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sum(a * a, axis=1)[:, None], jnp.sum(b * b, axis=1)[None, :]
    squares = (norms[0] + norms[1] - 2 * products) / a.shape[1]
    return jnp.sqrt(jnp.maximum(squares, 0))
