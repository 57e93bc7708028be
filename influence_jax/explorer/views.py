"""Documents of all targets together: clusters, matrix, convergence, membership, leaderboard."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from scipy.sparse import csgraph

from influence_jax import files
from influence_jax.analysis import duplicates
from influence_jax.explorer import encoding
from influence_jax.explorer.entries import Entries, StoredEntries
from influence_jax.report.results import Results

JOINED = 0.2
"""Score of a pair, see `analysis.duplicates.candidate_pairs`, from which on it joins a cluster."""

MOST_CLUSTERS = 400
MOST_OF_A_CLUSTER = 60
MATRIX = 512

Block = Callable[[Int[np.ndarray, ' n'], Int[np.ndarray, ' t']], Float[np.ndarray, 'n t']]
"""From examples and targets to the entries where they cross."""

_STEPS = 60
_PREDICTED = (1, 2, 5)
_LIMIT = 0.99
_MOST_BYTES = 2**22


class Clusters:
    """Near-duplicates by what they do for one another, surest first.

    members: `[C]` positions of the examples of each cluster, those of the surest pairs first.
    pairs: by which they are joined.
    """

    def __init__(self, results: Results) -> None:
        self.pairs = duplicates.CandidatePairs(np.empty((0, 2), np.int64), np.empty(0), np.empty(0))
        self.members: list[Int[np.ndarray, ' c']] = []
        self_index = results.overview.target_examples
        if (self_index < 0).all() or len(np.unique(self_index)) < len(self_index):
            return  # which the search refuses: no target, or two targets, of an example
        found = duplicates.candidate_pairs(results.summary, target_examples=self_index)
        kept = found.scores >= JOINED
        self.pairs = duplicates.CandidatePairs(*(part[kept] for part in found))
        label = duplicates.clusters(self.pairs, examples=results.num_examples, threshold=JOINED)
        # The pairs are in the order of their scores; so are the examples that they name.
        named, first = np.unique(self.pairs.examples.ravel(), return_index=True)
        ordered = named[np.argsort(first)]
        of_cluster: dict[int, list[int]] = {}
        for example, cluster in zip(ordered.tolist(), label[ordered].tolist(), strict=True):
            of_cluster.setdefault(cluster, []).append(example)
        self.members = [np.array(members) for members in of_cluster.values()]
        self._place = np.full(results.num_examples, -1)
        for place, members in enumerate(self.members):
            self._place[members] = place

    def others(self, example: int) -> Int[np.ndarray, ' g']:
        """Returns the other examples of an example's cluster."""
        if not self.members or self._place[example] < 0:
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
            'threshold': JOINED,
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
        inside = np.isin(self.pairs.examples, members).all(axis=1)
        ends = order[np.searchsorted(members[order], self.pairs.examples[inside])]
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


def convergence_document(results: Results) -> dict[str, Any] | None:
    """Returns `convergence.json`: agreement of halves, and what more members would give.

    None where nothing of it is known.
    """
    found, members = results.overview.convergence, results.summary.members_used
    if found is None or not members:
        return None
    sizes = sorted({500, *(factor * members for factor in _PREDICTED)})
    errors = results.off_diagonal_standard_error(), results.self_standard_error()
    return {
        'members': encoding.positions(found.members),
        'agreement': {
            name: encoding.numbers(getattr(found, name))
            for name in ('self_influence', 'off_diagonal', 'margin', 'significant')
        },
        'predicted': [
            {
                'members': size,
                'reliability': {
                    name: encoding.number(value)
                    for name, value in found.reliability(size)._asdict().items()
                    if name != 'members'
                },
                # Standard errors fall as one over the root of the number of members.
                'standard_error': encoding.number(errors[0] * np.sqrt(members / size)),
                'self_standard_error': encoding.number(errors[1] * np.sqrt(members / size)),
            }
            for size in sizes
        ],
        'current': members,
    }


def membership_document(results: Results) -> dict[str, Any] | None:
    """Returns `membership.json`: what attacks find; None where there are none."""
    found = results.membership
    if found is None:
        return None
    return {
        'attacks': [
            {
                'name': encoding.name(one.name),
                'title': encoding.name(one.title),
                'fpr': encoding.floats(one.false_positive_rates),
                'tpr': encoding.floats(one.true_positive_rates),
                'auc': encoding.number(one.auroc_over_members.value),
                'auc_over_members': encoding.numbers(one.auroc_over_members[1:]),
                'auc_over_records': encoding.numbers(one.auroc_over_records[1:]),
                'tpr_at': [
                    [
                        encoding.number(rate.false_positive_rate),
                        *encoding.numbers(rate.over_members),
                    ]
                    for rate in one.at
                ],
                'tpr_at_over_records': [
                    [
                        encoding.number(rate.false_positive_rate),
                        *encoding.numbers(rate.over_records),
                    ]
                    for rate in one.at
                ],
            }
            for one in found.attacks
        ],
        'false_positive_rate': encoding.number(found.false_positive_rate),
        'at_risk': int(found.at_risk.sum()),
        'notes': [encoding.prose(text) for text in found.notes],
    }


def leaderboard_file(directory: Path | None) -> Path | None:
    """Returns the table of the judge beside a run, None where it is not there."""
    if directory is None:
        return None
    for path in (directory / 'judge' / 'leaderboard.csv', directory / 'leaderboard.csv'):
        if path.is_file():
            return path
    return None


def leaderboard_document(path: Path) -> dict[str, Any]:
    """Returns `leaderboard.json`: the header and the rows of the judge's table, as texts.

    Raises:
        ValueError, OSError: the file cannot be read.
    """
    text = files.read_bytes(path, most_bytes=_MOST_BYTES).decode('utf-8', errors='replace')
    rows = [[encoding.name(cell) for cell in row] for row in csv.reader(io.StringIO(text))]
    if not rows:
        raise ValueError(f'{path} is empty: judge the run again')
    return {'header': rows[0], 'rows': rows[1:]}
