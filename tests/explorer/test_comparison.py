"""Two results side by side."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from planted import TWINS, Ensemble, N, decoded, write_run

from influence_jax import report
from influence_jax.estimators import difference_in_means
from influence_jax.explorer import Site, open_results
from influence_jax.explorer.comparison import compare_document
from influence_jax.explorer.entries import StoredEntries
from influence_jax.explorer.settings import differing_settings
from influence_jax.report import Results
from influence_jax.store import open_run


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
    assert any('No members in common' in text for text in found['caveats'])


def test_the_same_results_have_not_moved(results):
    itself = compare_document(results, results)
    assert any('same members' in text for text in itself['caveats'])
    assert not itself['tested']
    found, pairs = len(results.summary.pairs.values), itself['pairs']
    assert [pairs[name] for name in ('both', 'first', 'second')] == [found, 0, 0]
    assert itself['count'] == 0 and not decoded(itself['columns']['difference']).any()


def of_members(masks, losses):
    ids = tuple(f'id-{i}' for i in range(masks.shape[1]))
    return report.gather(
        report.ArrayRun(masks, losses, ids, ids),
        estimator=difference_in_means,
        membership=False,
    )


def test_a_part_of_the_same_run_differs_by_what_its_members_explain():
    rng = np.random.default_rng(3)
    masks = rng.random((300, 600)) < 0.5
    losses = (3 + rng.normal(0, 0.5, masks.shape) - masks).astype(np.float32)
    whole, part = of_members(masks, losses), of_members(masks[40:140], losses[40:140])
    found = compare_document(part, whole)
    assert decoded(found['columns']['z']).std() == pytest.approx(1, abs=0.1)
    assert found['tested'] and found['count'] == 0
    assert any('first is 100 of the 300 members of the second' in text for text in found['caveats'])
    assert found['members'] == ['100 members', '300 members']
    backwards = compare_document(whole, part)
    assert any('second is 100 of the 300' in text for text in backwards['caveats'])
    errors = [np.median(of.summary.self_standard_error) for of in (part, whole)]
    np.testing.assert_allclose(found['median_errors']['self_influence'], errors, rtol=1e-4)
    assert errors[0] / errors[1] == pytest.approx(np.sqrt(3), rel=0.1)
    entry, other = found['median_errors']['entry']
    assert entry / other == pytest.approx(np.sqrt(3), rel=0.1)


def test_members_in_common_are_known_from_what_is_kept_or_said_to_be_unknown(results, others):
    digests = results.member_digests
    old = [dataclasses.replace(one, member_digests=None) for one in (results, others)]
    unknown = compare_document(*old)
    assert unknown['tested'] and any('not kept' in text for text in unknown['caveats'])
    some = compare_document(*old, members=(digests, np.concatenate([digests[:9], 1 + digests])))
    assert some['tested'] and any('9 members are in both' in text for text in some['caveats'])
    same_subsets = compare_document(*old, members=(digests, digests + np.array([0, 1])))
    assert not same_subsets['tested'] and same_subsets['count'] == 0
    assert any('upper bound' in text for text in same_subsets['caveats'])
    assert not compare_document(old[0], old[0])['tested']


def test_members_of_an_older_report_are_those_of_its_tensors(results, saved, planted_run):
    old = dataclasses.replace(results, member_digests=None)
    for directory in (saved, planted_run):
        opened = open_results(directory)
        known = dataclasses.replace(opened, results=old).member_digests
        np.testing.assert_array_equal(known, results.member_digests)
    bare = dataclasses.replace(opened, results=old, run=None, report=saved.parent)
    assert bare.member_digests is None


def test_repeats_are_counted_by_their_masks(results):
    summary = results.summary._replace(members_used=12)
    overview = dataclasses.replace(results.overview, summary=summary)
    repeated = dataclasses.replace(results, overview=overview)
    found = compare_document(results, repeated)
    assert found['members'] == ['96 members', '12 masks, 8 members each']


def test_pairs_of_both_are_listed_with_both_values(results, others):
    found = compare_document(results, others)['pairs']
    places = [[decoded(column) for column in found[of]] for of in ('examples', 'targets')]
    values = {name: decoded(column) for name, column in found['columns'].items()}
    named = [
        {
            (e, t): (value, error)
            for e, t, value, error in zip(
                of.summary.pairs.examples,
                of.summary.pairs.targets,
                of.summary.pairs.values,
                of.summary.pairs.standard_errors,
                strict=True,
            )
        }
        for of in (results, others)
    ]
    listed = decoded(found['listed'])
    rows = list(zip(*places[0][:1], *places[1][:1], strict=True))
    assert set(rows) == named[0].keys() | named[1].keys() and len(rows) == len(set(rows))
    for k, row in enumerate(rows):
        assert listed[k] == [0, 1, 2][(row in named[0]) + 2 * (row in named[1]) - 3]
        for number in (0, 1):
            if row in named[number]:
                at = values[f'value_{number}'][k], values[f'error_{number}'][k]
                np.testing.assert_allclose(at, named[number][row], rtol=1e-6)
    size = np.fmax(np.abs(values['value_0']), np.abs(values['value_1']))
    assert (np.diff(size) <= 0).all()
    assert [found[name] for name in ('both', 'first', 'second')] == np.bincount(
        listed, minlength=3
    ).tolist()


def test_values_that_are_not_stored_are_estimated_again(saved):
    results = Results.load(saved)
    cut = {
        name: getattr(results.summary, name)[:, :2]
        for name in results.summary._fields
        if name.startswith(('top_', 'bottom_'))
    }
    overview = dataclasses.replace(results.overview, summary=results.summary._replace(**cut))
    opened = open_results(saved)
    few = dataclasses.replace(results, overview=overview)
    (run,) = Site([dataclasses.replace(opened, results=few)]).runs
    examples, targets = (of.ravel() for of in np.meshgrid(np.arange(N), np.arange(N)))
    stored = StoredEntries(few.summary).at(examples, targets)
    known = np.isfinite(stored).all(axis=0)
    assert 0 < known.sum() < N * N / 2
    values, errors = run.entries_at(examples, targets)
    expected = StoredEntries(results.summary).at(examples, targets)
    np.testing.assert_allclose(values, expected[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(errors[~known], expected[1][~known], rtol=0.2)


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


@pytest.mark.parametrize(
    ('change', 'reason'),
    [('digest', 'another digest'), ('ids', 'ids are others'), ('report alone', 'without its run')],
)
def test_nothing_is_borrowed_of_what_may_be_other_records(
    planted_run, bare, tmp_path, change, reason
):
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
    described = json.loads(site.get('1/run.json'))
    assert described['thumbnails'] is None
    assert any('not shown here' in text and reason in text for text in described['notes'])


def test_digests_of_an_earlier_version_keep_nothing_from_being_borrowed(
    planted_run, bare, tmp_path
):
    other = write_run(tmp_path / 'bare', *bare, shown=False, digest='1' * 64)
    older = json.loads((other / 'manifest.json').read_text())
    del older['checksum'], older['masks_sha256']
    (other / 'manifest.json').write_text(json.dumps(older))
    shutil.rmtree(other / 'digests.zarr')
    site = Site([open_results(planted_run), open_results(other)])
    described = json.loads(site.get('1/run.json'))
    assert described['thumbnails'], described['notes']


def test_each_setting_that_differs_is_a_line(planted_run, bare, tmp_path):
    other = write_run(tmp_path / 'bare', *bare, shown=False, digest='1' * 64)
    site = Site([open_results(planted_run), open_results(other)])
    (line,) = json.loads(site.get('compare.json'))['differences']
    assert line.startswith('dataset: planted, sha256 000') and 'sha256 111' in line
    first = open_run(other).manifest
    configuration = {'recipe': {'epochs': 12, 'decay': 0.1}, 'ensemble': {'repeats': 1}}
    changed = {'recipe': {'epochs': 24, 'decay': 0.1}, 'ensemble': {'repeats': 10}, 'new': 'x'}
    sides = [
        dataclasses.replace(first, configuration=of, seeds={'seed': k})
        for k, of in enumerate((configuration, changed))
    ]
    assert differing_settings(*sides) == [
        'recipe.epochs: 12 in the first, 24 in the second',
        'ensemble.repeats: 1 in the first, 10 in the second',
        'seed: 0 in the first, 1 in the second',
        'new: not set in the first, x in the second',
    ]
    assert differing_settings(first, first) == []
    assert 'not known' in differing_settings(None, first)[0]
    many = {f'setting {k}': k for k in range(100)}
    lines = differing_settings(first, dataclasses.replace(first, configuration=many))
    assert lines[-1] == f'and {100 - len(lines) + 1} more settings'
