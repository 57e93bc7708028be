"""Two results side by side."""

import dataclasses
import json

import numpy as np
import pytest
from planted import TWINS, Ensemble, N, decoded

from influence_jax import report
from influence_jax.estimators import difference_in_means
from influence_jax.explorer import Site, open_results
from influence_jax.explorer.comparison import compare_document


@pytest.fixture(scope='module')
def others():
    """Results of other members, for which example 7 does nothing any more."""
    ensemble = Ensemble(seed=1)
    ensemble.losses[:, 7] = 3 + np.random.default_rng(2).normal(0, 0.2, len(ensemble.losses))
    return report.gather(ensemble.run, estimator=difference_in_means)


def test_what_moved_beyond_its_errors_is_found(results, others):
    found = compare_document(results, others)
    columns = {name: decoded(column) for name, column in found['columns'].items()}
    before, after = results.summary, others.summary
    np.testing.assert_allclose(
        columns['difference'], after.self_influence - before.self_influence, rtol=1e-6
    )
    error = np.hypot(before.self_standard_error, after.self_standard_error)
    np.testing.assert_allclose(columns['error'], error, rtol=1e-6)
    np.testing.assert_allclose(columns['z'], columns['difference'] / columns['error'], rtol=1e-5)
    np.testing.assert_array_equal(columns['margin_1'], after.margin)
    moved = np.flatnonzero(decoded(found['moved']['self_influence']))
    assert 7 in moved and found['count'] == len(moved) <= 3
    assert any('independent' in text for text in found['caveats'])


def test_the_same_results_have_not_moved(results):
    itself = compare_document(results, results)
    assert any('same members' in text for text in itself['caveats'])
    assert not itself['independent']
    found = len(results.summary.pairs.values)
    assert itself['pairs'] == {'both': found, 'first': 0, 'second': 0}
    assert itself['count'] == 0 and not decoded(itself['columns']['difference']).any()


def test_what_shares_members_is_not_tested(results, others, ensemble):
    masks = ensemble.masks
    apart = compare_document(results, others, masks=(masks, ~masks))
    assert apart['independent'] and apart['count'] > 0
    beginning = compare_document(results, others, masks=(masks, masks[:40]))
    assert not beginning['independent'] and beginning['count'] == 0
    assert any('40 subsets of the second' in text for text in beginning['caveats'])
    assert not compare_document(results, others, masks=(masks, masks))['independent']


def test_targets_are_matched_by_their_ids(results, others):
    moved = tuple(reversed(others.target_ids))
    found = compare_document(results, dataclasses.replace(others, target_ids=moved))
    first, second = (decoded(column) for column in found['target'])
    assert (second == N - 1 - first).all()
    some = dataclasses.replace(others, target_ids=('id-4', *(f'new-{i}' for i in range(N - 1))))
    found = compare_document(results, some)
    assert found['ids'] == ['id-4'] and decoded(found['target'][0]).tolist() == [TWINS[1]]
    assert any(f'{N - 1} targets are in the first alone' in text for text in found['caveats'])
    none = dataclasses.replace(others, target_ids=tuple(f'new-{i}' for i in range(N)))
    with pytest.raises(ValueError, match='--ids'):
        compare_document(results, none)


def test_a_site_of_two_compares_them(saved, planted_run):
    site = Site([open_results(saved), open_results(planted_run)])
    index = json.loads(site.get('index.json'))
    assert index['compared'] and [run['name'] for run in index['runs']] == ['saved', 'planted']
    assert json.loads(site.get('compare.json'))['count'] == 0
    assert {'0/run.json', '1/run.json', 'compare.json'} <= set(site.addresses())
