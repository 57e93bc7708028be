"""A run that two processes train together, as the hosts of a pod do: killed, continued, refused."""

import contextlib
import socket
import time

import jax
import numpy as np
import pytest

from experiments.processes import ProcessSettings
from influence_jax import store
from influence_jax.training.mesh import MeshShape

FLAGS = (
    '--unique=10',
    '--duplicated=3',
    '--copies=3',
    '--members=16',
    '--keep=0.7',
    '--epochs=4',
    '--batch_size=4',
    '--width=16',
    '--heads=2',
    '--vocabulary=300',
    '--max_length=30',
    '--checkpoint_steps=3',
    '--checkpoint_minutes=0',
    '--keep_params',
)


@pytest.fixture
def start_two(start):
    """Starts one command in two processes that find each other."""
    running = []

    def two(*flags):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        common = (*FLAGS, f'--coordinator=127.0.0.1:{port}', '--processes=2', *flags)
        pair = [start(*common, f'--process={n}', name='language_model') for n in range(2)]
        running.extend(pair)
        return pair

    yield two
    for process in running:
        process.kill()
        process.communicate()


def _ends(processes):
    outputs = [process.communicate(timeout=240) for process in processes]
    return [(p.returncode, *texts) for p, texts in zip(processes, outputs, strict=True)]


def _wait_for(path, pattern, count):
    for _ in range(2400):
        if len(list(path.glob(pattern))) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f'{path} never held {count} of {pattern}')


def _wait_for_checkpoint(path):
    """One that is finished: until then orbax gives it another name. It is there for moments."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):  # also when it goes while it is looked at
            if any(found.name.isdecimal() for found in path.iterdir()):
                return
        time.sleep(0.001)
    raise AssertionError(f'{path} never held a finished checkpoint')


@pytest.mark.slow
def test_two_processes_train_what_one_does(start_two, launch, tmp_path):
    """Each member over both; killed while one is in training, and continued."""
    together, alone = tmp_path / 'together', tmp_path / 'alone'
    flags = '--mesh=1,2,1', f'--output_dir={together}'
    pair = start_two(*flags)
    _wait_for(together, 'status.zarr/c.*', 2)
    _wait_for_checkpoint(together / 'in_training')
    for process in pair:
        process.kill()
    _ends(pair)
    assert len(store.open_run(together).missing)
    ends = _ends(start_two(*flags))
    assert [code for code, *_ in ends] == [0, 0], ends
    (_, output, errors), (_, others_output, others_errors) = ends
    assert 'members are there' in errors and 'report: ' in output
    assert 'report: ' not in others_output and 'members' not in others_errors
    assert not (together / 'in_training').exists()
    assert len(list((together / 'params').iterdir())) == 16

    finished = launch(*FLAGS, '--mesh=1,2,1', f'--output_dir={alone}', name='language_model')
    assert finished.returncode == 0, finished.stderr
    runs = [store.open_run(directory) for directory in (together, alone)]
    np.testing.assert_array_equal(runs[0].masks, runs[1].masks)
    for name in runs[0].manifest.measurements:
        values = [run.measurement(name) for run in runs]
        np.testing.assert_allclose(*values, rtol=0, atol=1e-4)
    ends = _ends(start_two('--mesh=1,2,1', f'--output_dir={alone}', '--epochs=5'))
    assert [code for code, *_ in ends] == [1, 1]
    assert 'holds a run of another configuration' in ends[0][2]
    assert f'process 0 could not open {alone}' in ends[1][2]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'processes': 2}, 'are for --coordinator=HOST:PORT'),
        ({'coordinator': 'auto', 'process': 1}, 'are for --coordinator=HOST:PORT'),
        ({'coordinator': 'here', 'processes': 2}, '--coordinator=here: give HOST:PORT'),
        ({'coordinator': ':80', 'processes': 2}, '--coordinator=:80: give HOST:PORT'),
        ({'coordinator': 'a:80'}, '--processes=1: give the number'),
        ({'coordinator': 'a:80', 'processes': 2, 'process': 2}, '--process=2 of --processes=2'),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        ProcessSettings(**settings)
    assert '\n' not in str(caught.value)


def test_processes_that_do_not_meet(monkeypatch):
    settings = ProcessSettings('a:80', 2, 0)
    with pytest.raises(ValueError, match='add --mesh'):
        settings.join(None)
    monkeypatch.setattr(jax.config, 'update', lambda *args: None)
    monkeypatch.setattr(jax.distributed, 'initialize', lambda **where: None)
    with pytest.raises(ValueError, match=r'a mesh of .* takes 99 devices, but 1 processes have 4'):
        settings.join(MeshShape(99))

    def fail(**where):
        assert where == {'coordinator_address': 'a:80', 'num_processes': 2, 'process_id': 0}
        raise RuntimeError('DEADLINE_EXCEEDED')

    monkeypatch.setattr(jax.distributed, 'initialize', fail)
    with pytest.raises(ValueError, match=r'did not find each other \(DEADLINE_EXCEEDED\)'):
        settings.join(MeshShape(4))
    ProcessSettings().join(None)  # alone
