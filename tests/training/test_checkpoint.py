"""Parameters come back as they were kept."""

import json
import os
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.training import checkpoint, checksums
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


SETTINGS, MASKS = {'members_at_once': 2}, np.ones((8, 3), bool)


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the test has them."""
    now = [1000.0]
    monkeypatch.setattr(checkpoint, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_checkpoints_are_minutes_apart(tmp_path, clock, monkeypatch):
    """At multiples of 2 steps, but no sooner than 5 minutes after the last one, or the start."""
    asked = []
    monkeypatch.setattr(checkpoint, 'from_primary', lambda value: asked.append(value) or value)
    state, members = State({'w': jnp.ones(3)}, ()), np.array([4])
    directory = tmp_path / 'in_training'
    checkpoints = checkpoint.Checkpointer(directory, every=2, configuration={}, least_minutes=5)
    checkpoints.open(SETTINGS, masks=MASKS, untrained=members)
    kept = []
    for _ in range(2):  # the members, and the next ones, which begin anew
        assert checkpoints.resume(state) is None
        for steps in range(1, 11):
            clock[0] += 90
            checkpoints.save(members, steps, state)
            names = [path.name for path in directory.glob('*')]
            kept.append(int(*names) if names else 0)
        checkpoints.clear()
    # 6 minutes are 4 steps.
    assert kept == 2 * [0, 0, 0, 4, 4, 4, 4, 8, 8, 8]
    assert len(asked) == 2 * 5  # all processes, at multiples of 2 steps alone


def _begun(directory):
    checkpoints = checkpoint.Checkpointer(directory, every=1, configuration={'a': 1})
    checkpoints.open(SETTINGS, masks=MASKS, untrained=np.arange(8))
    return checkpoints


@pytest.fixture
def in_training(tmp_path):
    """Members 4 and 5 after 3 steps, and their state."""
    state, members = State({'w': jnp.arange(6.0)}, ()), np.array([4, 5])
    directory = tmp_path / 'run' / 'in_training'
    directory.parent.mkdir()
    _begun(directory).save(members, 3, state)
    return directory, members, state


@pytest.mark.parametrize('left', ['about', 'state', '_CHECKPOINT_METADATA', ''])
def test_a_kill_while_a_checkpoint_is_removed_leaves_none(in_training, monkeypatch, left):
    """Its members are done, or begin anew; in the end nothing is there."""
    directory, members, state = in_training

    remove = shutil.rmtree

    def killed(path, **settings):
        if path != directory:
            return remove(path, **settings)
        for found in list(path.rglob('*')):
            if found.is_file() and left not in found.parts:
                found.unlink()
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(shutil, 'rmtree', killed)
            with pytest.raises(KeyboardInterrupt):
                _begun(directory).clear()
        assert directory.exists()
        checkpoints = _begun(directory)
        assert checkpoints.resume(state) is None
        checkpoints.save(members, 3, state)
    checkpoints.clear()
    assert not directory.exists()


def _nested(path):
    path.write_text('[' * 100_000)


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _other_members(path):
    path.write_text('{"members": ["x"], "identity": {"configuration": {"a": 1}}}')


DAMAGES = [
    *[(name, _nested) for name in ('about/metadata', 'state/_METADATA', '_CHECKPOINT_METADATA')],
    *[(name, _pipe) for name in ('about/metadata', 'state/manifest.ocdbt')],
    ('about/metadata', lambda path: path.write_text('{}')),
    ('about/metadata', lambda path: path.unlink()),
    ('about/metadata', _other_members),
    ('state/manifest.ocdbt', lambda path: path.write_bytes(b'x')),
]


@pytest.mark.parametrize(('name', 'damage'), DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_line(in_training, name, damage):
    directory, _, state = in_training
    damage(directory / '3' / name)
    with pytest.raises(ValueError, match='remove it') as caught:
        _begun(directory).resume(state)
    assert str(directory) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(('name', 'damage'), [('_METADATA', _nested), ('manifest.ocdbt', _pipe)])
def test_damaged_parameters_are_refused_in_one_line(tmp_path, name, damage):
    checkpoint.save_members(tmp_path, np.array([3]), _params(3))
    damage(tmp_path / '000003' / name)
    with pytest.raises(ValueError, match='000003') as caught:
        checkpoint.load_member(tmp_path, 3, LIKE)
    assert '\n' not in str(caught.value)


def test_other_names_are_no_members(directory):
    for name in ('9' * 30, '٣٣٣٣٣٣', '7', 'x'):
        (directory / name).mkdir(exist_ok=True)
    assert set(checkpoint.kept_members(directory)) <= {3, 12, 20}


@pytest.mark.parametrize('put', [None, 'another'])
def test_a_run_that_is_gone_is_noticed_and_not_made_again(in_training, put):
    directory, members, state = in_training
    checkpoints = _begun(directory)
    checkpoints.resume(state)
    directory.parent.rename(directory.parent.with_name('moved'))
    if put:
        directory.parent.mkdir()
    with pytest.raises(FileNotFoundError, match='replaced'):
        checkpoints.save(members, 4, state)
    assert not directory.exists()


def _flipped(path, byte):
    content = bytearray(path.read_bytes())
    content[byte % len(content)] ^= 1 << byte % 8
    path.write_bytes(content)


def _largest(directory):
    return max((p for p in directory.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.fixture
def large(tmp_path):
    """Parameters of which orbax itself has no checksum."""
    rng = np.random.default_rng(0)
    params = {'w': rng.normal(size=(2, 60, 50)).astype(np.float32), 'b': rng.random((2, 70)) < 0.5}
    checkpoint.save_members(tmp_path / 'params', np.array([3, 4]), params)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    return tmp_path / 'params', params, like


@pytest.mark.parametrize('byte', [1003, 5004, 9000])
def test_flipped_bits_of_parameters_are_noticed(large, byte):
    directory, _, like = large
    _flipped(_largest(directory / '000003'), byte)
    with pytest.raises(ValueError, match='000003'):
        checkpoint.load_member(directory, 3, like)


def test_another_members_parameters_are_noticed(large):
    directory, _, like = large
    shutil.rmtree(directory / '000003')
    shutil.copytree(directory / '000004', directory / '000003')
    with pytest.raises(ValueError, match='member 3'):
        checkpoint.load_member(directory, 3, like)
    file = directory / '000003' / '_CHECKPOINT_METADATA'
    fields = json.loads(file.read_text())
    fields['custom_metadata'] = {'influence_jax': {'member': 3}}
    file.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match='member 3'):
        checkpoint.load_member(directory, 3, like)


def test_parameters_of_earlier_versions_are_read(large):
    directory, params, like = large
    file = directory / '000003' / '_CHECKPOINT_METADATA'
    fields = json.loads(file.read_text())
    assert fields.pop('custom_metadata')
    file.write_text(json.dumps(fields))
    loaded = checkpoint.load_member(directory, 3, like)
    jax.tree.map(np.testing.assert_array_equal, loaded, jax.tree.map(lambda x: x[0], params))
    assert checkpoint.kept_members(directory).tolist() == [3, 4]


def test_flipped_bits_of_members_in_training_are_noticed(tmp_path):
    weights = np.random.default_rng(0).normal(size=(60, 50)).astype(np.float32)
    state, members = State({'w': jnp.asarray(weights)}, ()), np.array([4, 5])
    _begun(tmp_path / 'a').save(members, 3, state)
    _, found = _begun(tmp_path / 'a').resume(state)
    np.testing.assert_array_equal(found.params['w'], weights)
    _flipped(_largest(tmp_path / 'a' / '3'), 5003)
    with pytest.raises(ValueError, match=r'remove it'):
        _begun(tmp_path / 'a').resume(state)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int8', 'uint32', 'bool'])
def test_any_change_to_an_element_changes_the_checksum(dtype):
    rng = np.random.default_rng(0)
    array = jnp.asarray(rng.integers(0, 2, (3, 4, 5)), dtype)
    seen = {checksums.of_arrays({'a': array})['a']}
    for index in np.ndindex(array.shape):
        changed = array.at[index].set((1 - array[index].astype(int)).astype(dtype))
        seen.add(checksums.of_arrays({'a': changed})['a'])
    assert len(seen) == 1 + array.size
    assert checksums.of_arrays({'a': array.reshape(4, 3, 5)})['a'] not in seen
    assert checksums.of_arrays({'a': np.asarray(array)})['a'] in seen
