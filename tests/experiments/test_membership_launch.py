"""Membership inference from the command line, of a run and of tensors."""

import csv

import numpy as np
import pytest

from experiments import membership
from experiments.membership import MembershipSettings
from influence_jax import store
from influence_jax.store import DatasetIdentity

M, N = 48, 20


@pytest.fixture
def tensors(tmp_path):
    """Files of masks and losses, of which the first record is memorized."""
    rng = np.random.default_rng(0)
    masks = rng.random((M, N)) < 0.5
    losses = rng.gamma(4.0, 0.25, masks.shape)
    losses[masks[:, 0], 0] *= 1e-3
    for name, values in (('masks', masks), ('losses', losses.astype(np.float32))):
        np.save(tmp_path / f'{name}.npy', values)
    return {name: str(tmp_path / f'{name}.npy') for name in ('masks', 'losses')}


def rows_of(page):
    with (page.parent / 'vulnerability.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def test_of_tensors(tensors, tmp_path, capsys):
    settings = MembershipSettings(**tensors, output_dir=str(tmp_path / 'audit'))
    page = membership.run('', settings)
    rows = rows_of(page)
    assert [row['id'] for row in rows] == [str(i) for i in range(N)]
    assert [row['at_risk'] for row in rows] == ['1', *['0'] * (N - 1)]
    printed = capsys.readouterr().out
    assert 'LiRA, online' in printed
    assert '1 records at risk' in printed
    text = page.read_text()
    assert 'sha256' in text
    assert '1 of 20 records are at risk' in text


def test_of_losses_that_are_none_of_probabilities(tensors, tmp_path, capsys):
    settings = MembershipSettings(**tensors, unit='meters', output_dir=str(tmp_path / 'audit'))
    membership.run('', settings)
    printed = capsys.readouterr().out
    assert 'LiRA' not in printed
    assert 'loss alone' in printed


@pytest.mark.parametrize('units', [None, {'loss': 'meters'}])
def test_of_a_run(tensors, tmp_path, capsys, units):
    masks, losses = (np.load(tensors[name]) for name in ('masks', 'losses'))
    ids = tuple(f'row {i}' for i in range(N))
    manifest = store.Manifest(
        configuration={},
        seeds={'seed': 0},
        dataset=DatasetIdentity('rows', '0' * 64),
        example_ids=ids,
        target_ids=ids,
        measurements=('loss',),
        members=M,
        units=units,
    )
    with store.create_or_resume(tmp_path / 'run', manifest, masks) as run:
        run.write(np.arange(M), {'loss': losses})
    page = membership.run(str(tmp_path / 'run'), MembershipSettings())
    assert page == tmp_path / 'run' / 'membership' / 'membership.html'
    assert rows_of(page)[0]['id'] == 'row 0'
    assert rows_of(page)[0]['at_risk'] == '1'
    assert ('LiRA' in capsys.readouterr().out) == (units is None)


@pytest.mark.parametrize(
    ('directory', 'settings', 'message'),
    [
        ('', {}, 'give the directory of a run, or --masks'),
        ('', {'masks': 'm.npy'}, 'losses=.* is missing'),
        ('', {'masks': 'm.npy', 'losses': 'l.npy'}, '--output_dir is missing'),
        ('run', {'masks': 'm.npy'}, '--masks is of tensors, not of a run'),
        ('run', {'most_scores': -1}, 'most_scores=-1'),
    ],
)
def test_settings_that_say_too_little_or_too_much(directory, settings, message):
    with pytest.raises(ValueError, match=message):
        membership.run(directory, MembershipSettings(**settings))


def test_too_few_members(tensors, tmp_path):
    for name, path in tensors.items():
        np.save(tmp_path / f'{name}.npy', np.load(path)[:20])
    settings = MembershipSettings(**tensors, drop_inestimable=True, output_dir=str(tmp_path / 'a'))
    with pytest.raises(ValueError, match='too few members: attacks need 32'):
        membership.run('', settings)
    assert not (tmp_path / 'a').exists()
