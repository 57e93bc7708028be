"""Anyone's `.npz`: what is read, defaults, and every way in which a file can be wrong."""

import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from influence_jax.data.sources import npz

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 1), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def write(path, **arrays):
    np.savez(path, **{'images': IMAGES, 'labels': LABELS, **arrays})
    return path


def test_required_arrays_and_defaults(tmp_path):
    dataset = npz.load(write(tmp_path / 'birds.npz'))
    np.testing.assert_array_equal(dataset.arrays['image'], IMAGES)
    np.testing.assert_array_equal(dataset.arrays['label'], LABELS)
    assert dataset.arrays['label'].dtype == np.int32
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
        groups=np.array([3, 3, 1, 1, 0, 0]),
        other=np.array([object()]),
    )
    dataset = npz.load(str(path))
    assert dataset.class_names == ('x', 'y', 'z', 'unused')
    assert dataset.names[:2] == ('<b>', 'é')
    assert dataset.ids == ('10', '11', '12', '13', '14', '15')
    assert dataset.groups.tolist() == [3, 3, 1, 1, 0, 0]
    assert sorted(dataset.arrays) == ['image', 'label']


@pytest.mark.parametrize('dtype', [np.uint8, np.int16, np.uint64])
def test_labels_of_any_integer_type(tmp_path, dtype):
    dataset = npz.load(write(tmp_path / 'a.npz', labels=LABELS.astype(dtype)))
    np.testing.assert_array_equal(dataset.arrays['label'], LABELS)


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'images': IMAGES / 255 - 0.5}, r'from 0 to 1, found float64 from -0\.5'),
        ({'images': IMAGES + 0.5}, 'from 0 to 255 .* found float64'),
        ({'images': IMAGES * np.nan}, 'not finite'),
        ({'images': IMAGES.astype(np.uint16) * 257}, 'found uint16 from 0 to 63736'),
        ({'images': IMAGES.astype(np.int16) - 1}, 'found int16 from -1'),
        ({'images': IMAGES.astype(complex)}, 'found complex128'),
        ({'images': np.zeros((6, 3, 8, 3), np.uint8)}, r'\(6, 3, 8, 3\) may have'),
        ({'images': np.zeros((6, 8, 9, 10), np.uint8)}, r'\(6, 8, 9, 10\) may have .* none'),
        ({'images': np.zeros((6, 9, 9, 9), np.uint8)}, r'\(6, 9, 9, 9\) may have'),
        ({'images': IMAGES.reshape(6, -1)}, r'\(6, 20\)'),
        ({'groups': LABELS[:4]}, 'groups must be 6 integers'),
        ({'images': np.zeros((8, 8, 3, 6), np.uint8)}, r'each of the 8 images, found 6'),
        ({'images': IMAGES[..., 0]}, r'shape \[N H W C\]'),
        ({'images': IMAGES[:0], 'labels': LABELS[:0]}, 'labels must be a vector of integers'),
        ({'images': IMAGES[:5]}, 'one for each of the 5 images'),
        ({'labels': LABELS.astype(float)}, 'labels must be a vector of integers'),
        ({'labels': np.eye(3)[LABELS] * 2}, r'found float64 of shape \(6, 3\)'),
        ({'labels': np.array(['x', 'y', 'z'] * 2), 'class_names': np.array(['x', 'y'])}, "'z'"),
        ({'labels': LABELS - 1}, 'labels run from -1 to 1'),
        ({'labels': LABELS + 2**32}, 'labels run from 4294967296'),
        ({'labels': LABELS * 10**9}, 'label 2000000000 is out of range: without class_names'),
        ({'class_names': np.array(['x', 'y'])}, 'label 2 of example 2 is out of range'),
        ({'class_names': np.arange(3)}, 'class_names must be a vector of text'),
        ({'names': np.array(['a'])}, 'names must number 6, one an example; found 1'),
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


@pytest.mark.parametrize(
    'arrays',
    [
        {'X': LABELS[:, None] / 2, 'y': LABELS},
        {'age': LABELS, 'labels': LABELS},
        {'images': IMAGES, 'age': LABELS / 3},
        {'word': np.array(list('abcdef')), 'vector': np.zeros((6, 3, 3, 3, 3))},
    ],
)
def test_other_arrays_are_read_under_their_own_names(tmp_path, arrays):
    np.savez(tmp_path / 'table.npz', **arrays, names=np.array(list('uvwxyz')), groups=LABELS)
    dataset = npz.load(tmp_path / 'table.npz')
    assert dataset.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(dataset.arrays[name], array)
    assert dataset.ids[5] == 'table-00005'
    assert dataset.names == tuple('uvwxyz')
    assert dataset.groups.tolist() == LABELS.tolist()
    assert (dataset.name, dataset.provenance, dataset.notes) == ('table', 'table.npz', ())


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'x': LABELS, 'z': LABELS[:4]}, "'x' has 6 examples, 'z' has 4"),
        ({'x': LABELS, 'z': np.array(3)}, "'z' is a single value"),
        ({'x': LABELS, 'ids': np.zeros(6, int)}, "the id '0' occurs more than once"),
        ({'x': LABELS, 'z': np.array([None] * 6)}, "'z' cannot be read .*no Python objects"),
        ({'ids': LABELS}, 'no arrays'),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / 'a.npz', **arrays)
    with pytest.raises(ValueError, match=f'a.npz: .*{message}') as caught:
        npz.load(tmp_path / 'a.npz')
    assert '\n' not in str(caught.value)


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ('a pickle in the file was executed',))


@pytest.mark.parametrize('key', ['images', 'labels', 'ids'])
def test_python_objects_are_refused_and_never_run(tmp_path, key):
    path = write(tmp_path / 'a.npz', **{key: np.array([_Bomb()] * 6, object)})
    with pytest.raises(ValueError, match='no Python objects'):
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


def test_no_file_a_folder_and_a_pipe(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'):
        npz.load(tmp_path / 'none.npz')
    os.mkfifo(tmp_path / 'pipe.npz')
    for path, kind in ((tmp_path, 'a directory'), (tmp_path / 'pipe.npz', 'a pipe')):
        with pytest.raises(ValueError, match=kind):
            npz.load(path)


COLOUR = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ('given', 'expected', 'note'),
    [
        (COLOUR.transpose(0, 3, 1, 2), COLOUR, '[6 3 8 8] taken as channels first'),
        (COLOUR[:, None, :, :, 0], COLOUR[..., :1], '[6 1 8 8] taken as channels first'),
        (COLOUR[..., 0], COLOUR[..., :1], '[6 8 8] taken as gray'),
        (COLOUR[..., :1], COLOUR[..., :1], ''),
        (COLOUR[:, :4, :4], COLOUR[:, :4, :4], ''),
        (COLOUR[:, :4, :4].transpose(0, 3, 1, 2), COLOUR[:, :4, :4], 'channels first'),
        (np.repeat(COLOUR, 2, axis=3), np.repeat(COLOUR, 2, axis=3), ''),
        (COLOUR / 255, COLOUR, 'float64 from 0 to 1'),
        ((COLOUR / 255).astype(np.float16), COLOUR, 'float16 from 0 to 1'),
        (COLOUR.astype(np.float32), COLOUR, 'whole numbers of float32'),
        (COLOUR.astype(np.int64), COLOUR, 'whole numbers of int64'),
        (COLOUR > 99, (COLOUR > 99) * 255, 'bool taken as 0 and 255'),
        ((COLOUR / 255).transpose(0, 3, 1, 2), COLOUR, 'first, [N C H W]; float64 from 0 to 1'),
        (np.asfortranarray(COLOUR), COLOUR, ''),
    ],
)
def test_images_of_a_certain_meaning_are_converted_with_a_note(tmp_path, given, expected, note):
    dataset = npz.load(write(tmp_path / 'a.npz', images=given))
    np.testing.assert_array_equal(dataset.arrays['image'], expected)
    assert len(dataset.notes) == bool(note)
    assert note in ''.join(dataset.notes)


@pytest.mark.parametrize(
    ('given', 'class_names', 'note'),
    [
        (LABELS[:, None], ('0', '1', '2'), '[6 1] taken as [N]'),
        (np.eye(3, dtype=bool)[LABELS], ('0', '1', '2'), '[6 3] taken as one-hot'),
        (np.eye(4)[LABELS], ('0', '1', '2', '3'), '[6 4] taken as one-hot'),
        (np.array(['cat', 'dog', 'eel'])[LABELS], ('cat', 'dog', 'eel'), 'alphabetical'),
        (np.array([b'cat', b'dog', b'eel'])[LABELS], ('cat', 'dog', 'eel'), '3 classes'),
        (np.array(['cat', 'dog', 'eel'])[LABELS][:, None], ('cat', 'dog', 'eel'), '3 classes'),
    ],
)
def test_labels_of_a_certain_meaning_are_converted_with_a_note(tmp_path, given, class_names, note):
    dataset = npz.load(write(tmp_path / 'a.npz', labels=given))
    np.testing.assert_array_equal(dataset.arrays['label'], LABELS)
    assert dataset.class_names == class_names
    assert len(dataset.notes) == 1 and note in dataset.notes[0]


def test_texts_as_labels_follow_the_class_names(tmp_path):
    names = np.array(['zoo', 'ape', 'bee'])
    dataset = npz.load(write(tmp_path / 'a.npz', labels=names[LABELS], class_names=names))
    np.testing.assert_array_equal(dataset.arrays['label'], LABELS)
    assert dataset.class_names == tuple(names)


def test_bool_labels(tmp_path):
    dataset = npz.load(write(tmp_path / 'a.npz', labels=LABELS > 0))
    assert (dataset.arrays['label'].tolist(), dataset.class_names) == (
        [0, 1, 1] * 2,
        ('False', 'True'),
    )


@pytest.mark.parametrize(
    ('of_images', 'of_labels'),
    [
        ('x_train', 'y_train'),
        ('X', 'y'),
        ('x', 'Y'),
        ('data', 'target'),
        ('image', 'label'),
        ('train_images', 'train_labels'),
        ('images', 'target'),
    ],
)
def test_other_names_of_the_arrays(tmp_path, of_images, of_labels):
    arrays = {of_images: IMAGES, of_labels: LABELS, 'x_test': IMAGES[:2], 'y_test': LABELS[:2]}
    np.savez(tmp_path / 'a.npz', **arrays)
    dataset = npz.load(tmp_path / 'a.npz')
    np.testing.assert_array_equal(dataset.arrays['image'], IMAGES)
    np.testing.assert_array_equal(dataset.arrays['label'], LABELS)
    assert dataset.notes == (
        f'Array {of_images!r} taken as the images, {of_labels!r} as the labels.',
    )


def test_several_candidates_are_listed(tmp_path):
    np.savez(tmp_path / 'a.npz', x=IMAGES, data=IMAGES, y=LABELS)
    with pytest.raises(ValueError, match=r"images may be any of 'data', 'x'.*int64 \[6\]"):
        npz.load(tmp_path / 'a.npz')
    # The documented name is certain, whatever stands beside it.
    np.savez(tmp_path / 'a.npz', images=IMAGES, x=IMAGES[:2], labels=LABELS, y=LABELS[:2])
    assert npz.load(tmp_path / 'a.npz').num_examples == 6


def test_what_was_found_is_listed_with_types_and_shapes(tmp_path):
    np.savez(tmp_path / 'a.npz', x=IMAGES, data=IMAGES, labels=LABELS, **{'\x1b[31m': LABELS})
    with pytest.raises(ValueError, match=r'data \(uint8 \[6, 5, 4, 1\]\)') as caught:
        npz.load(tmp_path / 'a.npz')
    assert str(caught.value).isprintable()


def archive(path, change):
    """The file with its bytes changed."""
    content = bytearray(write(path).read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def test_an_unknown_method_of_compression(tmp_path):
    def change(content):
        for signature, offset in ((b'PK\3\4', 8), (b'PK\1\2', 10)):
            at = content.index(signature) + offset
            content[at : at + 2] = (99).to_bytes(2, 'little')

    with pytest.raises(ValueError, match='method 99'):
        npz.load(archive(tmp_path / 'a.npz', change))


def header(text, *, payload=b''):
    """A `.npy` file with this header."""
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode() + payload


def described(shape, descr='|u1'):
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n"


def with_images(path, content, method=zipfile.ZIP_DEFLATED):
    np.savez(path, labels=LABELS)
    with zipfile.ZipFile(path, 'a', method) as file:
        file.writestr('images.npy', content)
    return path


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (header(described('(6, 100000, 100000, 3)'), payload=bytes(10)), '180,000,000,000'),
        (header(described(f'({10**30},)')), 'the shape'),
        (header(described(f'(0, {10**30})')), 'the shape'),
        (header(described('(-1,)')), 'the shape'),
        (header(described('(True, 2)')), 'the shape'),
        (header(described('(6,)', descr='O')), 'Python objects'),
        (header(described('(6,)', descr='U99999999999')), 'the type'),
        (header(described('(6,)', descr='U0')), 'the type'),
        (header(described('(6,)', descr='f4,O')), 'the type'),
        (header('(' * 200), 'levels deep'),
        (header('-' * 9_000 + '1'), 'no description'),
        (header('not ' * 2_000 + '1'), 'no description'),
        (header(''), 'no description'),
        (header('{}'), 'must hold'),
        (header("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (6,)}"), 'fields'),
        (b'\x93NUMPY\x02\x00\xff\xff\xff\x7f{', '2,147,483,647'),
        (b'\x93NUMPY\x09\x00', 'version 9'),
        (b'\x93NUMPY\x01\x00\xff\x00{', 'cut short'),
        (b'\x93NUM', 'does not begin'),
        (b'', 'does not begin'),
    ],
)
def test_headers_that_lie(tmp_path, content, message):
    path = with_images(tmp_path / 'a.npz', content)
    with pytest.raises(ValueError, match=f"'images' cannot be read .*{message}") as caught:
        npz.load(path)
    assert str(caught.value).isprintable()


def test_a_bomb_is_refused_before_it_is_expanded(tmp_path):
    size = 2**26
    path = with_images(
        tmp_path / 'a.npz', header(described(f'(1, {size}, 1)'), payload=bytes(size))
    )
    assert path.stat().st_size < 300_000
    tracemalloc.start()
    with pytest.raises(ValueError, match=f'claim to be {size // 10**6}'):
        npz.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize('name', ['labels', 'names', 'ids', 'class_names'])
@pytest.mark.parametrize('order', ['<', '>'])
def test_text_beyond_unicode(tmp_path, name, order):
    texts = np.full(6, 0x110000, f'{order}u4').view(f'{order}U1')
    with pytest.raises(ValueError, match=f"'{name}' cannot be read .*no text"):
        npz.load(write(tmp_path / 'a.npz', **{name: texts}))


def test_an_array_that_occurs_twice(tmp_path):
    path = write(tmp_path / 'a.npz')
    with zipfile.ZipFile(path, 'a') as file, pytest.warns(UserWarning, match='Duplicate'):
        file.writestr('images.npy', b'')
    with pytest.raises(ValueError, match='images more than once'):
        npz.load(path)
