"""Two results side by side."""

import dataclasses
import json

import numpy as np
import pytest
from planted import TWINS, Ensemble, N, decoded, write_run

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


@pytest.fixture
def bare(ensemble):
    """A run of the same records that keeps nothing of how they look, and its results."""
    run = dataclasses.replace(Ensemble(seed=1).run, shown=None)
    return run, report.gather(run, estimator=difference_in_means)


@pytest.mark.parametrize('order', [1, -1])
def test_examples_look_as_the_other_run_of_the_same_records_keeps_them(
    planted_run, bare, tmp_path, order
):
    other = write_run(tmp_path / 'bare', *bare, shown=False)
    opened = [open_results(directory) for directory in (planted_run, other)][::order]
    site, place = Site(opened), 1 if order == 1 else 0
    described = json.loads(site.get(f'{place}/run.json'))
    assert described['thumbnails'] and described['noun'] == 'image'
    assert any('what planted keeps' in text for text in described['notes'])
    assert site.get(f'{place}/sheets/0.png') == site.get(f'{1 - place}/sheets/0.png')
    assert json.loads(site.get(f'{place}/examples/3.json'))[0]['name'] == 'name 3'
    # Its numbers are its own.
    own = json.loads(Site([open_results(other)]).get('0/targets/3.json'))[0]
    assert json.loads(site.get(f'{place}/targets/3.json'))[0]['self'] == own['self']
    lone = json.loads(Site([open_results(other)]).get('0/run.json'))
    assert lone['thumbnails'] is None and lone['noun'] == 'example'


@pytest.mark.parametrize('change', ['digest', 'ids', 'report alone'])
def test_nothing_is_borrowed_of_what_may_be_other_records(planted_run, bare, tmp_path, change):
    run, results = bare
    if change == 'ids':
        ids = ('another', *run.example_ids[1:])
        run = dataclasses.replace(run, example_ids=ids, target_ids=ids)
        results = report.gather(run, estimator=difference_in_means)
    if change == 'report alone':
        (other := tmp_path / 'bare').mkdir()
        results.save(other)
    else:
        digest = ('1' if change == 'digest' else '0') * 64
        other = write_run(tmp_path / 'bare', run, results, shown=False, digest=digest)
    site = Site([open_results(planted_run), open_results(other)])
    assert json.loads(site.get('1/run.json'))['thumbnails'] is None
