"""Clusters of near-duplicates at their edges: chains, pairs, influence in one direction, ties."""

import numpy as np
import pytest
from planted import N

from influence_jax.analysis.verdicts import Verdict, verdicts
from influence_jax.explorer import table
from influence_jax.explorer.entries import StoredEntries
from influence_jax.explorer.structure import MOST_OF_A_CLUSTER, Clusters


def joined(results, edges, *, verdict=Verdict.NEAR_DUPLICATED):
    """Clusters where each target is influenced most by the other, the first of them surest."""
    others, values = np.zeros(N, np.int32), np.zeros(N, np.float32)
    found = np.full(N, Verdict.UNIQUE, np.int32)
    for place, (target, other) in enumerate(edges):
        others[target], values[target] = other, 10 - place
        found[target] = verdict
    summary = results.summary._replace(
        strongest_other=others, other_value=values, other_standard_error=np.ones(N, np.float32)
    )
    overview = results.overview
    changed = type(results)(
        **{**vars(results), 'overview': type(overview)(**{**vars(overview), 'summary': summary})}
    )
    return Clusters(changed, found), changed


def written(clusters, results):
    entries = StoredEntries(results.summary)
    return clusters.document(entries, table.targets_of_examples(results))['clusters']


def test_a_chain_is_one_cluster_drawn_as_a_line(results):
    clusters, changed = joined(results, [(1, 2), (0, 1), (2, 3)])
    (members,) = clusters.members
    assert members.tolist() == [2, 1, 0, 3]  # in the order of how sure the edges are
    assert sorted(clusters.others(0)) == [1, 2, 3] and not clusters.others(9).size
    (cluster,) = written(clusters, changed)
    at = dict(zip(cluster['examples'], np.array(cluster['positions']), strict=True))
    apart = [np.linalg.norm(at[0] - at[other]) for other in (1, 2, 3)]
    np.testing.assert_allclose(apart, [apart[0], 2 * apart[0], 3 * apart[0]], rtol=0.05)
    assert clusters.near_duplicated == 3  # and 3, which only stands in for another


def test_two_are_a_cluster_whoever_names_the_other(results):
    for edges in ([(4, 7)], [(4, 7), (7, 4)]):
        clusters, changed = joined(results, edges)
        (cluster,) = written(clusters, changed)
        assert sorted(cluster['examples']) == [4, 7] and cluster['size'] == 2
        first, second = np.array(cluster['positions'])
        assert np.linalg.norm(first - second) == pytest.approx(1.0)
        assert clusters.near_duplicated == len(edges)


def test_separate_clusters_are_in_the_order_of_their_surest_pair(results):
    clusters, _ = joined(results, [(8, 9), (1, 0), (9, 10)])
    assert [members.tolist() for members in clusters.members] == [[9, 8, 10], [0, 1]]


def test_influence_in_one_direction_joins_nobody(results):
    clusters, changed = joined(results, [(1, 2), (0, 1)], verdict=Verdict.INFLUENCED)
    assert clusters.members == [] and clusters.near_duplicated == 0
    assert written(clusters, changed) == []


def test_a_star_of_more_than_can_be_shown_keeps_its_size(results, monkeypatch):
    monkeypatch.setattr('influence_jax.explorer.structure.MOST_OF_A_CLUSTER', 5)
    clusters, changed = joined(results, [(target, 0) for target in range(1, 12)])
    (cluster,) = written(clusters, changed)
    assert cluster['size'] == 12 and cluster['examples'] == [0, 1, 2, 3, 4]
    assert np.isfinite(cluster['positions']).all()
    assert MOST_OF_A_CLUSTER > 5


def test_without_near_duplicates_there_is_no_cluster(results):
    clusters, changed = joined(results, [])
    assert clusters.members == [] and written(clusters, changed) == []


@pytest.mark.parametrize(
    ('below', 'expected'),
    [(0, 'NEAR_DUPLICATED'), (1e-3, 'UNCERTAIN'), (1.9, 'UNCERTAIN'), (2.2, 'UNIQUE')],
)
def test_half_of_self_influence_is_enough_and_surely_less_is_not(results, below, expected):
    summary, target = results.summary, 3  # one of the twins
    own, other = summary.self_influence.copy(), summary.other_value.copy()
    own[target], other[target] = 2.0, 1.0 - below * summary.other_standard_error[target]
    found = verdicts(summary._replace(self_influence=own, other_value=other))
    assert Verdict(found[target]).name == expected


@pytest.mark.parametrize(('z', 'expected'), [(3.0, 'NEAR_DUPLICATED'), (2.99, 'INFLUENCED')])
def test_three_standard_errors_in_turn_are_enough_and_less_are_not(results, z, expected):
    summary, target, other = results.summary, 3, 4
    values, errors = summary.top_values.copy(), summary.top_standard_errors.copy()
    place = summary.top_examples[other].tolist().index(target)
    values[other, place], errors[other, place] = z, 1.0
    found = verdicts(summary._replace(top_values=values, top_standard_errors=errors))
    assert Verdict(found[target]).name == expected
