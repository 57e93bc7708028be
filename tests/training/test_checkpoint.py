"""Parameters come back as they were kept."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.training import checkpoint
from influence_jax.training.member import State


def _params(*members):
    """Stacked parameters, told apart by the member's number."""
    rows = np.array(members, np.float32)
    return {
        'layer': {'kernel': rows[:, None, None] + np.arange(6, dtype=np.float32).reshape(2, 3)},
        'bias': -rows,
    }


LIKE = {
    'layer': {'kernel': jax.ShapeDtypeStruct((2, 3), np.float32)},
    'bias': jax.ShapeDtypeStruct((), np.float32),
}


def _assert_member(directory, member, number):
    expected = jax.tree.map(lambda leaf: leaf[0], _params(number))
    loaded = checkpoint.load_member(directory, member, LIKE)
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp('checkpoints') / 'params'
    checkpoint.save_members(directory, np.array([3, 12]), _params(3, 12))
    return directory


def test_round_trip(directory):
    for member in (3, 12):
        _assert_member(directory, member, member)


def test_a_member_that_was_not_kept(directory):
    with pytest.raises(FileNotFoundError, match='no parameters of member 4 in'):
        checkpoint.load_member(directory, 4, LIKE)


def test_a_member_that_is_trained_again_replaces_what_was_kept(directory):
    """So it is after a kill between keeping the parameters and recording the measurements."""
    checkpoint.save_members(directory, np.array([20]), _params(20))
    checkpoint.save_members(directory, np.array([20]), _params(21))
    _assert_member(directory, 20, 21)


def test_relative_directories(directory, monkeypatch):
    monkeypatch.chdir(directory.parent)
    from pathlib import Path

    _assert_member(Path('params'), 3, 3)


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the test has them."""
    now = [1000.0]
    monkeypatch.setattr(checkpoint, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_checkpoints_are_minutes_apart(tmp_path, clock, monkeypatch):
    """At multiples of 2 steps, but no sooner than 5 minutes after the last one, or the start."""
    asked = []
    monkeypatch.setattr(checkpoint, 'from_first', lambda value: asked.append(value) or value)
    state, members = State({'w': jnp.ones(3)}, ()), np.array([4])
    directory = tmp_path / 'in_training'
    checkpoints = checkpoint.InTraining(directory, every=2, configuration={}, least_minutes=5)
    checkpoints.open({}, untrained=members)
    kept = []
    for _ in range(2):  # the members, and the next ones, which begin anew
        assert checkpoints.resume(members, state) is None
        for steps in range(1, 11):
            clock[0] += 90
            checkpoints.keep(members, steps, state)
            names = [path.name for path in directory.glob('*')]
            kept.append(int(*names) if names else 0)
        checkpoints.clear()
    # 6 minutes are 4 steps.
    assert kept == 2 * [0, 0, 0, 4, 4, 4, 4, 8, 8, 8]
    assert len(asked) == 2 * 5  # all processes, at multiples of 2 steps alone
