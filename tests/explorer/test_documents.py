"""Documents against the numbers of the results, and of the matrix itself."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from planted import HOSTILE, OWN, TWINS, Ensemble, M, N, decoded

from influence_jax import report
from influence_jax.analysis.verdicts import Verdict, verdicts
from influence_jax.estimators import adjusted, difference_in_means, ridge
from influence_jax.explorer import Site, encoding, open_results
from influence_jax.explorer.entries import StoredEntries
from influence_jax.explorer.site import UnknownAddress
from influence_jax.report import KeptTensors


def test_the_table_has_the_numbers_of_the_summary(document, results):
    table, run = document('0/targets.json'), document('0/run.json')
    summary = results.summary
    assert table['ids'] == [f'id-{i}' for i in range(N)]
    for quantity in run['quantities']:
        name = quantity['name']
        expected = getattr(summary, name, None)
        if expected is None:
            expected = {
                'mean_loss': results.mean_loss,
                'significant': np.bincount(summary.pairs.targets, minlength=N),
                'vulnerability': results.membership.vulnerability,
                'membership_auroc': results.membership.auroc,
            }[name]
        np.testing.assert_array_equal(decoded(table['columns'][name]), np.float32(expected))
    errors = decoded(table['columns']['self_influence_error'])
    np.testing.assert_array_equal(errors, summary.self_standard_error)
    np.testing.assert_array_equal(decoded(table['example']), np.arange(N))
    np.testing.assert_array_equal(
        decoded(table['verdict']), verdicts(summary, mean_loss=results.mean_loss)
    )
    assert [run['classes'][code] for code in decoded(table['labels'])] == ['cat', 'dog'] * (N // 2)
    assert [one['name'] for one in run['verdicts']] == [one.name.lower() for one in Verdict]
    examples = document('0/examples.json')
    np.testing.assert_array_equal(decoded(examples['target']), np.arange(N))


def test_a_target_has_its_whole_column(document, ensemble, results):
    values, errors = difference_in_means(ensemble.masks, ensemble.losses)
    (page,) = document('0/targets/7.json')
    assert page['id'] == 'id-7' and page['example'] == 7 and page['note'] is None
    assert page['self'][0] == pytest.approx(OWN, abs=0.3)
    rows = page['influencers']['positive'] + page['influencers']['negative']
    assert sorted(row[0] for row in rows) == sorted(set(range(N)) - {7})
    for example, value, error, *_ in rows:
        assert value == pytest.approx(values[example, 7], rel=1e-3, abs=1e-5)
        assert error == pytest.approx(errors[example, 7], rel=1e-2)  # three digits
    for side in page['influencers'].values():
        sizes = [abs(row[1]) for row in side]
        assert sizes == sorted(sizes, reverse=True)
    histogram, counts = page['histogram'], decoded(page['histogram']['counts'])
    edges = histogram['scale'] * np.sinh(np.linspace(histogram['low'], histogram['high'], 161))
    assert histogram['scale'] == pytest.approx(results.summary.null_standard_error[7], rel=1e-4)
    np.testing.assert_allclose(edges[[0, -1]], [values[:, 7].min(), values[:, 7].max()], rtol=1e-3)
    edges[[0, -1]] += [-1, 1]
    np.testing.assert_allclose(counts, np.histogram(values[:, 7], edges)[0], atol=1)
    assert counts.sum() == N


def test_a_target_has_the_losses_of_all_members(document, ensemble):
    (page,) = document('0/targets/7.json')
    found = decoded(page['losses']['values'])
    np.testing.assert_allclose(found, ensemble.losses[:, 7], atol=np.ptp(found) / 65535)
    np.testing.assert_array_equal(decoded(page['losses']['included'])[:M], ensemble.masks[:, 7])


def test_twins_stand_out_for_one_another(document):
    (page,) = document(f'0/targets/{TWINS[0]}.json')
    example, value, error, stands_out, low, high, fitted = page['influencers']['positive'][0]
    assert example == TWINS[1] and stands_out == 1 and value > 5 * error
    assert low < value < high and high - low > 2 * 1.96 * error  # adjusted for the selection
    assert 0 < fitted < 2 * value
    assert page['verdict'] == 'near_duplicated'
    (example_page,) = document(f'0/examples/{TWINS[0]}.json')
    assert example_page['outgoing'][0][0] == TWINS[1] and example_page['outgoing'][0][3] == 1
    assert example_page['group'] == [TWINS[1]]
    clusters = document('0/clusters.json')
    (first, *_) = clusters['clusters']
    assert sorted(first['examples']) == list(TWINS) and first['size'] == 2
    assert {tuple(edge[:2]) for edge in first['edges']} == {TWINS, TWINS[::-1]}
    assert np.abs(np.array(first['positions']) - 0.5).max() <= 0.5


def test_clusters_hold_all_that_have_the_verdict_and_whom_they_are_joined_to(document, results):
    found, summary = document('0/clusters.json'), results.summary
    near = verdicts(summary, mean_loss=results.mean_loss) == Verdict.NEAR_DUPLICATED
    members = [example for cluster in found['clusters'] for example in cluster['examples']]
    assert len(members) == len(set(members)) == found['near_duplicated'] + found['others']
    assert set(members) == set(np.flatnonzero(near)) | set(summary.strongest_other[near])
    assert found['near_duplicated'] == near.sum() and found['total'] == len(found['clusters'])


def test_pairs_are_those_that_are_significant(document, results):
    found, pairs = document('0/pairs.json'), results.summary.pairs
    assert found['total'] == len(pairs.values) >= 2 and found['tests'] == pairs.tests
    np.testing.assert_array_equal(decoded(found['examples']), pairs.examples)
    columns = {name: decoded(column) for name, column in found['columns'].items()}
    np.testing.assert_array_equal(columns['low'], np.float32(pairs.low))
    np.testing.assert_allclose(columns['log10_p'], np.log10(pairs.p_values), rtol=1e-5)


def test_any_entry_is_answered_by_itself(document, ensemble, tmp_path, results):
    values, errors = difference_in_means(ensemble.masks, ensemble.losses)
    row = document('0/entry/7/2.json')['row']
    assert row[0] == 2 and row[1] == pytest.approx(values[2, 7], rel=1e-3)
    assert row[2] == pytest.approx(errors[2, 7], rel=1e-2)
    first, second = TWINS
    assert document(f'0/entry/{first}/{second}.json')['row'][3] == 1
    with pytest.raises(UnknownAddress):
        document(f'0/entry/{N}/0.json')
    with pytest.raises(UnknownAddress):
        document(f'0/entry/0/{N}.json')


def test_an_entry_that_is_not_stored_is_null(tmp_path, results):
    kept = {'top_examples': 1, 'top_values': 1, 'top_standard_errors': 1, 'top_stands_out': 1}
    kept |= {'bottom_examples': 1, 'bottom_values': 1, 'bottom_standard_errors': 1}
    summary = results.summary
    cut = summary._replace(**{name: getattr(summary, name)[:, :n] for name, n in kept.items()})
    overview = results.overview
    dataclasses.replace(results, overview=dataclasses.replace(overview, summary=cut)).save(tmp_path)
    site = Site([open_results(tmp_path)])
    stored = [json.loads(site.get(f'0/entry/7/{i}.json'))['row'] for i in range(N)]
    assert stored[int(summary.top_examples[7, 0])] is not None
    assert None in stored


def test_rows_are_the_stored_columns_reversed(results):
    entries = StoredEntries(results.summary)
    columns = [entries.column(target) for target in range(N)]
    for example in range(N):
        row = entries.row(example)
        expected = {
            target: column.values[column.positions == example]
            for target, column in enumerate(columns)
            if example in column.positions
        }
        assert row.positions.tolist() == sorted(expected)
        assert row.values.tolist() == [float(expected[t][0]) for t in row.positions.tolist()]
    summary = results.summary
    listed = set(zip(summary.pairs.targets.tolist(), summary.pairs.examples.tolist(), strict=True))
    at, place = np.nonzero(summary.top_stands_out)
    listed |= set(zip(at.tolist(), summary.top_examples[at, place].tolist(), strict=True))
    found = {
        (target, int(example))
        for target, column in enumerate(columns)
        for example in column.positions[column.stands_out]
    }
    assert found == listed


def test_without_tensors_there_is_what_is_stored(tmp_path, results):
    results.save(tmp_path)
    site = Site([open_results(tmp_path)])
    assert not json.loads(site.get('0/run.json'))['has']['distribution']
    (page,) = json.loads(site.get('0/targets/7.json'))
    assert page['histogram'] is page['losses'] is page['note'] is None
    assert 0 < len(page['influencers']['positive']) <= 16
    assert len(page['quantiles']) == len(results.summary.quantile_levels)
    matrix = json.loads(site.get('0/matrix.json'))
    assert not matrix['whole'] and np.isnan(decoded(matrix['values'])).sum() < N * N


@pytest.mark.parametrize('members', [M, M - 8])
def test_tensors_of_other_results_are_noticed(tmp_path, results, members):
    results.save(tmp_path)
    other = Ensemble(seed=1).run
    kept = KeptTensors.of(other)
    kept._replace(mask_bits=kept.mask_bits[:members], losses=kept.losses[:members]).save(tmp_path)
    (page,) = json.loads(Site([open_results(tmp_path)]).get('0/targets/7.json'))
    assert page['histogram'] is page['losses'] is None and page['influencers']['positive']
    assert 'write the report again' in page['note']


def test_the_matrix_is_in_the_order_of_clusters(document, ensemble):
    values, _ = difference_in_means(ensemble.masks, ensemble.losses)
    matrix = document('0/matrix.json')
    examples, targets = matrix['examples'], matrix['targets']
    assert sorted(examples[:2]) == list(TWINS) and matrix['boundaries'][:2] == [0, 2]
    assert sorted(examples) == list(range(N)) and matrix['whole']
    found = decoded(matrix['values']).reshape(N, N)
    np.testing.assert_allclose(found, values[np.ix_(examples, targets)], rtol=1e-3, atol=1e-5)


def test_more_members_have_smaller_errors(document):
    found = document('0/convergence.json')
    by_size = {one['members']: one for one in found['predicted']}
    assert {M, 2 * M, 500} <= set(by_size) and found['current'] == M
    assert by_size[2 * M]['standard_error'] == pytest.approx(
        by_size[M]['standard_error'] / np.sqrt(2), rel=1e-3
    )
    assert by_size[2 * M]['reliability']['self_influence'] > 0


def test_fewer_members_list_fewer_pairs_and_only_larger_ones(document, results):
    found = document('0/convergence.json')
    by_size = {one['members']: one for one in found['predicted']}
    sizes = sorted(by_size)
    assert sizes[0] == 50 < M
    kept = [by_size[size]['still_listed'] for size in sizes]
    least = [by_size[size]['least_listed'] for size in sizes]
    assert kept == sorted(kept) and kept[-1] == found['pairs'] == len(results.summary.pairs.values)
    assert least == sorted(least, reverse=True) and least[-1] > 0


def test_images_are_in_their_places(site, ensemble, results):
    sheet = np.asarray(Image.open(io.BytesIO(site.get('0/sheets/0.png'))).convert('RGBA'))
    assert sheet.shape == (2 * 6, 16 * 6, 4)
    assert results.shown.examples.tolist() == list(range(N))
    place = sheet[6:12, 6:12]  # example 17: of 6 by 4 pixels, in the middle of a square
    np.testing.assert_array_equal(place[:, 1:5, :3], ensemble.images[17])
    assert (place[:, [0, 5], 3] == 0).all()


def test_hostile_texts_are_shortened_and_harmless(site):
    for address in ('index.json', '0/run.json', '0/targets.json', '0/examples/5.json'):
        content = site.get(address)
        assert len(content) < 2**17
        text = json.dumps(json.loads(content), ensure_ascii=False)
        assert '\\u0000' not in text and '\x00' not in text and '\u202e' not in text
    assert HOSTILE[:20] in json.loads(site.get('0/targets.json'))['names'][5]


def test_numbers_that_json_lacks_are_null():
    assert encoding.numbers([1 / 3, np.inf, np.nan, -np.inf]) == [0.33333, None, None, None]
    column = encoding.floats(np.array([np.inf, np.nan, 1]))
    np.testing.assert_array_equal(decoded(column), [np.inf, np.nan, 1])
    constant = decoded(encoding.quantized(np.full(3, 7.0)))
    assert constant.tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    'address',
    [
        '',
        'x',
        '1/run.json',
        '0/leaderboard.json',
        '0/targets/24.json',
        '0/sheets/1.png',
        '0/run/0.json',
        '0/sheets/0.json',
        '0/targets/-1.json',
        'compare.json',
        '0/../index.json',
    ],
)
def test_other_addresses_are_unknown(site, address):
    with pytest.raises(UnknownAddress):
        site.get(address)


def test_shards_hold_the_same_documents(saved, site):
    sharded = Site([open_results(saved)], shard=10)
    assert '0/targets/2.json' in set(sharded.addresses())
    found = [one for k in range(3) for one in json.loads(sharded.get(f'0/examples/{k}.json'))]
    assert found == [json.loads(site.get(f'0/examples/{i}.json'))[0] for i in range(N)]
    targets = json.loads(sharded.get('0/targets/2.json'))
    assert [one['target'] for one in targets] == [20, 21, 22, 23]


def test_targets_that_are_no_examples(tmp_path, ensemble):
    run = dataclasses.replace(
        ensemble.run,
        target_ids=tuple(f'test-{i}' for i in range(N)),
        target_examples=np.full(N, -1),
    )
    report.gather(run, estimator=difference_in_means).save(tmp_path)
    KeptTensors.of(run).save(tmp_path)
    site = Site([open_results(tmp_path)])
    assert not json.loads(site.get('0/run.json'))['has']['clusters']
    table = json.loads(site.get('0/targets.json'))
    assert table['names'] == table['ids'] and set(decoded(table['labels'])) == {-1}
    (page,) = json.loads(site.get('0/targets/7.json'))
    assert page['self'] is None and page['losses']['included'] is None
    assert page['influencers']['positive'][0][0] == 7
    json.loads(site.get('0/matrix.json'))
    (example,) = json.loads(site.get('0/examples/7.json'))
    assert example['target'] == -1 and example['outgoing'][0][0] == 7


@pytest.mark.slow
def test_whole_columns_are_those_of_estimators_that_have_single_ones(tmp_path, ensemble):
    for estimator, whole in ((adjusted, True), (ridge, False)):
        directory = tmp_path / estimator.name
        directory.mkdir()
        report.gather(ensemble.run, estimator=estimator).save(directory)
        KeptTensors.of(ensemble.run).save(directory)
        (page,) = json.loads(Site([open_results(directory)]).get('0/targets/7.json'))
        assert (page['histogram'] is not None) == whole, page['note']
        assert page['losses'] is not None
        assert whole or 'depends on all others' in page['note']


def test_an_example_tells_its_influence_on_itself(document, results):
    (found,) = document('0/examples/7.json')
    assert found['self'][0] == pytest.approx(results.summary.self_influence[7], rel=1e-3)
    assert all(target != 7 for target, *_ in found['outgoing'])


def test_losses_of_a_live_page_are_those_that_were_measured(document, ensemble):
    (page,) = document('0/targets/7.json')
    np.testing.assert_array_equal(
        decoded(page['losses']['values']), ensemble.losses[:, 7].astype(np.float32)
    )
