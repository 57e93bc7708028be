"""Launches from outside: what they print, leave behind and refuse."""

import dataclasses
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags as absl_flags

from experiments import flags
from experiments import launch as launching
from experiments.settings import (
    DataSettings,
    EnsembleSettings,
    MachineSettings,
    NetworkSettings,
    PlantingSettings,
)
from influence_jax import data, open_run, store, training
from influence_jax.data.near_duplicates import ImageChange
from influence_jax.subsets import Design
from influence_jax.training import Recipe, automatic, checkpoint


@pytest.fixture(autouse=True)
def without_flags(monkeypatch):
    """For launches in this process, which parse none."""
    monkeypatch.setattr(launching, '_COMPILATION_CACHE', types.SimpleNamespace(value=True))
    monkeypatch.setattr(launching, '_KERNELS', types.SimpleNamespace(value=True))


def test_a_small_run(finished, images):
    process, directory = finished
    assert process.returncode == 0, process.stderr
    assert 'error' not in process.stderr
    assert '64/64 members' in process.stderr
    assert 'members: 64 of 64' in process.stdout
    assert f'report: {directory}/report/index.html' in process.stdout
    assert (directory / 'report' / 'index.html').stat().st_size > 10_000
    assert (directory / 'report' / 'targets.csv').exists()
    run = open_run(directory)
    assert len(run.complete) == 64
    assert run.masks.shape == (64, 48)
    assert run.measurement('loss').shape == (64, 48)
    assert run.example_ids[7] == 'tiny-00007'
    assert run.manifest.task['network']['width'] == 8
    assert run.manifest.configuration['recipe']['epochs'] == 15
    assert run.manifest.dataset.fingerprint == data.load(str(images)).fingerprint
    assert 'near-duplicated' not in process.stdout
    assert 'Unique and near-duplicated' not in (directory / 'report' / 'index.html').read_text()


def test_the_same_command_again_trains_nothing(finished, launch, small):
    first, directory = finished
    files = sorted(path for path in directory.rglob('*') if path.name != 'lock')
    before = [path.stat().st_mtime_ns for path in files]
    again = launch(*small, f'--output_dir={directory}')
    assert again.returncode == 0, again.stderr
    assert 'members/s' not in again.stderr
    assert 'nothing has changed' in again.stderr
    assert again.stdout == first.stdout
    assert sorted(path for path in directory.rglob('*') if path.name != 'lock') == files
    assert [path.stat().st_mtime_ns for path in files] == before
    assert len(list(directory.rglob('*.zarr/*'))) > 3 * 64


@pytest.mark.parametrize('change', ['page', pytest.param('estimator', marks=pytest.mark.slow)])
def test_a_report_that_would_be_another_is_made_again(finished, launch, small, change):
    _, directory = finished
    page = directory / 'report' / 'index.html'
    expected = page.read_bytes()
    more = ['--estimator=difference'] if change == 'estimator' else []
    if change == 'page':
        page.write_bytes(expected[:-1])
    again = launch(*small, f'--output_dir={directory}', *more)
    assert again.returncode == 0, again.stderr
    assert 'nothing has changed' not in again.stderr
    assert (page.read_bytes() == expected) == (change == 'page')
    if more:
        assert launch(*small, f'--output_dir={directory}').returncode == 0
    assert page.read_bytes() == expected


@pytest.mark.slow
def test_compiled_programs_are_kept_unless_they_cannot_or_should_not(small, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
    flags = [
        *small,
        '--members=4',
        '--design=balanced',
        '--epochs=1',
        f'--output_dir={tmp_path}/run',
    ]
    (tmp_path / 'file').touch()

    def launched(cache, *more):
        """Everything there is afterwards in the user's cache directory, and what is printed."""
        done = subprocess.run(
            [sys.executable, '-m', 'experiments.image_resnet', *flags, *more],
            capture_output=True,
            text=True,
            env=environment | {'XDG_CACHE_HOME': str(tmp_path / cache)},
            cwd=Path(launching.__file__).parents[1],
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return [path.name for path in (tmp_path / cache).rglob('*-cache')], done.stderr

    kept, _ = launched('cache')
    assert any(name.startswith('jit_advance') for name in kept)
    kept, printed = launched('other', '--nocompilation_cache')
    assert not kept
    assert 'programs are compiled' not in printed
    _, printed = launched('file')
    anew = 'programs are compiled anew'  # kernels may be, too
    assert len([line for line in printed.splitlines() if anew in line]) == 1


def test_another_configuration_in_the_same_directory(finished, launch, small, assert_refused):
    _, directory = finished
    before = {path: path.stat().st_mtime_ns for path in directory.rglob('*')}
    run = open_run(directory)
    chosen = Recipe.of_manifest(run.manifest.configuration['recipe']).compute_dtype
    (forced,) = set(training.ComputeDtype) - {chosen}
    flags = '--learning_rate=0.25', '--seed=4', f'--compute_dtype={forced}'
    other = launch(*small, f'--output_dir={directory}', *flags)
    texts = '-> 0.25', 'seeds.seed: 0 -> 4', 'recipe.compute_dtype: '
    assert_refused(other, 'another configuration', *texts)
    after = {path: path.stat().st_mtime_ns for path in directory.rglob('*')}
    del before[directory / 'lock'], after[directory / 'lock']
    assert after == before


def test_help_reads_well(launch):
    text = launch('--help').stdout
    assert 'python -m experiments.image_resnet' in text
    for settings in (
        DataSettings,
        EnsembleSettings,
        NetworkSettings,
        Recipe,
        MachineSettings,
        PlantingSettings,
    ):
        for field in settings.__dataclass_fields__:
            assert f'--{field}: ' in text or f'--[no]{field}: ' in text
    for name in ('traceback', 'compilation_cache', 'kernels'):
        assert f'--[no]{name}: ' in text
    assert 'number M of models to train' in text
    assert '<independent|exact_size|balanced>' in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ('flags', 'texts'),
    [
        (['--member=9'], ["flag 'member'", '--help']),
        (['--dataset=mnist'], ["unknown dataset 'mnist'", 'choose clipart, cifar10']),
        (['--keep=1.5'], ['--keep=1.5 must be between 0 and 1']),
        (['--copies=3'], ['--copies is of near-duplicates', 'add --duplicated']),
        (['--members=3'], ['3 members are too few', 'at least 4']),
    ],
    ids=str,
)
def test_bad_input_from_the_command_line(launch, small, tmp_path, assert_refused, flags, texts):
    directory = tmp_path / 'run'
    assert_refused(launch(*small, f'--output_dir={directory}', *flags), *texts)
    assert not directory.exists()


def test_cifar10_that_is_not_there(launch, tmp_path, assert_refused):
    empty, directory = tmp_path / 'empty', tmp_path / 'run'
    empty.mkdir()
    refused = launch(
        f'--data_dir={empty}', f'--output_dir={directory}', '--duplicated=5', name='cifar10_resnet'
    )
    assert_refused(refused, str(empty))
    assert not directory.exists()


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'dataset': 'nowhere/else.npz'}, 'no such file'),
        ({'data_dir': 'somewhere'}, 'takes no data_dir'),
        ({'num_examples': 49}, '--num_examples=49.*only 48'),
        ({'num_examples': -1}, 'num_examples must be 0'),
        ({'batch_size': 40}, 'smallest subset holds .* fewer than batch_size=40'),
        ({'batch_size': 0}, 'batch_size must be positive'),
        ({'members': 0}, 'members=0 must be at least 1'),
        ({'members': 23, 'design': Design.BALANCED}, 'whole number'),
        ({'keep': 0.0}, 'inclusion_prob=.* between 0 and 1'),
        ({'keep': float('nan')}, 'inclusion_prob=.* between 0 and 1'),
        ({'seed': 2**32}, 'seed must lie in'),
        ({'width': 12}, 'multiple of 8'),
        ({'stages': 0}, 'at least 1'),
        ({'patch': -1}, 'at least 1'),
        ({'epochs': -1.0}, 'epochs must be positive'),
        ({'learning_rate': float('nan')}, 'learning_rate must be positive'),
        ({'vmap': -1}, 'vmap must be 0'),
        ({'streams': -1}, 'streams must be 0'),
        ({'duplicated': -1}, 'duplicated must be 0'),
        ({'duplicated': 1, 'unique': -1}, 'unique must be 0'),
        ({'duplicated': 1, 'copies': 1}, 'copies must be at least 2'),
        ({'unique': 9}, '--unique is of near-duplicates, but none are planted'),
        ({'duplication': ImageChange.FLIP}, '--duplication is of near-duplicates'),
        ({'duplicated': 1, 'duplication': ImageChange.FLIP}, 'only 4 .* not --copies=5'),
        ({'duplicated': 49}, 'take 49 different examples, but there are only 48'),
        ({'duplicated': 9, 'unique': 40}, 'unique=40 and duplicated=9 take 49'),
    ],
    ids=str,
)
def test_bad_input_leaves_nothing_behind(run_here, wrong, message):
    run, directory = run_here
    with pytest.raises((ValueError, OSError), match=message):
        run(**wrong)
    assert not directory.exists()


def test_what_was_changed_of_images_is_printed(run_here, images, tmp_path, capsys):
    with np.load(images) as arrays:
        first, labels = arrays['images'].transpose(0, 3, 1, 2), arrays['labels'][:, None]
    np.savez(tmp_path / 'first.npz', X=first, y=labels)
    run, _ = run_here
    with pytest.raises(ValueError, match='batch_size=40'):
        run(dataset=str(tmp_path / 'first.npz'), batch_size=40)
    printed = capsys.readouterr().err
    for note in ("'X' taken as the images", '[48 3 8 8] taken as channels first', '[48 1]'):
        assert note in printed


@pytest.mark.parametrize(
    ('message', 'shown'),
    [
        ('inclusion_prob=1.5 must be', '--keep=1.5 must be'),
        ('a larger inclusion_prob', 'a larger --keep'),
        ('members=3 is less than 4 members', '--members=3 is less than 4 members'),
        ('set keep_params=True', 'set --keep_params=True'),
        ('/tmp/output_dir/x: members', '/tmp/output_dir/x: members'),
        ('--batch_size=4', '--batch_size=4'),
    ],
)
def test_arguments_of_the_library_are_called_by_their_flags(monkeypatch, message, shown):
    names = '?', 'members', 'keep', 'keep_params', 'output_dir', 'batch_size'
    monkeypatch.setattr(launching, 'flags', types.SimpleNamespace(FLAGS=dict.fromkeys(names)))
    assert launching._message(ValueError(message)) == shown


def test_the_members_of_a_run_that_grows_are_max_members(monkeypatch):
    known = {
        'members': None,
        'max_members': None,
        'until_standard_error': types.SimpleNamespace(value=0.1),
    }
    monkeypatch.setattr(launching, 'flags', types.SimpleNamespace(FLAGS=known))
    message = launching._message(ValueError('members=3 are too few'))
    assert message == '--max_members=3 are too few'


def test_a_directory_that_is_no_run_is_left_alone(run_here):
    run, directory = run_here
    directory.mkdir()
    (directory / 'thesis.txt').write_text('all of it')
    with pytest.raises(store.NotARun, match='not empty and not a run'):
        run()
    assert [path.name for path in directory.iterdir()] == ['thesis.txt']


def test_what_can_be_mended_is_said_in_one_line(monkeypatch):
    """Messages of several lines, too; what cannot is a bug and keeps its traceback."""

    def run_app(main, flags_parser):
        main(['launch'])

    def fail(error):
        def main():
            raise error

        return main

    monkeypatch.setattr(launching.app, 'run', run_app)
    monkeypatch.setattr(launching, '_TRACEBACK', type('Flag', (), {'value': False}))
    for error in (ValueError('two\nlines'), OSError('two  lines'), store.RunError('two\nlines')):
        with pytest.raises(SystemExit) as stopped:
            launching.run(fail(error))
        assert stopped.value.code == 'error: two lines'
    with pytest.raises(SystemExit, match='the same command continues the run'):
        launching.run(fail(KeyboardInterrupt()))
    with pytest.raises(ZeroDivisionError):
        launching.run(fail(ZeroDivisionError()))
    monkeypatch.setattr(launching._TRACEBACK, 'value', True)
    with pytest.raises(ValueError, match='two'):
        launching.run(fail(ValueError('two\nlines')))


@pytest.mark.slow
def test_a_continued_run_keeps_to_the_measured_way(run_here, monkeypatch):
    run, directory = run_here
    timed, used = [], []

    def measured(program, how, *_):
        timed.append(how.shape.vmapped)
        return how.shape.vmapped if how.shape.vmapped <= 4 else 0.0

    monkeypatch.setattr(automatic, '_members_per_second', measured)
    train = training.train

    def stopped_early(*arguments, executor, **rest):
        used.append(executor.shape.vmapped)
        chunks = train(*arguments, executor=executor, **rest)
        yield next(chunks)
        if len(used) == 1:
            raise OSError('stopped')
        yield from chunks

    monkeypatch.setattr(training, 'train', stopped_early)
    with pytest.raises(OSError, match='stopped'):
        run(vmap=0, autotune=True)
    run(vmap=0, autotune=True)
    assert timed == [1, 4, 16] and used == [4, 4]
    assert len(store.open_run(directory).complete) == 24


@pytest.mark.slow
def test_kept_parameters_give_what_was_measured(run_here, images):
    run, directory = run_here
    run(keep_params=True)
    recorded = open_run(directory)
    np.testing.assert_array_equal(checkpoint.kept_members(directory / 'params'), np.arange(24))
    dataset = data.load(str(images))
    task = recorded.task()
    assert task == NetworkSettings(width=8, stages=1).task(dataset)
    recorded.remember(task, dataset)
    problem = task.bind(dataset)
    measured = problem.task.measure(recorded.params(5), problem.targets)
    np.testing.assert_allclose(measured['loss'], recorded.measurement('loss')[5], atol=1e-4)


@pytest.mark.slow
def test_parameters_cannot_be_kept_of_members_trained_before(run_here):
    run, _ = run_here
    run()
    with pytest.raises(ValueError, match=r'24 members of .* were trained without keeping'):
        run(keep_params=True)


@pytest.mark.parametrize(
    ('flag', 'mend'),
    [
        ('mesh', 'a smaller --vmap, or with each member spread'),
        ('vmap', 'a smaller --vmap'),
        ('output_dir', 'a device that has more'),
    ],
)
def test_out_of_device_memory_is_said_in_one_line(monkeypatch, flag, mend):
    def exhausted():
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

    monkeypatch.setattr(launching.app, 'run', lambda guarded, **_: guarded(['launch']))
    monkeypatch.setattr(launching, '_TRACEBACK', types.SimpleNamespace(value=False))
    monkeypatch.setattr(launching, 'flags', types.SimpleNamespace(FLAGS={flag}))
    with pytest.raises(SystemExit, match=f'out of device memory; continue with {mend}'):
        launching.run(exhausted)


def test_a_process_that_has_lost_the_others_says_so_and_waits_for_nobody(monkeypatch, capsys):
    def lost():
        raise jax.errors.JaxRuntimeError('UNKNOWN: Gloo AllGather failed\nmore of it')

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(launching.app, 'run', lambda guarded, **_: guarded(['launch']))
    monkeypatch.setattr(launching, '_TRACEBACK', types.SimpleNamespace(value=False))
    with pytest.raises(jax.errors.JaxRuntimeError):  # alone, it is another error
        launching.run(lost)
    monkeypatch.setattr(jax.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(launching.os, '_exit', leave)
    with pytest.raises(SystemExit, match='1'):
        launching.run(lost)
    assert capsys.readouterr().err == (
        'error: the processes of this run have lost each other (UNKNOWN: Gloo AllGather failed); '
        'the same commands continue it\n'
    )


@pytest.fixture
def launched(monkeypatch):
    """Runs a main function as a launch does, without its flags."""
    monkeypatch.setattr(launching.app, 'run', lambda guarded, **_: guarded(['launch']))
    monkeypatch.setattr(launching, '_TRACEBACK', types.SimpleNamespace(value=False))
    monkeypatch.setattr(launching.sys, 'excepthook', launching.sys.excepthook)

    def run(error):
        def main():
            raise error

        launching.run(main)

    return run


def test_an_error_line_steers_no_terminal_and_ends(launched):
    with pytest.raises(SystemExit) as stopped:
        launched(ValueError('tensor \x1b[2J\x9b\u202e' + 'x' * 10**6 + ' is wrong: mend it'))
    line = stopped.value.code
    assert line.isprintable() and len(line) < 5000
    assert line.startswith('error: tensor ') and line.endswith('is wrong: mend it')


def test_the_trace_of_a_bug_steers_no_terminal(launched, capsys):
    try:
        launched(KeyError())
    except KeyError:
        launching.sys.excepthook(TypeError, TypeError('a\x1b[2J\nb'), None)
    assert capsys.readouterr().err == 'TypeError: a\ufffd[2J\nb\n'


def test_a_device_that_is_not_there_is_said_in_one_line(launched, monkeypatch):
    def nothing():
        raise AssertionError

    with pytest.raises(AssertionError):  # a bug
        launched(AssertionError())
    monkeypatch.setattr(jax, 'devices', nothing)
    asked = jax.config.jax_platforms
    jax.config.update('jax_platforms', 'cuda')
    try:
        with pytest.raises(SystemExit, match='JAX_PLATFORMS=cuda'):
            launched(AssertionError())
    finally:
        jax.config.update('jax_platforms', asked)


def test_flags_without_docstrings():
    """As under python -OO."""
    settings = dataclasses.make_dataclass('Bare', [('bare_flag', int, 3)])
    settings.__doc__ = None
    flags.define(settings())
    assert absl_flags.FLAGS['bare_flag'].default == 3
    delattr(absl_flags.FLAGS, 'bare_flag')
