"""A small run to write, read and damage."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from influence_jax import store

MEMBERS, EXAMPLES, TARGETS = 12, 10, 7
NAMES = ('loss', 'logit_gap', 'correct')


def small_manifest(**changes):
    fields = {
        'configuration': {'epochs': 10, 'model': {'width': 16, 'depth': 8}, 'keep': 0.5},
        'seeds': {'masks': 0, 'members': 1},
        'dataset': store.DatasetIdentity(name='clipart', fingerprint='ab' * 32),
        'example_ids': tuple(f'e{i}' for i in range(EXAMPLES)),
        'target_ids': tuple(f't{i}' for i in range(TARGETS)),
        'measurements': NAMES,
        'members': MEMBERS,
        'versions': {'jax': '1'},
        'created': '2026-01-01T00:00:00+00:00',
        'command': 'a command',
    }
    return store.Manifest(**{**fields, **changes})


@pytest.fixture
def manifest():
    return small_manifest()


@pytest.fixture
def changed_manifest():
    """The small manifest with some fields changed."""
    return small_manifest


@pytest.fixture
def masks():
    return _masks()


def _masks():
    return np.random.default_rng(0).random((MEMBERS, EXAMPLES)) < 0.5


@pytest.fixture
def values():
    """What is to be recorded: float32 [M T] for each measurement."""
    return _values()


def _values():
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=(MEMBERS, TARGETS)).astype(np.float32) for name in NAMES}


@pytest.fixture
def record(values):
    """Writes members' rows of `values` to a run."""

    def write(run, *members):
        run.write(np.array(members), {name: rows[list(members)] for name, rows in values.items()})

    return write


@pytest.fixture(scope='session')
def recorded_once(tmp_path_factory):
    directory = tmp_path_factory.mktemp('recorded') / 'run'
    with store.create_or_resume(directory, small_manifest(), _masks()) as run:
        run.write(np.arange(8), {name: rows[:8] for name, rows in _values().items()})
    return directory


@pytest.fixture
def directory(tmp_path, recorded_once):
    """A closed run with members 0 to 7 recorded."""
    return shutil.copytree(recorded_once, tmp_path / 'run')


@pytest.fixture
def old_directory(directory):
    """The closed run as an earlier version wrote it: a manifest without checksums, no digests."""
    path = directory / 'manifest.json'
    fields = json.loads(path.read_text())
    del fields['checksum'], fields['masks_sha256']
    path.write_text(json.dumps(fields, indent=1) + '\n')
    shutil.rmtree(directory / 'digests.zarr')
    return directory


@pytest.fixture
def refused():
    """Expects a refusal in one line, or by the checker of annotations where it is on."""

    @contextlib.contextmanager
    def expecting(match):
        with pytest.raises((ValueError, TypeCheckError)) as caught:
            yield
        if not isinstance(caught.value, TypeCheckError):
            caught.match(match)
            assert '\n' not in str(caught.value)

    return expecting


@pytest.fixture
def one_line():
    """Calls something that must raise; returns the message, which must be one line."""

    def call(error, function, *arguments):
        with pytest.raises(error) as caught:
            function(*arguments)
        message = str(caught.value)
        assert message and '\n' not in message
        return message

    return call
