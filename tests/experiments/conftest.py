"""Launches as a user makes them: a process each, on images that train in a moment."""

import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import image_ensemble
from experiments.image_ensemble import ImageExperiment
from experiments.settings import (
    AnalysisSettings,
    DataSettings,
    EnsembleSettings,
    MachineSettings,
    NetworkSettings,
    PlantingSettings,
)
from influence_jax.training import Recipe

ROOT = Path(__file__).parents[2]
COUNT, MEMBERS = 48, 64


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    """A .npz file of 48 images in 3 classes that differ in hue."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % 3
    pixels = rng.integers(0, 200, (COUNT, 8, 8, 3))
    pixels[np.arange(COUNT), :, :, labels] += 55
    path = tmp_path_factory.mktemp('images') / 'tiny.npz'
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)
    return path


@pytest.fixture(scope='session')
def small(images):
    """Flags of a small run; later ones win over these."""
    return [
        f'--dataset={images}',
        f'--members={MEMBERS}',
        '--width=8',
        '--stages=1',
        '--batch_size=8',
        '--epochs=15',  # about a twentieth of a second a member, so that a kill meets it at work
        '--streams=1',
        '--vmap=1',
    ]


@pytest.fixture(scope='session')
def start():
    """Starts a launch."""
    environment = os.environ | {'PYTHONPATH': str(ROOT)}

    def start(*flags, name='image_resnet', cwd=ROOT):
        return subprocess.Popen(
            [sys.executable, '-m', f'experiments.{name}', *map(str, flags)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=cwd,
        )

    return start


SERVER = """
import gc, json, os, pkgutil, runpy, sys, warnings

import experiments

warnings.simplefilter('ignore')  # of forks, and of modules that are there before they are run
for module in pkgutil.iter_modules(experiments.__path__):
    __import__(f'experiments.{module.name}')
gc.freeze()  # else each process copies all of it to collect and to end
print('ready', flush=True)
for line in sys.stdin:
    name, flags, cwd, output, errors = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(cwd)
        for number, path in ((0, os.devnull), (1, output), (2, errors)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.stdin = open(0)
        sys.argv = [name, *flags]
        runpy.run_module(f'experiments.{name}', run_name='__main__', alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope='session')
def launch(tmp_path_factory):
    """Runs a launch to its end: status, standard output, standard error.

    Processes are forked from one that has imported everything, which saves seconds each; nothing
    has been computed there. Those that tests stop are started anew, by `start`.
    """
    server = None
    outputs = [tmp_path_factory.mktemp('launched') / name for name in ('output', 'errors')]

    def answer(timeout):
        with selectors.DefaultSelector() as readable:
            readable.register(server.stdout, selectors.EVENT_READ)
            if not readable.select(timeout):
                raise subprocess.TimeoutExpired('launch', timeout)
        return server.stdout.readline().strip()

    def run(*flags, name='image_resnet', cwd=ROOT):
        nonlocal server
        if server is None or server.poll() is not None:
            server = subprocess.Popen(
                [sys.executable, '-c', SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
                env=os.environ | {'PYTHONPATH': str(ROOT)},
                start_new_session=True,
            )
            assert answer(240) == 'ready'
        asked = (name, list(map(str, flags)), str(cwd), *map(str, outputs))
        server.stdin.write(json.dumps(asked) + '\n')
        try:
            status = int(answer(240))
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(
            [name, *flags], status, *(path.read_text(errors='replace') for path in outputs)
        )

    yield run
    if server is not None:
        server.stdin.close()
        server.wait(30)
        server.stdout.close()


@pytest.fixture(scope='session')
def finished(launch, small, tmp_path_factory):
    """A whole small run: what it printed, and its directory."""
    directory = tmp_path_factory.mktemp('launch') / 'new' / 'run'
    return launch(*small, f'--output_dir={directory}'), directory


@pytest.fixture(scope='session')
def assert_refused():
    """One line that says what is wrong, and a status that says so, too."""

    def check(finished, *texts):
        assert finished.returncode not in (0, None)
        lines = finished.stderr.splitlines()
        errors = [line for line in lines if line.startswith('error: ')]
        assert len(errors) == 1, finished.stderr
        assert 'Traceback' not in finished.stderr
        for text in texts:
            assert text in errors[0]

    return check


@pytest.fixture
def run_here(images, tmp_path):
    """Runs the experiment in this process, where one more refusal costs no start of Python."""
    directory = tmp_path / 'run'

    def run(**changes):
        def settings(kind, **small):
            names = kind.__dataclass_fields__.keys() & changes.keys()
            return kind(**small | {name: changes[name] for name in names})

        return image_ensemble.run(
            ImageExperiment(
                settings(DataSettings, dataset=str(images)),
                settings(EnsembleSettings, members=24),
                settings(NetworkSettings, width=8, stages=1),
                settings(Recipe, batch_size=8, epochs=2),
                settings(MachineSettings, streams=1, vmap=1, output_dir=str(directory)),
                settings(AnalysisSettings),
                settings(PlantingSettings),
            )
        )

    return run, directory
