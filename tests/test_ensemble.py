"""A run from Python: trained, continued, extended, stopped, read."""

import logging
import subprocess
import sys
from typing import ClassVar

import jax
import numpy as np
import pytest
from flax import nnx

import influence_jax as ij
from influence_jax import analysis, ensemble, store, tasks
from influence_jax.data import Dataset
from influence_jax.training import Automatic, automatic, sequential
from influence_jax.training.checkpoint import Checkpointer

N = 24


def _data(count=N, **more):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, count, np.int32)
    x = rng.normal(size=(count, 4)).astype(np.float32) + np.eye(3, 4, dtype=np.float32)[labels]
    return Dataset({'x': x, 'label': labels}, **more)


def _linear(rngs):
    return nnx.Linear(4, 3, rngs=rngs)


TASK = tasks.Classification(_linear)
RECIPE = ij.Recipe(epochs=3, batch_size=4, learning_rate=0.05)
ALONE = sequential(1, in_turn=1)  # of one shape, however many members there are


def _train(directory, members=8, task=TASK, data=None, **more):
    settings = {'recipe': RECIPE, 'executor': ALONE, **more}
    return ij.train_ensemble(
        task, data or _data(), members=members, output_dir=directory, **settings
    )


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return _train(tmp_path_factory.mktemp('runs') / 'run', keep_params=True)


@pytest.fixture(scope='module')
def larger(tmp_path_factory):
    """Eight members at once, as large as a run that has grown."""
    return _train(tmp_path_factory.mktemp('runs') / 'larger', members=32)


def test_what_a_run_holds(run):
    assert run.masks.shape == (8, N)
    assert run.measurements == ('loss', 'logit_gap', 'correct')
    np.testing.assert_array_equal(run['loss'], run.measurement('loss'))
    assert np.isfinite(run['loss']).all()
    assert run.status() == (8, 8, 0, 0, run.measurements, N, N, True)
    assert run.task() is TASK
    assert run.shown.columns == tuple(f'x {i}' for i in range(4))


def test_its_influence_is_the_estimators(larger):
    found = larger.influence(estimator=ij.estimators.adjusted)
    expected = ij.estimators.adjusted(larger.masks, larger['loss'])
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.standard_error, expected.standard_error)
    plain = larger.influence()  # too few members for the adjusted one by default
    expected = ij.estimators.difference_in_means(larger.masks, larger['loss'])
    np.testing.assert_array_equal(plain.values, expected.values)
    assert analysis.self_influence(plain).shape == (N,)


def test_a_column_by_id_or_position(larger):
    whole = larger.influence()
    for target in (5, '5'):
        column = larger.column(target)
        np.testing.assert_allclose(column.values, whole.values[:, 5], rtol=1e-4, atol=1e-6)
        assert column.self_index == 5 and column.target_id == '5'
    (strongest, value, _), *_ = column.strongest(3)
    assert value == column.values.max() == column.values[int(strongest)]
    with pytest.raises(ValueError, match="no target of the id 'x'"):
        larger.column('x')
    with pytest.raises(ValueError, match='target=24 must be below the 24 targets'):
        larger.column(24)


def test_an_estimator_of_ones_own(larger):
    def mine(masks, losses, *, target_examples=None):
        return np.ones((masks.shape[1], losses.shape[1]), np.float32)

    assert (larger.influence(estimator=mine).values == 1).all()
    assert larger.summary(estimator=mine).self_influence.tolist() == [1] * N


def test_the_same_call_finds_nothing_left_to_do(run, monkeypatch):
    from influence_jax import training

    monkeypatch.setattr(training, 'train', None)
    again = _train(run.directory, keep_params=True)
    np.testing.assert_array_equal(again['loss'], run['loss'])


@pytest.mark.parametrize('design', [ij.Design.INDEPENDENT, ij.Design.EXACT_SIZE])
def test_more_members_leave_the_first_ones_as_they_are(tmp_path, design):
    first = _train(tmp_path / 'a', members=8, design=design)
    grown = _train(tmp_path / 'a', members=13, design=design)
    at_once = _train(tmp_path / 'b', members=13, design=design)
    np.testing.assert_array_equal(grown.masks, at_once.masks)
    np.testing.assert_array_equal(grown['loss'], at_once['loss'])
    np.testing.assert_array_equal(grown['loss'][:8], first['loss'])


def test_groups_enter_together_and_grow(tmp_path):
    data = _data(groups=np.arange(N) // 3)
    grouped = ij.ByGroup()
    first = _train(tmp_path, members=8, data=data, design=grouped)
    assert (first.masks[:, ::3] == first.masks[:, 2::3]).all()
    grown = _train(tmp_path, members=10, data=data, design=grouped)
    np.testing.assert_array_equal(grown.masks[:8], first.masks)
    with pytest.raises(ValueError, match='groups'):
        _train(tmp_path / 'none', design=grouped)


def test_repeats_share_their_mask_and_differ_in_seed(tmp_path):
    found = _train(tmp_path, members=24, repeats=3)
    np.testing.assert_array_equal(found.masks[::3], found.masks[2::3])
    assert len(np.unique(found['loss'][:3, 0])) == 3
    assert ij.estimators.summarize(found.masks, found['loss']).members_used == 8


def test_the_balanced_design_cannot_grow(tmp_path):
    _train(tmp_path, members=8, design=ij.Design.BALANCED)
    with pytest.raises(ValueError, match=r'balanced design.*members=8'):
        _train(tmp_path, members=12, design=ij.Design.BALANCED)


class Killed(BaseException):
    """What a kill is to the code that is killed."""


@pytest.fixture(params=['while the second members train', 'after the last are recorded'])
def killed(request, tmp_path, monkeypatch):
    """A run of 8 members that keeps those in training, killed at a moment; how it goes on."""
    directory, last = tmp_path / 'run', request.param.startswith('after')
    save, clear = Checkpointer.save, Checkpointer.clear

    def saved(self, members, *rest):
        save(self, members, *rest)
        if members[0] > 0 and not last:
            raise Killed

    def cleared(self):
        if last and store.open_run(directory).complete.size == 8:
            raise Killed
        clear(self)

    def go_on(members, checkpointing=ij.Checkpointing(1)):  # noqa: B008
        return _train(
            directory, members, checkpointing=checkpointing, executor=sequential(2, in_turn=3)
        )

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, 'save', saved)
        patch.setattr(Checkpointer, 'clear', cleared)
        with pytest.raises(Killed):
            go_on(8)
    assert list((directory / 'in_training').iterdir())
    return go_on


@pytest.mark.parametrize('members', [8, 11])
@pytest.mark.parametrize('checkpointing', [ij.Checkpointing(1), None])
def test_a_killed_run_goes_on_or_grows_and_leaves_nothing_in_training(
    killed, larger, members, checkpointing
):
    run = killed(members, checkpointing)
    np.testing.assert_allclose(run['loss'], larger['loss'][:members], rtol=1e-5, atol=1e-6)
    assert not (run.directory / 'in_training').exists()


def test_fewer_members_than_there_are(run):
    with pytest.raises(store.RunError, match='run of 8 members'):
        _train(run.directory, members=7, keep_params=True)


@pytest.mark.slow
def test_how_members_share_devices_is_on_record_and_kept_to(run, tmp_path, monkeypatch):
    assert run.manifest.executor['vmapped'] == 1
    monkeypatch.setattr(automatic, '_members_per_second', lambda short, how, *_: how.shape.vmapped)
    tuned = Automatic(devices=1, autotune=True)
    first = _train(tmp_path, members=8, executor=tuned)
    assert first.manifest.executor['vmapped'] == 4
    monkeypatch.setattr(automatic, '_members_per_second', None)  # on record by now
    for members, how in ((9, tuned), (10, Automatic(devices=1))):
        grown = _train(tmp_path, members=members, executor=how)
        assert grown.manifest.executor['vmapped'] == 4
        np.testing.assert_array_equal(grown['loss'][:8], first['loss'])


def test_training_stops_when_it_is_precise_enough(tmp_path):
    run = _train(
        tmp_path,
        members=200,
        until_standard_error=10.0,
        estimator=ij.estimators.difference_in_means,
    )
    assert 16 <= len(run.complete) < 200
    assert run.status().missing == 200 - len(run.complete)
    more = _train(
        tmp_path,
        members=220,
        until_standard_error=10.0,
        estimator=ij.estimators.difference_in_means,
    )
    assert len(more.complete) == len(run.complete)


def test_targets_of_ones_own(tmp_path):
    other = _data(30)
    targets = Dataset(
        {name: rows[20:] for name, rows in other.arrays.items()},
        ids=[*map(str, range(20, 24)), *'abcdef'],
    )
    run = _train(tmp_path, targets=targets)
    assert run['loss'].shape == (8, 10)
    assert run.target_examples.tolist() == [20, 21, 22, 23, *[-1] * 6]
    assert run.column('a').self_index is None


def test_parameters_and_the_task_of_an_opened_run(run):
    opened = ij.open_run(run.directory)
    kernel = run.params(3)['kernel'].get_value()
    assert kernel.shape == (4, 3)
    measured = (
        run.task()
        .bind(_data())
        .task.measure(
            run.params(3), {'inputs': _data().arrays['x'], 'label': _data().arrays['label']}
        )
    )
    np.testing.assert_allclose(measured['loss'], run['loss'][3], rtol=1e-4, atol=1e-5)
    plain = jax.tree.leaves(opened.params(3))
    assert sorted(leaf.shape for leaf in plain) == [(3,), (4, 3)]
    with pytest.raises(ValueError, match='remember'):
        opened.task()
    opened.remember(TASK, _data())
    assert opened.task() is TASK
    with pytest.raises(ValueError, match='not the one'):
        opened.remember(TASK, _data(30))
    with pytest.raises(ValueError, match=r'member=8 must be in 0 .. 7'):
        opened.params(8)


def test_parameters_that_were_not_kept(larger):
    with pytest.raises(FileNotFoundError, match='keep_params=True'):
        larger.params(0)
    with pytest.raises(ValueError, match=r'32 members of .* without keeping their parameters'):
        _train(larger.directory, members=32, keep_params=True)


def test_a_built_in_task_is_made_again_from_the_manifest(tmp_path):
    task = tasks.Classification(ij.models.MLPConfig(4, 3, (8,)))
    _train(tmp_path, members=8, task=task, keep_params=True)
    assert ij.open_run(tmp_path).task() == task


def test_another_configuration_is_refused(run):
    for changes in (
        {'seed': 6},
        {'recipe': ij.Recipe(epochs=4, batch_size=4, learning_rate=0.05)},
        {'task': tasks.Classification(lambda rngs: nnx.Linear(4, 5, rngs=rngs))},
        {'data': Dataset({**_data().arrays, 'x': -_data().arrays['x']})},
    ):
        with pytest.raises(store.ConfigurationMismatch):
            _train(run.directory, **{'keep_params': True, **changes})


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'inclusion_prob': 1.5}, 'inclusion_prob=1.5 must be between 0 and 1'),
        ({'inclusion_prob': 0.0}, 'inclusion_prob=0.0 must be between 0 and 1'),
        ({'repeats': 3}, 'members=8 must be a multiple of repeats=3'),
        ({'members': 4, 'inclusion_prob': 0.3}, 'balanced'),
        ({'seed': -1}, 'seed=-1 must be in 0'),
        ({'recipe': ij.Recipe(batch_size=48)}, 'batch_size=48; use a smaller batch'),
        ({'design': ij.Design.BALANCED, 'until_standard_error': 0.1}, 'cannot stop early'),
        ({'task': object()}, 'object is no task'),
        ({'members': 0}, 'members=0 must be'),
        ({'executor': sequential(9)}, 'takes 9 devices, but there are 4'),
    ],
)
def test_what_does_not_fit_leaves_nothing_behind(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        _train(tmp_path / 'run', **changes)
    assert '\n' not in str(raised.value)
    assert not (tmp_path / 'run').exists()


def test_all_members_diverge(tmp_path):
    with pytest.raises(ValueError, match=r'all 8 members .* diverged'):
        _train(tmp_path, members=8, recipe=ij.Recipe(batch_size=4, learning_rate=1e30))


def test_a_plain_task_is_given_the_arrays_as_they_are(tmp_path):
    class Mean:
        measurements = ('loss',)

        def init(self, *, key):
            return {'w': jax.numpy.zeros(4)}

        def train_loss(self, params, batch, *, key):
            return ((batch['x'] - params['w'][None]) ** 2).sum(axis=1)

        def measure(self, params, batch):
            return {'loss': ((batch['x'] - params['w'][None]) ** 2).sum(axis=1)}

    run = _train(tmp_path, task=Mean())
    assert run['loss'].shape == (8, N)


def test_xarray_and_parquet(larger, tmp_path):
    xarray = pytest.importorskip('xarray')
    found = larger.to_xarray()
    assert isinstance(found, xarray.Dataset)
    np.testing.assert_array_equal(found['mask'].values, larger.masks)
    np.testing.assert_array_equal(found['loss'].sel(target='7').values, larger['loss'][:, 7])
    np.testing.assert_array_equal(found['self_influence'].values, larger.summary().self_influence)
    pandas = pytest.importorskip('pandas')
    pytest.importorskip('pyarrow')
    targets, _pairs = larger.to_parquet(tmp_path)
    table = pandas.read_parquet(targets).set_index('target')
    assert table.loc['7', 'margin'] == pytest.approx(larger.summary().margin[7])


def test_a_notebook_shows_how_far_a_run_is_and_what_is_memorized(larger):
    text = larger._repr_html_()
    assert str(larger.directory) in text and 'loss' in text
    assert f'{len(larger.complete)} of {len(larger.masks)} members; {N} examples' in text
    assert text.count('<tr>') == 1 + 5


def test_a_run_knows_the_unit_of_what_it_measured(larger, tmp_path):
    assert (larger.unit(), larger.unit('correct')) == ('nats', 'correct')
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    task = ij.tasks.Regression(lambda rngs: nnx.Linear(3, 1, rngs=rngs))
    run = ij.train_ensemble(
        task,
        ij.Dataset({'x': x, 'label': x.sum(axis=1)}),
        members=4,
        output_dir=tmp_path / 'regression',
        design=ij.Design.BALANCED,
        recipe=ij.Recipe(epochs=1, batch_size=4),
        executor=ALONE,
    )
    for one in (run, ij.open_run(run.directory)):
        assert one.unit() == 'squared unit of the label'
        assert one.unit('absolute_error') == 'unit of the label'


class Surprise(ij.tasks.Regression):
    units: ClassVar = {'loss': 'surprises'}


def test_an_opened_run_knows_the_unit_of_a_task_of_ones_own(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    run = ij.train_ensemble(
        Surprise(lambda rngs: nnx.Linear(3, 1, rngs=rngs)),
        ij.Dataset({'x': x, 'label': x.sum(axis=1)}),
        members=4,
        output_dir=tmp_path / 'run',
        design=ij.Design.BALANCED,
        recipe=ij.Recipe(epochs=1, batch_size=4),
        executor=ALONE,
    )
    for one in (run, ij.open_run(run.directory)):
        assert one.unit() == 'surprises'
        assert one.unit('absolute_error') == 'absolute error'


def test_every_core_is_used_from_python():
    """In a process of its own, where jax has computed nothing yet."""
    code = (
        'import os, jax, influence_jax as ij; ij.use_cores(); '
        'print(jax.device_count() == len(os.sched_getaffinity(0)))'
    )
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == 'True'


def test_a_started_jax_with_one_device_is_a_warning(caplog, monkeypatch):
    monkeypatch.setattr(jax, 'device_count', lambda: 1)
    with caplog.at_level(logging.WARNING):
        ij.use_cores()
    cores = len(__import__('os').sched_getaffinity(0))
    assert ('use_cores() first' in caplog.text) == (cores > 1)


def test_importing_is_lazy():
    code = (
        'import sys, influence_jax; dir(influence_jax); '
        'print([m for m in ("jax", "orbax", "transformers", "matplotlib") if m in sys.modules])'
    )
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == '[]'


def test_subsets_of_the_callers_own_are_measured_and_nothing_is_kept():
    masks = np.ones((6, N), bool)
    masks[3:, :4] = False
    settings = {'recipe': ij.Recipe(epochs=20, batch_size=4, learning_rate=0.05), 'executor': ALONE}
    found = ensemble.measure_subsets(TASK, _data(), masks, **settings)
    assert set(found) == {'loss', 'logit_gap', 'correct'}
    loss = found['loss']
    assert loss.shape == (6, N)
    assert loss[:3, :4].mean() < loss[3:, :4].mean()
    assert (loss[0] != loss[1]).any()  # seeds differ
    again = ensemble.measure_subsets(TASK, _data(), masks, **settings)
    np.testing.assert_array_equal(again['loss'], loss)
    masks[2] = False
    with pytest.raises(ValueError, match='batch_size'):
        ensemble.measure_subsets(TASK, _data(), masks, **settings)
