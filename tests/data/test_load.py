"""`data.load`: which source a name on the command line means."""

import subprocess
import sys

import numpy as np
import pytest

from influence_jax import data


@pytest.mark.parametrize('source', ['clipart', 'wordnet'])
def test_embedded_ones_by_their_names(source):
    assert data.load(source).name == source
    assert getattr(data.Dataset, source)().fingerprint == data.load(source).fingerprint


def test_files_by_their_paths(tmp_path):
    np.savez(tmp_path / 'own.npz', images=np.zeros((2, 1, 1, 1), np.uint8), labels=[0, 1])
    assert data.load(str(tmp_path / 'own.npz')).ids == ('own-00000', 'own-00001')
    assert len(data.Dataset.from_npz(tmp_path / 'own.npz')) == 2
    (tmp_path / 'own.jsonl').write_text('{"text": "a", "id": "one"}\n')
    assert data.load(str(tmp_path / 'own.jsonl')).ids == ('one',)
    assert len(data.Dataset.from_jsonl(tmp_path / 'own.jsonl')) == 1


@pytest.mark.parametrize(('source', 'title'), [('cifar10', 'CIFAR-10'), ('nq_open', 'NQ-open')])
def test_those_on_disk_take_the_data_dir(tmp_path, source, title):
    with pytest.raises(FileNotFoundError, match=f'{title}: nothing of it in {tmp_path}'):
        data.load(source, data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=f'{title}: nothing of it in {tmp_path}'):
        getattr(data.Dataset, source)(tmp_path)


@pytest.mark.parametrize('source', ['cifar', '', 'images.zip', 'Clipart', 'texts.txt', 'WordNet'])
def test_unknown_names_list_the_choices(source):
    with pytest.raises(ValueError, match=rf'unknown dataset {source!r}: choose') as caught:
        data.load(source)
    for choice in ('clipart', 'cifar10', 'wordnet', 'nq_open', '.npz', '.jsonl'):
        assert choice in str(caught.value)


@pytest.mark.parametrize('name', ['none.npz', 'none.jsonl'])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match='no such file'):
        data.load(str(tmp_path / name))


@pytest.mark.parametrize('source', ['clipart', 'own.npz', 'wordnet', 'own.jsonl'])
def test_a_data_dir_that_would_be_ignored_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match='takes no data_dir'):
        data.load(source, data_dir=tmp_path)


def test_tfds_and_tokenizers_are_imported_only_where_they_are_used():
    code = 'import sys, influence_jax.data as d; d.load("clipart"); print(*sys.modules)'
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    slow = {'tensorflow_datasets', 'tensorflow', 'transformers', 'tokenizers'}
    assert not slow & set(result.stdout.split())
