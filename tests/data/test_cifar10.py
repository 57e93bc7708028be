"""CIFAR-10 from files in the dataset's own binary layout, written here byte by byte."""

import os
from pathlib import Path

import numpy as np
import pytest

from influence_jax.data.sources import cifar10

REAL = Path(__file__).parents[3] / 'shared' / 'data' / 'cifar-10-batches-bin'
RECORDS = 10_000


def write_batch(folder, number, seed):
    """One batch in the true layout; returns its images `[N H W C]` and labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (RECORDS, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, RECORDS, np.uint8)
    records = np.concatenate(
        [labels[:, None]] + [images[..., channel].reshape(RECORDS, 1024) for channel in range(3)],
        axis=1,
    )
    assert records.shape == (RECORDS, 3073)
    records.tofile(folder / f'data_batch_{number}.bin')
    return images, labels


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Batches 2 and 5, with what else the archive holds."""
    root = tmp_path_factory.mktemp('cifar') / 'cifar-10-batches-bin'
    root.mkdir()
    (root / 'test_batch.bin').write_bytes(b'not to be read')
    (root / 'batches.meta.txt').write_text('airplane\n')
    (root / 'readme.html').write_text('<p>')
    return root


@pytest.fixture(scope='module')
def written(folder):
    return {number: write_batch(folder, number, seed=number) for number in (5, 2)}


def test_pixels_labels_and_positions(folder, written):
    dataset = cifar10.load(folder)
    np.testing.assert_array_equal(dataset.arrays['image'][:RECORDS], written[2][0])
    np.testing.assert_array_equal(dataset.arrays['image'][RECORDS:], written[5][0])
    np.testing.assert_array_equal(dataset.arrays['label'][:RECORDS], written[2][1])
    np.testing.assert_array_equal(dataset.arrays['label'][RECORDS:], written[5][1])
    assert dataset.ids[0] == 'cifar10-train-10000'
    assert dataset.ids[RECORDS] == 'cifar10-train-40000'
    assert dataset.ids[-1] == 'cifar10-train-49999'
    assert dataset.class_names[3] == 'cat'
    assert dataset.name == 'cifar10'


def test_the_folder_above_will_do(folder, written):
    assert cifar10.load(folder.parent).num_examples == 2 * RECORDS


@pytest.fixture
def damaged(tmp_path, folder, written):
    """A copy of one batch, to be damaged."""
    path = tmp_path / 'data_batch_1.bin'
    path.write_bytes((folder / 'data_batch_2.bin').read_bytes())
    return path


@pytest.mark.parametrize(
    ('size', 'message'),
    [
        (0, 'truncated: 0 bytes'),
        (1000, 'truncated: 1000 bytes'),
        (3073 * 9999, 'truncated'),  # whole records, but too few
        (3073 * RECORDS - 1, 'truncated'),
        (3073 * RECORDS + 1, 'too long'),
    ],
)
def test_files_of_another_size(damaged, size, message):
    with damaged.open('r+b') as file:
        file.truncate(size)
    with pytest.raises(ValueError, match=message) as caught:
        cifar10.load(damaged.parent)
    assert str(damaged) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_labels_out_of_range(damaged):
    with damaged.open('r+b') as file:
        file.seek(3073 * 7)
        file.write(bytes([10]))
    with pytest.raises(ValueError, match='record 7 has the label 10'):
        cifar10.load(damaged.parent)


def test_nothing_there_says_at_once_what_to_download(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))  # where TFDS's own default folder would be
    for data_dir in (tmp_path, tmp_path / 'none', None):
        with pytest.raises(FileNotFoundError, match=r'cifar-10-binary\.tar\.gz') as caught:
            cifar10.load(data_dir)
        message = str(caught.value)
        assert 'https://www.cs.toronto.edu/~kriz/cifar.html' in message
        assert str(data_dir or tmp_path / 'tensorflow_datasets') in message
        assert '\n' not in message


def test_the_python_version_is_named_and_not_read(tmp_path):
    (tmp_path / 'data_batch_1').write_bytes(b'cos\nsystem\n')
    with pytest.raises(FileNotFoundError, match='Python version, whose pickles are not read'):
        cifar10.load(tmp_path)


def test_real_images():
    if not REAL.is_dir():
        pytest.skip(f'no CIFAR-10 batch files beside the repository ({REAL.name})')
    dataset = cifar10.load(REAL)
    assert dataset.num_examples % RECORDS == 0
    # The first training images, as everyone knows them: frog, truck, truck, deer, automobile.
    assert [dataset.class_names[label] for label in dataset.arrays['label'][:5]] == [
        'frog',
        'truck',
        'truck',
        'deer',
        'automobile',
    ]
    assert dataset.ids[0] == 'cifar10-train-00000'
    # The published channel means of the training set.
    means = dataset.arrays['image'].mean((0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.01)
    # Neighbouring pixels agree only if rows, columns and channels were told apart rightly.
    pixels = dataset.arrays['image'][:200].astype(float)
    scrambled = np.abs(pixels - pixels[:, ::-1]).mean()
    assert np.abs(np.diff(pixels, axis=1)).mean() < 0.4 * scrambled
    assert np.abs(np.diff(pixels, axis=2)).mean() < 0.4 * scrambled


@pytest.mark.parametrize(
    ('make', 'kind'),
    [(os.mkfifo, 'pipe'), (os.mkdir, 'directory'), (lambda p: p.symlink_to('/dev/zero'), 'device')],
)
def test_what_is_no_regular_file_is_refused_by_name(tmp_path, make, kind):
    make(tmp_path / 'data_batch_3.bin')
    with pytest.raises(ValueError, match=rf'data_batch_3\.bin is a {kind}'):
        cifar10.load(tmp_path)
