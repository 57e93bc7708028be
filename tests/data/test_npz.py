"""Anyone's `.npz`: what is read, defaults, and every way in which a file can be wrong."""

import pickle

import numpy as np
import pytest

from influence_jax.data import npz

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 1), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def write(path, **arrays):
    np.savez(path, **{'images': IMAGES, 'labels': LABELS, **arrays})
    return path


def test_required_arrays_and_defaults(tmp_path):
    dataset = npz.load(write(tmp_path / 'birds.npz'))
    np.testing.assert_array_equal(dataset.images, IMAGES)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.labels.dtype == np.int32
    assert dataset.name == 'birds'
    assert dataset.ids[:2] == ('birds-00000', 'birds-00001')
    assert dataset.names == dataset.ids
    assert dataset.class_names == ('0', '1', '2')


def test_optional_arrays(tmp_path):
    path = write(
        tmp_path / 'a.npz',
        class_names=np.array(['x', 'y', 'z', 'unused']),
        names=np.array(['<b>', 'é', 'c', 'd', 'e', 'f']),
        ids=np.arange(10, 16),
        other=np.array([object()]),
    )
    dataset = npz.load(str(path))
    assert dataset.class_names == ('x', 'y', 'z', 'unused')
    assert dataset.names[:2] == ('<b>', 'é')
    assert dataset.ids == ('10', '11', '12', '13', '14', '15')


@pytest.mark.parametrize('dtype', [np.uint8, np.int16, np.uint64])
def test_labels_of_any_integer_type(tmp_path, dtype):
    dataset = npz.load(write(tmp_path / 'a.npz', labels=LABELS.astype(dtype)))
    np.testing.assert_array_equal(dataset.labels, LABELS)


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'images': IMAGES / 255}, 'must be uint8 .* found float64'),
        ({'images': IMAGES[..., 0]}, r'shape \[N H W C\]'),
        ({'images': IMAGES[:0], 'labels': LABELS[:0]}, 'labels must be a vector of integers'),
        ({'images': IMAGES[:5]}, 'one for each of the 5 images'),
        ({'labels': LABELS.astype(float)}, 'labels must be a vector of integers'),
        ({'labels': LABELS[:, None]}, r'found int64 of shape \(6, 1\)'),
        ({'labels': LABELS - 1}, 'labels run from -1 to 1'),
        ({'labels': LABELS + 2**32}, 'labels run from 4294967296'),
        ({'labels': LABELS * 10**9}, 'label 2000000000 is out of range: without class_names'),
        ({'class_names': np.array(['x', 'y'])}, 'label 2 of image 2 is out of range'),
        ({'class_names': np.arange(3)}, 'class_names must be a vector of text'),
        ({'names': np.array(['a'])}, 'names must number 6, found 1'),
        ({'names': np.array('a')}, 'names must be a vector of text'),
        ({'ids': np.zeros(6, int)}, "the id '0' occurs more than once"),
        ({'ids': np.arange(6.0)}, 'ids must be a vector of text, found float64'),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(tmp_path, arrays, message):
    path = write(tmp_path / 'a.npz', **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        npz.load(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('missing', ['images', 'labels'])
def test_missing_arrays_are_named(tmp_path, missing):
    arrays = {'images': IMAGES, 'labels': LABELS, 'extra': LABELS}
    del arrays[missing]
    np.savez(tmp_path / 'a.npz', **arrays)
    with pytest.raises(ValueError, match=f"no array '{missing}'"):
        npz.load(tmp_path / 'a.npz')


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ('a pickle in the file was executed',))


@pytest.mark.parametrize('key', ['images', 'labels', 'ids'])
def test_python_objects_are_refused_and_never_run(tmp_path, key):
    path = write(tmp_path / 'a.npz', **{key: np.array([_Bomb()] * 6, object)})
    with pytest.raises(ValueError, match='plain arrays, no Python objects'):
        npz.load(path)


def test_a_bare_pickle_is_refused_and_never_run(tmp_path):
    path = tmp_path / 'a.npz'
    path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ValueError, match=r'not a complete \.npz file'):
        npz.load(path)


def test_truncated_damaged_and_foreign_files(tmp_path):
    good = write(tmp_path / 'good.npz').read_bytes()
    cases = {
        'empty': b'',
        'half': good[: len(good) // 2],
        'npy': good[good.index(b'\x93NUMPY') :][:200],
    }
    for name, content in cases.items():
        path = tmp_path / f'{name}.npz'
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'not a complete \.npz file'):
            npz.load(path)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_flipped_bits_are_noticed(tmp_path, save):
    path = tmp_path / 'a.npz'
    save(path, images=np.zeros((6, 32, 32, 3), np.uint8), labels=LABELS)
    content = bytearray(path.read_bytes())
    content[150] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match='cannot be read'):
        npz.load(path)


def test_no_file_and_a_folder(tmp_path):
    for path in (tmp_path / 'none.npz', tmp_path):
        with pytest.raises(FileNotFoundError, match='no such file'):
            npz.load(path)
