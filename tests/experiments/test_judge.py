"""The judge's launch: a leaderboard from finished runs, or from tensors, and what it refuses."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments import judge, remake, tabular
from experiments.judge import JudgeSettings
from experiments.settings import LabelSettings
from experiments.tabular import TableSettings, TabularExperiment
from influence_jax import Design, Recipe, Run, train_ensemble

pytestmark = pytest.mark.slow  # whole launches

RTE = Path(__file__).parents[3] / 'shared' / 'data' / 'rte_bert'


def trained(directory, *, table='wine', **options):
    """A run as the launch for tables makes it."""
    experiment = TabularExperiment(TableSettings(table, width=8))
    dataset, task = tabular.prepare(experiment)
    train_ensemble(
        task,
        dataset,
        output_dir=directory,
        recipe=Recipe(epochs=5, batch_size=32, learning_rate=1e-2),
        command=f'python -m experiments.tabular --dataset={table} --width=8',
        **options,
    )


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """An ensemble that keeps its parameters, one with repeats, and a small one, of one table."""
    directory = tmp_path_factory.mktemp('runs')
    trained(directory / 'ensemble', members=64, keep_params=True)
    trained(directory / 'truth', members=36, repeats=3, design=Design.BALANCED, seed=1)
    trained(directory / 'few', members=12, repeats=2, design=Design.BALANCED, seed=2)
    return directory


def rows_of(directory):
    with (directory / 'leaderboard.csv').open() as file:
        return {row['method']: row for row in csv.DictReader(file)}


def settings(runs, out, **changes):
    given = {'run': str(runs / 'ensemble'), 'held_out': str(runs / 'truth'), 'resamples': 20}
    return JudgeSettings(output_dir=str(out), **given | changes)


def test_a_leaderboard_from_directories_alone(runs, launch, tmp_path):
    done = launch(
        f'--run={runs / "ensemble"}',
        f'--held_out={runs / "truth"}',
        '--attribution=cosine,ekfac',
        '--estimator=difference,adjusted',
        '--num_models=2',
        '--resamples=20',
        '--sanity',
        '--leave_out=3',
        '--leave_out_targets=1',
        '--leave_out_repeats=2',
        f'--output_dir={tmp_path}',
        name='judge',
    )
    assert done.returncode == 0, done.stderr
    assert 'ceiling of any' in ' '.join(done.stdout.split())
    assert 'EK-FAC' in done.stdout
    rows = rows_of(tmp_path)
    assert set(rows) == {'difference', 'adjusted', 'cosine', 'ekfac'}
    for row in rows.values():
        assert float(row['lds_low']) <= float(row['lds']) <= float(row['lds_high'])
        assert float(row['seconds']) > 0
    assert rows['adjusted']['random_weights'] == ''
    assert abs(float(rows['ekfac']['random_weights'])) <= 1
    assert abs(float(rows['ekfac']['random_labels'])) <= 1
    page = (tmp_path / 'leaderboard.html').read_text()
    assert 'EK-FAC' in page
    assert 'strongest examples' in page
    assert (tmp_path / 'leaderboard.png').read_bytes().startswith(b'\x89PNG')


def test_a_run_without_others_holds_out_its_own_last_masks(runs, tmp_path):
    judge.run(settings(runs, tmp_path, held_out='', attribution='none', estimator='difference'))
    page = (tmp_path / 'leaderboard.html').read_text()
    assert 'The last 16 masks' in page
    assert 'without repeats the ceiling' in page


def test_methods_whose_needs_are_not_met_are_named(runs, tmp_path):
    judge.run(settings(runs, tmp_path, estimator='none', attribution='dot,bm25', num_models=1))
    page, found = (tmp_path / 'leaderboard.html').read_text(), rows_of(tmp_path)
    assert set(found) == {'dot'}
    assert 'left out: bm25' in page  # there are no texts
    judge.run(settings(runs, tmp_path, models=str(runs / 'truth'), estimator='difference'))
    assert set(rows_of(tmp_path)) == {'difference'}
    assert '--keep_params' in (tmp_path / 'leaderboard.html').read_text()


def test_what_it_refuses(runs, tmp_path):
    def refused(match, **changes):
        with pytest.raises(ValueError, match=match) as error:
            judge.run(settings(runs, tmp_path / 'out', **changes))
        assert '\n' not in str(error.value)
        assert not (tmp_path / 'out').exists()

    refused('--keep_params', models=str(runs / 'truth'), attribution='cosine')
    refused('at least 8', held_out=str(runs / 'few'))
    refused('no attribution method', attribution='nonsense')
    refused('--run=DIR', run='')
    refused('num_models', num_models=0)
    refused('memory', memory=0.0)
    refused('repeats', leave_out=2, leave_out_repeats=1)
    refused('178', targets='200')
    refused("'nobody'", targets='nobody,3')


def test_some_targets_and_the_scores_of_before(runs, tmp_path):
    judge.run(settings(runs, tmp_path, targets='30', attribution='cosine', estimator='none'))
    (scores,) = (tmp_path / 'scores').glob('cosine-*.npy')
    assert np.load(scores).shape == (178, 30)
    assert '30, drawn at random (seed 0)' in (tmp_path / 'leaderboard.html').read_text()
    before = rows_of(tmp_path)
    again = settings(
        runs, tmp_path, targets='30', scores=str(scores), attribution='none', estimator='none'
    )
    judge.run(again)
    assert rows_of(tmp_path) == before
    with pytest.raises(ValueError, match='other targets'):
        judge.run(dataclasses.replace(again, targets='wine-3,5'))
    assert again.methods == ()
    assert dataclasses.replace(again, targets='wine-3,5').chosen_targets == ['wine-3', 5]


def test_wrong_labels_are_planted_again(tmp_path):
    experiment = TabularExperiment(TableSettings('wine', width=8), labels=LabelSettings(0.1))
    dataset, task = tabular.prepare(experiment)
    assert dataset.mislabelled.sum() == 18
    run = train_ensemble(
        task,
        dataset,
        members=12,
        design=Design.BALANCED,
        output_dir=tmp_path,
        recipe=Recipe(epochs=1, batch_size=32),
        command='python -m experiments.tabular --dataset=wine --width=8 --wrong_labels=0.1',
    )
    found, _ = remake.dataset_and_task(run)
    np.testing.assert_array_equal(found.mislabelled, dataset.mislabelled)
    assert '18 labels were replaced' in run.shown.provenance


def test_other_examples_are_refused(runs, tmp_path):
    trained(tmp_path / 'other', table='breast_cancer', members=16, design=Design.BALANCED)
    with pytest.raises(ValueError, match='other examples'):
        judge.run(settings(runs, tmp_path / 'out', held_out=str(tmp_path / 'other')))


def test_a_run_of_other_code_cannot_be_made_again(runs, tmp_path):
    dataset, task = tabular.prepare(TabularExperiment(TableSettings('wine', width=8)))
    for command, why in (
        ('python mine.py', 'code of its own'),
        ('python -m experiments.tabular --flagfile=x', 'file of flags'),
        ('python -m experiments.tabular --dataset=wine --width=9', 'another task'),
        ('python -m experiments.tabular --dataset=breast_cancer', 'not the one'),
    ):
        run = Run.open(runs / 'ensemble')
        run.manifest = dataclasses.replace(run.manifest, command=command)
        with pytest.raises(ValueError, match=why):
            remake.dataset_and_task(run)
    found, again = remake.dataset_and_task(Run.open(runs / 'ensemble'))
    assert found.fingerprint == dataset.fingerprint
    assert again == task


def test_tensors_alone_are_cross_validated(tmp_path, capsys):
    generator = np.random.default_rng(0)
    masks = generator.random((60, 20)) < 0.5
    losses = -1.0 * masks @ generator.normal(size=(20, 9)) + 0.1 * generator.normal(size=(60, 9))
    np.save(tmp_path / 'masks.npy', masks)
    np.save(tmp_path / 'losses.npy', losses.astype(np.float32))
    files = {name: str(tmp_path / f'{name}.npy') for name in ('masks', 'losses')}
    judge.run(JudgeSettings(**files, output_dir=str(tmp_path / 'out'), resamples=20))
    rows = rows_of(tmp_path / 'out')
    assert float(rows['ridge']['lds_low']) > 0.8
    assert 'adjusted: adjusted needs 48 members' not in capsys.readouterr().out  # 48 are left
    with pytest.raises(ValueError, match='output_dir'):
        judge.run(JudgeSettings(**files))


@pytest.mark.skipif(not RTE.exists(), reason='the tensors of RTE are not here')
def test_tensors_of_somebody_else(tmp_path):
    np.save(tmp_path / 'losses.npy', -np.load(RTE / 'margins.npy'))
    judge.run(
        JudgeSettings(
            masks=str(RTE / 'masks.npy'),
            losses=str(tmp_path / 'losses.npy'),
            estimator='difference,ridge',
            output_dir=str(tmp_path / 'out'),
            resamples=100,
        )
    )
    for row in rows_of(tmp_path / 'out').values():
        assert 0 < float(row['lds']) < 0.15
        assert float(row['lds_low']) < float(row['lds']) < float(row['lds_high'])
