"""`data.load`: which loader a name on the command line means."""

import subprocess
import sys

import numpy as np
import pytest

from influence_jax import data


def test_clip_art():
    assert data.load('clipart').name == 'clipart'


def test_npz_by_its_path(tmp_path):
    path = tmp_path / 'own.npz'
    np.savez(path, images=np.zeros((2, 1, 1, 1), np.uint8), labels=[0, 1])
    assert data.load(str(path)).ids == ('own-00000', 'own-00001')


def test_cifar10_takes_the_data_dir(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'CIFAR-10: nothing of it in {tmp_path}'):
        data.load('cifar10', data_dir=tmp_path)


@pytest.mark.parametrize('source', ['cifar', '', 'images.zip', 'Clipart'])
def test_unknown_names_list_the_choices(source):
    with pytest.raises(ValueError, match=r'choose clipart, cifar10, or the path of a \.npz file'):
        data.load(source)


def test_a_missing_npz(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'):
        data.load(str(tmp_path / 'none.npz'))


@pytest.mark.parametrize('source', ['clipart', 'own.npz'])
def test_a_data_dir_that_would_be_ignored_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match='takes no data_dir'):
        data.load(source, data_dir=tmp_path)


def test_tfds_is_imported_only_where_it_is_used():
    code = 'import sys, influence_jax.data as d; d.load("clipart"); print(*sys.modules)'
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    assert not {'tensorflow_datasets', 'tensorflow'} & set(result.stdout.split())
