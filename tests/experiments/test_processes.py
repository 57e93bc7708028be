"""A run that two processes train together, as the hosts of a pod do: killed, continued, refused."""

import atexit
import contextlib
import signal
import socket
import subprocess
import threading
import time

import jax
import numpy as np
import pytest

from experiments import launch
from experiments.processes import ProcessSettings
from influence_jax import store
from influence_jax.training import rendezvous
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
def free_port():
    """Of a port that nobody listens at."""

    def port():
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            return free.getsockname()[1]

    return port


@pytest.fixture
def start_two(start, free_port):
    """Starts one command in two processes that find each other."""
    running = []

    def two(*flags):
        common = (*FLAGS, f'--coordinator=127.0.0.1:{free_port()}', '--processes=2', *flags)
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
def test_what_one_process_computes_is_refused_of_two_before_anything_is_trained(
    start_two, tmp_path
):
    ends = _ends(
        start_two('--mesh=1,2,1', f'--output_dir={tmp_path / "run"}', '--attribution=cosine')
    )
    assert [code for code, *_ in ends] == [1, 1]
    assert '--attribution=cosine is for one process' in ends[0][2]
    assert not (tmp_path / 'run').exists()


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
    assert 'tokens are not measured by several processes' in errors
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
        ({'coordinator': 'a:70000', 'processes': 2}, '--coordinator=a:70000: give HOST:PORT'),
        ({'coordinator_timeout': 0.5}, '--coordinator_timeout=0.5'),
        ({'coordinator_timeout': float('nan')}, '--coordinator_timeout=nan'),
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
    monkeypatch.setattr(rendezvous, 'meet', lambda meeting: Alone())
    monkeypatch.setattr(atexit, 'register', lambda *_: None)
    monkeypatch.setattr(launch, 'leaving_by', lambda farewell: None)
    monkeypatch.setattr(jax.distributed, 'initialize', lambda **where: None)
    with pytest.raises(ValueError, match=r'a mesh of .* takes 99 devices, but 1 processes have 4'):
        settings.join(MeshShape(99))

    def fail(**where):
        assert where['coordinator_address'] == 'a:80'
        assert (where['num_processes'], where['process_id']) == (2, 0)
        raise RuntimeError('DEADLINE_EXCEEDED')

    monkeypatch.setattr(jax.distributed, 'initialize', fail)
    with pytest.raises(ValueError, match=r'did not find each other \(DEADLINE_EXCEEDED\)'):
        settings.join(MeshShape(4))
    ProcessSettings().join(None)  # alone


class Alone:
    """Peers of nobody."""

    def watch(self, lost):
        pass

    def fail(self):
        pass


def test_a_service_of_jax_that_does_not_start_is_given_up_in_time(monkeypatch):
    """Where a cluster tells who is who, nobody can be asked before."""
    given_up = threading.Event()
    monkeypatch.setattr(jax.config, 'update', lambda *args: None)
    monkeypatch.setattr(launch, 'lose_others', lambda why: '1 s' in why and given_up.set())
    monkeypatch.setattr(jax.distributed, 'initialize', lambda **_: given_up.wait(20))
    with pytest.raises(ValueError, match='--mesh must be over all'):
        ProcessSettings('auto', coordinator_timeout=1.0).join(MeshShape(99))
    assert given_up.is_set()


@pytest.mark.slow
def test_processes_that_cannot_meet_end_in_one_line(start, assert_refused, tmp_path, free_port):
    """As users start them: one comes alone, the other not at all."""
    flags = (*FLAGS, '--mesh=1,2,1', f'--output_dir={tmp_path / "run"}', '--coordinator_timeout=2')
    for process in range(2):
        begun = start(
            *flags,
            f'--coordinator=127.0.0.1:{free_port()}',
            '--processes=2',
            f'--process={process}',
            name='language_model',
        )
        output, errors = begun.communicate(timeout=120)
        ended = subprocess.CompletedProcess(begun.args, begun.returncode, output, errors)
        assert_refused(ended, '--coordinator_timeout', ' 2 s')
        assert len(errors.splitlines()) == 1
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
@pytest.mark.parametrize('stopped', [0, 1])
def test_a_process_that_is_stopped_is_missed_in_one_line(start_two, tmp_path, stopped):
    pair = start_two(
        '--mesh=1,2,1', f'--output_dir={tmp_path}', '--members=400', '--coordinator_timeout=6'
    )
    _wait_for(tmp_path, 'status.zarr/c.*', 2)
    pair[stopped].send_signal(signal.SIGSTOP)
    _, errors = pair[1 - stopped].communicate(timeout=20)
    lines = [line for line in errors.splitlines() if 'error' in line or 'process' in line]
    assert pair[1 - stopped].returncode == 1
    assert len(lines) == 1 and f'nothing was heard of process {stopped} for 6 s' in lines[0]
