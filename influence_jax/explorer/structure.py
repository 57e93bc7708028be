"""Documents of the structure of the influence matrix: clusters of near-duplicates, and a block."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from scipy.sparse import csgraph

from influence_jax.analysis.verdicts import Verdict
from influence_jax.estimators import z_scores
from influence_jax.explorer import encoding
from influence_jax.explorer.entries import Entries, StoredEntries
from influence_jax.report.results import Results

MOST_CLUSTERS = 400
MOST_OF_A_CLUSTER = 60
MATRIX = 512

Block = Callable[[Int[np.ndarray, ' n'], Int[np.ndarray, ' t']], Float[np.ndarray, 'n t']]
"""From examples and targets to the entries where they cross."""

_STEPS = 60
_LIMIT = 0.99


class Clusters:
    """Targets with near-duplicates, each joined to the example that influences it most.

    So every example whose verdict is near-duplicated is in one cluster, and no other example is but
    those that are such a strongest other.

    members: `[C]` positions of the examples of each cluster, surest pairs and clusters first.
    near_duplicated: how many of all members have the verdict themselves.
    """

    def __init__(self, results: Results, verdict: Int[np.ndarray, ' T']) -> None:
        summary, count = results.summary, results.num_examples
        own, others = results.overview.target_examples, summary.strongest_other
        targets = np.flatnonzero((verdict == Verdict.NEAR_DUPLICATED) & (own >= 0) & (others >= 0))
        z = z_scores(summary.other_value[targets], summary.other_standard_error[targets])
        targets = targets[np.argsort(-z, kind='stable')]
        self._edges = np.stack([others[targets], own[targets]], axis=1)
        self.near_duplicated = len(np.unique(own[targets]))
        graph = scipy.sparse.coo_array(
            (np.ones(len(targets)), tuple(self._edges.T)), shape=(count, count)
        )
        _, label = csgraph.connected_components(graph, directed=False)
        # The edges are in the order of how sure they are; so are the examples that they name.
        of_cluster: dict[int, list[int]] = {}
        for example in _distinct(self._edges.ravel()).tolist():
            of_cluster.setdefault(int(label[example]), []).append(example)
        self.members = [np.array(members) for members in of_cluster.values()]
        self._place = np.full(count, -1)
        for place, members in enumerate(self.members):
            self._place[members] = place

    def others(self, example: int) -> Int[np.ndarray, ' g']:
        """Returns the other examples of an example's cluster."""
        if self._place[example] < 0:
            return np.empty(0, np.int64)
        members = self.members[self._place[example]]
        return members[members != example]

    def document(self, entries: StoredEntries, target_of: Int[np.ndarray, ' N']) -> dict[str, Any]:
        """Returns `clusters.json`.

        Args:
            entries: influences of the edges.
            target_of: the target that each example is, -1 where it is none.
        """
        shown = [members[:MOST_OF_A_CLUSTER] for members in self.members[:MOST_CLUSTERS]]
        return {
            'total': len(self.members),
            'near_duplicated': self.near_duplicated,
            'others': sum(map(len, self.members)) - self.near_duplicated,
            'clusters': [
                {
                    'examples': encoding.positions(members),
                    'size': len(whole),
                    'edges': _edges(members, entries, target_of),
                    'positions': [encoding.numbers(at) for at in self._layout(members)],
                }
                for members, whole in zip(shown, self.members, strict=False)
            ],
        }

    def _layout(self, members: Int[np.ndarray, ' c']) -> Float[np.ndarray, 'c 2']:
        """Places in the unit square: distances are those of the graph (stress majorization)."""
        count = len(members)
        angle = 2 * np.pi * np.arange(count) / count
        at = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        order = np.argsort(members)
        inside = np.isin(self._edges, members).all(axis=1)
        ends = order[np.searchsorted(members[order], self._edges[inside])]
        graph = scipy.sparse.coo_array(
            (np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count)
        ).tocsr()
        distance = csgraph.shortest_path(graph, directed=False, unweighted=True)
        # Of a cluster that is cut, parts may hang together by what is not shown.
        finite = np.isfinite(distance)
        distance[~finite] = distance[finite].max(initial=1) + 1
        for _ in range(_STEPS if count > 2 else 0):
            apart = np.linalg.norm(at[:, None] - at[None], axis=-1)
            ratio = -distance / np.where(apart > 0, apart, np.inf)
            np.fill_diagonal(ratio, 0)
            np.fill_diagonal(ratio, -ratio.sum(axis=1))
            at = ratio @ at / count
        at = at - at.min(axis=0)
        return at / (at.max() or 1)


def _edges(
    members: Int[np.ndarray, ' c'], entries: StoredEntries, target_of: Int[np.ndarray, ' N']
) -> list[list[float | int | None]]:
    """Returns influences within a cluster that stand out: example, on which, value, error."""
    found = []
    for example in members.tolist():
        if target_of[example] < 0:
            continue
        column = entries.column(int(target_of[example]))
        within = np.isin(column.positions, members) & (column.positions != example)
        within &= column.stands_out
        for position, value, error, *_ in Entries(*(part[within] for part in column)).rows():
            found.append([position, example, value, error])
    return found


def matrix_document(
    results: Results,
    clusters: Clusters,
    entries: StoredEntries,
    target_of: Int[np.ndarray, ' N'],
    block: Block | None,
) -> dict[str, Any]:
    """Returns `matrix.json`: clusters first, then by self-influence; at most 512 by 512.

    Args:
        results: of all.
        clusters: of near-duplicates.
        entries: what is stored of the matrix.
        target_of: the target that each example is, -1 where it is none.
        block: estimates entries; None for those that are stored.
    """
    summary, self_index = results.summary, results.overview.target_examples
    grouped = [members[target_of[members] >= 0][:MOST_OF_A_CLUSTER] for members in clusters.members]
    ends = np.cumsum([0, *map(len, grouped)])
    strongest = np.argsort(-np.nan_to_num(summary.self_influence, nan=-np.inf), kind='stable')
    alone = self_index[strongest[self_index[strongest] >= 0]]
    if not alone.size:  # targets of their own: next to their strongest examples
        targets = strongest[:MATRIX]
        examples = _distinct(summary.strongest_other[targets])[:MATRIX]
    else:
        examples = _distinct(np.concatenate([*grouped, alone]).astype(int))[:MATRIX]
        targets = target_of[examples]
    if block is None:
        values = _stored_block(results, entries, examples, targets)
    else:
        values = block(examples, targets)
    sizes = np.abs(values[np.isfinite(values)])
    return {
        'examples': encoding.positions(examples),
        'targets': encoding.positions(targets),
        'boundaries': [int(end) for end in ends if end <= len(examples)] if alone.size else [],
        'values': encoding.floats(values),
        'limit': encoding.number(np.quantile(sizes, _LIMIT)) if sizes.size else None,
        'whole': block is not None,
    }


def _stored_block(
    results: Results,
    entries: StoredEntries,
    examples: Int[np.ndarray, ' n'],
    targets: Int[np.ndarray, ' t'],
) -> Float[np.ndarray, 'n t']:
    """Returns the stored entries of a block, NaN where none is stored."""
    values = np.full((len(examples), len(targets)), np.nan, np.float32)
    place = np.full(results.num_examples, -1)
    place[examples] = np.arange(len(examples))
    for across, target in enumerate(targets.tolist()):
        stored = entries.column(target)
        at = place[stored.positions]
        values[at[at >= 0], across] = stored.values[at >= 0]
        own = results.example_of(target)
        if own is not None and place[own] >= 0:
            values[place[own], across] = results.summary.self_influence[target]
    return values


def _distinct(positions: Int[np.ndarray, ' n']) -> Int[np.ndarray, ' m']:
    """Returns positions once each, in the order of their first appearance."""
    _, first = np.unique(positions, return_index=True)
    return positions[np.sort(first)]
