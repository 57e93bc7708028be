"""Examples that (nearly) always go together: equal columns of the masks, and nearly equal ones."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.ensemble import problem
from influence_jax.estimators.estimator import Tiles
from influence_jax.estimators.packed import PackedColumns, differ_early
from influence_jax.threads import in_threads
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_ALIKE = 0.9
"""Correlation of two mask columns from which on their effects cannot be separated."""

_TABLES, _BITS = 40, 16
_CHUNK = 2**18
_COLUMNS = 2**11


class Clusters(NamedTuple):
    """Examples by cluster; alone in one wherever its column is like no other.

    cluster: `[N]` of each example, numbered by the first example of each.
    first: `[C]` first example of each cluster.
    """

    cluster: Int[np.ndarray, ' N']
    first: Int[np.ndarray, ' C']

    @property
    def trivial(self) -> bool:
        """Whether every example is alone."""
        return len(self.first) == len(self.cluster)


def distinct(masks: Bool[np.ndarray, 'M N']) -> Clusters:
    """Clusters of equal columns."""
    if differ_early(masks.T):
        alone = np.arange(masks.shape[1])
        return Clusters(alone, alone)
    packed = PackedColumns.of(masks).bits
    return _in_order(np.unique(packed, axis=0, return_inverse=True)[1].ravel())


def nearly_equal(masks: Bool[np.ndarray, 'M N']) -> Clusters:
    """Clusters of columns that are equal, or correlated above 0.9 or below -0.9.

    Pairs are found by hashing (signs of random projections of the centered columns, Charikar 2002)
    and then compared: a pair of correlation 0.95 is missed once in 3,000 times, one of 0.92 once
    in a hundred.
    """
    equal = distinct(masks)
    columns = masks if equal.trivial else masks[:, equal.first]
    packed = PackedColumns.of(columns).bits
    share = columns.mean(axis=0)
    deviation = np.sqrt(share * (1 - share))
    generator = np.random.default_rng(0)
    found = []
    for key in _keys(columns, share, generator):
        for one, other in _pairs_of_equal(key):
            both = np.bitwise_count(packed[one] & packed[other]).sum(axis=1) / len(masks)
            covariance = both - share[one] * share[other]
            alike = np.abs(covariance) > _ALIKE * deviation[one] * deviation[other]
            found.append(np.stack([one[alike], other[alike]]))
    if not sum(pairs.shape[1] for pairs in found):
        return equal
    one, other = np.concatenate(found, axis=1)
    graph = scipy.sparse.coo_array((np.ones(len(one)), (one, other)), shape=(columns.shape[1],) * 2)
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return _in_order(component[equal.cluster])


def _keys(
    columns: Bool[np.ndarray, 'M C'],
    share: Float[np.ndarray, ' C'],
    generator: np.random.Generator,
) -> Iterator[Int[np.ndarray, ' C']]:
    """Yields the keys of all columns in each table: signs of random projections, centered."""
    members, count = columns.shape
    normal = [generator.normal(size=(members, _BITS)) for _ in range(_TABLES)]
    directions = np.concatenate(normal, axis=1).astype(np.float32)
    total = directions.sum(axis=0)
    signs = np.empty((count, directions.shape[1]), bool)

    def of_some(rows: slice) -> None:
        # By pieces: all columns as float32 would take four times the memory of the masks.
        projected = columns[:, rows].T.astype(np.float32) @ directions
        signs[rows] = projected > share[rows, None] * total

    in_threads(of_some, count, step=_COLUMNS)
    for first in range(0, directions.shape[1], _BITS):
        key = signs[:, first : first + _BITS] @ (1 << np.arange(_BITS))
        # A column and its complement cannot be separated either.
        yield np.minimum(key, (1 << _BITS) - 1 - key)


def _pairs_of_equal(
    key: Int[np.ndarray, ' C'],
) -> Iterator[tuple[Int[np.ndarray, ' _'], Int[np.ndarray, ' _']]]:
    """Yields, in chunks, all pairs of positions of the same key."""
    order = np.argsort(key, kind='stable')
    ordered = key[order]
    for step in range(1, len(key)):
        same = np.flatnonzero(ordered[step:] == ordered[:-step])
        if not same.size:
            return
        for start in range(0, len(same), _CHUNK):
            part = same[start : start + _CHUNK]
            yield order[part], order[part + step]


def _in_order(label: Int[np.ndarray, ' N']) -> Clusters:
    _, first, cluster = np.unique(label, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return Clusters(np.argsort(order)[cluster.ravel()], first[order])


class Regression(NamedTuple):
    """Losses, and what they are regressed on: each column of the masks once.

    masks: `[M C]` the distinct columns, of complete members.
    losses: `[M T]` of the same.
    self_index: `[T]` the column of the target's own example, -1 where it is none.
    column: `[N]` which column is that of each example.
    """

    masks: Bool[np.ndarray, 'M C']
    losses: Float[np.ndarray, 'M T']
    self_index: Int[np.ndarray, ' T']
    column: Int[np.ndarray, ' N']


def regression(
    masks: Masks, losses: Measurement, target_examples: Int[AnyArray, ' T'] | None, *, tile: int
) -> Regression:
    """Checks the arguments of a linear datamodel; examples that always go together are one column.

    Raises:
      ValueError: as in `difference_in_means`, or `tile` below 1.
    """
    of = problem(masks, losses, target_examples, tile=tile)
    column, first = distinct(of.masks)
    self_index = np.where(of.self_index >= 0, column[of.self_index], -1)
    return Regression(of.masks[:, first], of.losses, self_index, column)


def by_example(blocks: Tiles, column: Int[np.ndarray, ' N']) -> Tiles:
    """Yields the entries of every example: those of its column."""
    for targets, block in blocks:
        yield targets, Influence(block.values[column], block.standard_error[column])
