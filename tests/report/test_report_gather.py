"""From a run, of any kind, to what its report shows."""

import dataclasses
import re

import language_run
import numpy as np
import pytest

from influence_jax import report, store
from influence_jax.analysis import top1_margin
from influence_jax.estimators import adjusted, difference_in_means, summarize
from influence_jax.report import Results, gathering
from influence_jax.report.facts import indistinguishable
from influence_jax.store import Shown

M, N = 64, 10


def array_run(**changes):
    """Every example lowers its own loss by 2, the first two each other's, too."""
    rng = np.random.default_rng(0)
    masks = rng.random((M, N)) < 0.5
    losses = rng.normal(3, 0.1, (M, N)) - 2 * masks
    losses[:, :2] -= masks[:, 1::-1]
    ids = tuple(f'id-{i}' for i in range(N))
    arguments = {
        'masks': masks,
        'measurements': {
            'loss': losses.astype(np.float32),
            'correct': masks.astype(np.float32),
        },
        'example_ids': ids,
        'target_ids': ids,
    }
    return report.ArrayRun(**arguments | changes)


def gather(run, *, estimator=difference_in_means, **arguments):
    """As the library's; that is slow to compile only with other estimators."""
    return report.gather(run, estimator=estimator, **arguments)


def shown(**changes):
    return Shown(names=tuple(f'name {i}' for i in range(N)), **changes)


@pytest.fixture
def kept(tmp_path):
    """A run on the disk, in which members 3 and 5 are missing and diverged."""
    run = array_run()
    losses = run.measurement('loss').copy()
    losses[5] = np.inf
    manifest = store.Manifest(
        configuration={'recipe': {'epochs': 3, 'compute_dtype': 'bfloat16'}},
        seeds={'seed': 1},
        dataset=store.DatasetIdentity('ours', 'f' * 64),
        example_ids=run.example_ids,
        target_ids=run.target_ids,
        measurements=('loss',),
        members=M,
        command='python -m ours',
    )
    with store.create_or_resume(tmp_path / 'run', manifest, run.masks) as made:
        members = np.delete(np.arange(M), 3)
        made.write(members, {'loss': losses[members]})
    return store.open_run(tmp_path / 'run')


def test_both_kinds_of_runs_have_what_a_report_needs(kept):
    assert isinstance(kept, report.ReportedRun)
    assert isinstance(array_run(), report.ReportedRun)


@pytest.mark.usefixtures('unsaved')
def test_a_run_alone_is_enough_for_its_page(kept):
    page = report.write(kept, estimator=difference_in_means)
    assert page == kept.directory / 'report' / 'index.html'
    results = Results.load(page.parent)
    assert results.title == 'Influence distributions: ours'
    assert results.missing.tolist() == [3] and results.diverged.tolist() == [5]
    left = np.delete(np.arange(M), [3, 5])
    assert results.facts['members'] == '62 of 64' and results.members == 62
    assert results.facts['command'] == 'python -m ours'
    assert results.facts['compute dtype while training'] == 'bfloat16'
    assert results.facts['examples'] == '10'
    losses = array_run().measurement('loss')
    np.testing.assert_allclose(results.mean_loss, losses[left].mean(axis=0), rtol=1e-5)
    text = page.read_text()
    assert '1 member not trained yet: 3.' in text
    assert 'diverged to a loss that is not finite: 5.' in text
    assert '<p>id-1</p>' in text


def test_what_is_large_is_printed_short():
    run = array_run()
    assert repr(run) == 'ArrayRun(64 of 64 members, 10 examples, 10 targets: loss, correct)'
    influence = difference_in_means(run.masks, run.measurement('loss'))
    assert repr(influence) == 'Influence(values and standard_error, [N T] = [10, 10])'
    summary = summarize(run.masks, run.measurement('loss'))
    middle = np.median(summary.self_influence)
    assert repr(summary).startswith('Summary(10 targets by difference of means, 64 members: ')
    assert f'median self-influence {middle:.2f}, ' in repr(summary)
    assert repr(summary).endswith(f', {len(summary.pairs.examples)} significant pairs)')


def test_a_run_without_a_directory_needs_one():
    with pytest.raises(ValueError, match='directory='):
        report.write(array_run())


def test_the_directory_is_looked_at_before_anything_is_estimated(tmp_path, monkeypatch):
    (tmp_path / 'mine').write_text('')
    monkeypatch.setattr('influence_jax.report.directory.gather', None)
    with pytest.raises(FileExistsError, match='mine'):
        report.write(array_run(), directory=tmp_path)


def test_arguments_that_gather_does_not_take_are_refused(tmp_path):
    with pytest.raises(TypeError, match='estimtor'):
        report.write(array_run(), directory=tmp_path / 'report', estimtor=difference_in_means)
    assert not list(tmp_path.iterdir())


def test_members_that_share_a_subset_are_counted_beside_the_subsets():
    rng = np.random.default_rng(0)
    masks = np.repeat(rng.random((32, 40)) < 0.5, 2, axis=0)
    losses = rng.normal(size=(64, 40)).astype(np.float32) - masks
    results = gather(report.ArrayRun(masks, losses))
    assert results.facts['members'] == '64 of 64 on 32 subsets'
    assert results.members_used == (64, 'members on 32 subsets')


def test_influences_are_those_of_the_estimator():
    run = array_run()
    results = gather(run, unit='points')
    expected = difference_in_means(run.masks, run.measurement('loss'))
    np.testing.assert_allclose(results.summary.self_influence, np.diag(expected.values), rtol=1e-4)
    assert results.method.title == 'difference of means'
    assert results.unit == 'points'
    adjusted = gather(run, estimator=None)
    assert adjusted.method.title == 'adjusted difference of means'


def test_with_few_members_the_difference_of_means_is_used_and_the_reader_knows():
    run = array_run()
    few = dataclasses.replace(
        run,
        masks=run.masks[:30],
        measurements={'loss': run.measurement('loss')[:30]},
    )
    results = gather(few, estimator=None)
    assert results.method.title == 'difference of means'
    assert 'at least 48 usable members are needed, and there are 30' in results.notes[-1]
    assert not gather(few).notes


def test_how_well_members_know_what_they_trained_on():
    facts = gather(array_run()).facts
    assert facts['accuracy on own subset'] == '100.0%'
    assert facts['accuracy on examples left out'] == '0.0%'
    foreign = array_run(target_examples=np.full(N, -1))
    found = gather(foreign).facts
    assert 'accuracy on own subset' not in found
    assert found['targets that are examples'] == '0 of 10'


def test_targets_are_the_examples_of_their_ids():
    run = array_run()
    some = [7, 2, 4]
    losses = run.measurement('loss')[:, some]
    by_id = dataclasses.replace(
        run, target_ids=tuple(run.example_ids[i] for i in some), measurements={'loss': losses}
    )
    assert gather(by_id).overview.target_examples.tolist() == some
    mere = dataclasses.replace(by_id, target_ids=('0', '1', '2'))
    assert gather(mere).overview.target_examples.tolist() == [-1] * 3


def test_groups_make_the_comparison_and_the_truth():
    groups = np.array([5, 5, *range(10, 18)], np.int32)
    changes = ('', 'flip', *[''] * 8)
    results = gather(array_run(), shown=shown(groups=groups, changes=changes))
    assert results.near_duplicates.tolist() == [True] * 2 + [False] * 8
    assert results.facts['targets with a near-duplicate'].startswith('2 (injected')
    assert results.comparison.near_duplicated.sum() == 2
    assert results.full_name(1) == 'flip: name 1'
    assert results.text is None
    alone = gather(array_run(), shown=shown(groups=np.arange(N, dtype=np.int32)))
    assert alone.comparison is None


def test_a_target_that_is_no_example_is_in_no_group():
    groups = np.array([5, 5, *range(10, 18)], np.int32)
    own = np.array([0, 1, -1, -1, *range(4, N)])
    results = gather(array_run(target_examples=own), shown=shown(groups=groups))
    assert results.near_duplicates.tolist() == [True] * 2 + [False] * 8
    assert results.comparison.near_duplicated.sum() == 2


def test_near_duplicates_of_images_are_found_by_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (N, 6, 6, 3), np.uint8)
    images[4] = images[8]
    labels = ('even', 'odd') * (N // 2)
    results = gather(array_run(), shown=shown(images=images, labels=labels))
    assert np.flatnonzero(results.near_duplicates).tolist() == [4, 8]
    assert results.facts['images'] == '10 in 2 classes'
    np.testing.assert_array_equal(results.shown.images, images[results.shown.examples])
    given = np.arange(N) == 3
    told = gather(array_run(), near_duplicates=given)
    assert told.facts['targets with a near-duplicate'] == '1 (as given)'


def test_texts_are_their_own_names():
    texts = tuple(f'record {i} ' + 'word ' * 30 for i in range(N))
    results = gather(array_run(), shown=Shown(names=array_run().example_ids, texts=texts))
    assert results.example_names[3].startswith('record 3 word')
    assert len(results.example_names[3]) == 60
    assert results.facts['records'] == '10'


def test_what_is_shown_is_kept_with_the_run_or_given():
    run = array_run(shown=shown(notes=('kept',)))
    assert gather(run).example_names[2] == 'name 2'
    given = Shown(names=tuple('abcdefghij'), notes=('given',))
    results = gather(run, shown=given)
    assert results.example_names[2] == 'c' and results.notes == ('given',)


def test_every_example_on_the_page_is_kept():
    rows = tuple((str(i),) for i in range(N))
    results = gather(array_run(), shown=shown(columns=('number',), rows=rows))
    assert results.shown.rows == tuple((str(i),) for i in results.shown.examples)
    page = report.render(results)['index.html'].decode()
    assert '<p>name' not in page
    assert len(re.findall('<dt>number</dt>', page)) > N


def test_members_that_were_not_needed_are_not_missing(kept):
    results = gather(_Noted(kept, {'precision': {'text': '0.1 nats', 'enough': True}}))
    assert results.facts['members'] == '62 of at most 64'
    assert results.facts['standard error off the diagonal'] == '0.1 nats'
    assert '1 of at most 64 members were not needed' in results.stopped_early


class _Noted:
    """A run with other notes."""

    def __init__(self, run, notes):
        self._run, self.notes = run, notes

    def __getattr__(self, name):
        return getattr(self._run, name)


def test_extraction_needs_prompts_and_what_was_decoded(language):
    assert language.text.decoded[0] == language.text.completions[0]
    run = language_run.run()
    assert gather(run).text is None
    unknown = dataclasses.replace(run.shown, prompts=None)
    decoded = language.text.decoded
    assert gather(run, shown=unknown, decoded=decoded).text is None


@pytest.mark.slow
def test_without_a_reference_there_are_no_published_numbers(language):
    results = language_run.results(reference=None)
    page = report.render(results)['index.html'].decode()
    assert results.text is not None
    for theirs in ('GPT-Neo', 'the paper</th>', '0.495 ± 0.133'):
        assert theirs not in page


@pytest.mark.slow
def test_the_margin_of_published_numbers_is_beside_that_of_another_estimator(language):
    run = language_run.run()
    name = 'margin, by difference of means'
    results = gather(
        run,
        estimator=adjusted,
        decoded=language.text.decoded,
        reference=language_run.REFERENCE,
    )
    (score,) = [score for score in results.comparison.scores if score.name == name]
    plain = top1_margin(difference_in_means(run.masks, run.measurement('loss')))
    unique = plain[~results.comparison.near_duplicated]
    assert score.unique.median == pytest.approx(float(np.median(unique)), rel=1e-4)
    assert results.reference.rows[name] == results.reference.rows['margin']
    assert name not in [score.name for score in language.comparison.scores]  # its own already


def test_members_without_another_measurement_count():
    run = array_run()
    other = run.measurement().copy()
    other[:5] = np.inf
    both = dataclasses.replace(run, measurements={'loss': run.measurement(), 'other': other})
    found, expected = gather(both), gather(run)
    np.testing.assert_array_equal(found.mean_loss, expected.mean_loss)
    assert found.facts['members'] == expected.facts['members']


def test_an_audit_never_costs_a_report(monkeypatch):
    def fails(*_, **__):
        raise ValueError('no such luck')

    monkeypatch.setattr(gathering, 'audited', fails)
    found = gather(array_run())
    assert found.membership is None
    assert any('no such luck' in note for note in found.notes)
    assert not any('no such luck' in note for note in gather(array_run(), membership=False).notes)


def test_what_takes_long_is_announced():
    said = []
    gather(array_run(), log=said.append)
    assert len(said) == 2
    assert '10 targets' in said[0] and f'{M} members' in said[1]
    gather(array_run(), log=said.append, membership=False)
    assert len(said) == 3


def test_examples_in_the_same_members_are_said_to_be_indistinguishable():
    rng = np.random.default_rng(0)
    masks = rng.random((40, 6)) < 0.5
    assert indistinguishable(masks) == ()
    masks[:, 4] = masks[:, 1]
    masks[:, 5] = ~masks[:, 2]
    (sentence,) = indistinguishable(masks)
    assert sentence.startswith('4 of 6 examples')
