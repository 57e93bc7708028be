"""Masks and losses of anybody: what is read, what is refused and how, and what is left out."""

import json
import os
import pickle
import struct

import numpy as np
import pytest

from influence_jax import estimators, tensors
from influence_jax.data.sources import array_files

M, N, T = 40, 6, 6
IDS = ['=cmd()', 'two', '<b>three</b>', 'four\x1b[2J', 'five', 'six']


def drawn(members=M, examples=N, targets=T):
    """Masks with every example on both sides, and losses that each own example lowers by 2."""
    rng = np.random.default_rng(0)
    masks = rng.random((members, examples)) < 0.5
    masks[:2], masks[2:4] = True, False
    losses = rng.normal(3, 0.1, (members, targets))
    shared = min(examples, targets)
    losses[:, :shared] -= 2 * masks[:, :shared]
    return masks, losses.astype(np.float32)


@pytest.fixture
def saved(tmp_path):
    """Saves arrays as files and gives the arguments that ask for them."""

    def save(masks=None, losses=None, **settings):
        good = drawn()
        for name, value, default in (
            ('masks', masks, good[0]),
            ('losses', losses, good[1]),
        ):
            np.save(tmp_path / f'{name}.npy', default if value is None else value)
        files = {name: str(tmp_path / f'{name}.npy') for name in ('masks', 'losses')}
        return files | settings

    return save


@pytest.fixture
def listed(tmp_path):
    """A file of ids, in the form that its ending says."""

    def save(ids, name='ids.json'):
        path = tmp_path / name
        if path.suffix == '.json':
            path.write_text(json.dumps(ids))
        elif path.suffix == '.npy':
            np.save(path, np.array(ids))
        else:
            path.write_text(''.join(f'{one}\n' for one in ids), newline='')
        return str(path)

    return save


def changed(array, at, value):
    array = array.copy()
    array[at] = value
    return array


def _header(text):
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode()


_DESCRIBED = "{{'descr': '|b1', 'fortran_order': False, 'shape': (40, {})}}"
MASKS, LOSSES = drawn()
NAN = float('nan')


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'masks': MASKS.astype(np.uint8)}, r'holds uint8, not booleans: save masks\.astype'),
        ({'masks': MASKS[0]}, r'must hold a matrix \[members examples\], not one of \[6\]'),
        ({'masks': MASKS[:, :0]}, r'not one of \[40, 0\]'),
        ({'masks': MASKS[1:]}, 'has 39 rows and .* 40: rows are members'),
        ({'masks': MASKS.T}, 'has 6 rows and .* 40: rows are members'),
        ({'masks': changed(MASKS, np.s_[:, 2], False)}, "1 of 6 .*in none: '2'.*5 can be"),
        ({'masks': changed(MASKS, np.s_[:, 2:4], True)}, "2 of 6 .*in all: '2', '3'.*4 can be"),
        ({'masks': changed(MASKS, np.s_[1:, 0], False)}, "in only one: '0'.*drop_inestimable"),
        ({'masks': changed(MASKS, np.s_[:, 0], np.arange(M) > 0)}, "out of only one: '0'"),
        ({'masks': np.zeros_like(MASKS)}, '6 of 6 .*other 0 can be.*; draw subsets'),
        ({'losses': (LOSSES * 100).astype(int)}, r'holds int64, .*: save losses\.astype'),
        ({'losses': LOSSES.astype(complex)}, 'holds complex128'),
        ({'losses': LOSSES[:, 0]}, r'must hold a matrix \[members targets\], not one of \[40\]'),
        ({'losses': changed(LOSSES, np.s_[:, 3], NAN)}, "target '3' has no finite loss"),
        ({'losses': changed(LOSSES, np.s_[:, 3], np.inf)}, "target '3' has no finite loss"),
        ({'losses': np.full_like(LOSSES, NAN)}, 'all losses are NaN'),
        ({'losses': changed(LOSSES, np.s_[3:, 3], -np.inf)}, "3 of 40 .*target '3' there are 3"),
        ({'masks': MASKS[:3], 'losses': LOSSES[:3]}, '3 of 3 members .* at least 4'),
    ],
)
def test_arrays_that_cannot_be_used(saved, arrays, message):
    with pytest.raises(ValueError, match=message) as refused:
        tensors.as_run(**saved(**arrays))
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize('name', ['masks', 'losses'])
@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda path: path.unlink(), 'no such file'),
        (lambda path: (path.unlink(), path.mkdir()), 'is a directory'),
        (lambda path: (path.unlink(), os.mkfifo(path)), 'is a pipe'),
        (lambda path: (path.unlink(), path.symlink_to('/dev/zero')), 'is a device'),
        (lambda path: path.write_bytes(_header('(' * 200)), 'levels deep'),
        (lambda path: path.write_bytes(_header(f'{(10**6,) * 9}')), 'is damaged'),
        (lambda path: path.write_bytes(_header(_DESCRIBED.format(10**12))), 'is cut short'),
        (lambda path: path.write_bytes(b''), 'is empty'),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), 'is cut short.*copy or save it'),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), 'is damaged|cannot be read'),
        (lambda path: path.write_bytes(path.read_bytes()[:7]), 'is damaged|cannot be read'),
        (lambda path: path.write_bytes(path.read_bytes() + b'12'), 'holds 2 bytes after'),
        (lambda path: path.write_bytes(path.read_bytes().replace(b'shape', b'sharp')), 'damaged'),
        (lambda path: path.write_bytes(pickle.dumps([1])), 'is a pickle, which could run code'),
        (lambda path: path.write_text('1,2'), r'is not a \.npy file'),
        (lambda path: path.write_bytes(b'PK\x03\x04'), r'is an archive .*numpy\.save'),
        (
            lambda path: np.save(path, np.array([[print]]), allow_pickle=True),
            r'Python objects.*save (masks|losses)\.astype',
        ),
    ],
)
def test_files_that_cannot_be_used(saved, tmp_path, name, damage, message):
    settings = saved()
    damage(tmp_path / f'{name}.npy')
    with pytest.raises((ValueError, OSError), match=f'{name}.npy:? .*({message})') as refused:
        tensors.as_run(**settings)
    assert '\n' not in str(refused.value)


def test_a_pickle_is_not_run(saved, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath('sprung').write_text, ('yes',))

    settings = saved()
    np.save(settings['masks'], np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(ValueError, match='Python objects'):
        tensors.as_run(**settings)
    assert not (tmp_path / 'sprung').exists()


@pytest.mark.parametrize('name', ['ids.json', 'ids.npy', 'ids.txt'])
@pytest.mark.parametrize('ids', [IDS, [4, 0, 7, 5, 3, 1]])
def test_ids_come_in_three_forms(listed, name, ids):
    path = listed(ids, name)
    assert array_files.ids(path, what='example', expected=6) == tuple(map(str, ids))


def test_ids_of_a_text_file_keep_what_only_looks_like_an_end_of_line(tmp_path):
    path = tmp_path / 'ids.txt'
    path.write_bytes('\ufeffa b\r\n c\u2028d\nlast'.encode())
    assert array_files.ids(str(path), what='member', expected=3) == ('a b', ' c\u2028d', 'last')


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('ids.txt', b'a\nb\n', 'holds 2 example ids, but there are 3 examples'),
        ('ids.txt', b'', 'holds 0 example ids'),
        ('ids.txt', b'a\nb\na\n', r"example id 'a' occurs twice, at 0 and at 2"),
        ('ids.txt', b'a\n\nc\n', 'example id 1 is empty'),
        ('ids.txt', b'\xff\xfe', 'no UTF-8 text'),
        ('ids.json', b'["a", "b"', 'not JSON'),
        ('ids.json', b'[' * 100_000, 'not JSON'),
        ('ids.json', b'{"a": 1}', 'must hold one list'),
        ('ids.json', b'["a", "b", true]', 'must hold one list of texts or integers'),
        ('ids.json', b'["a", "b", "\\ud800"]', 'no text'),
        ('ids.json', b'["a", "a", NaN]', 'NaN'),
        ('ids.txt', b'x' * 2**20 + b'\n' + b'x' * 2**20 + b'\nz', r'occurs twice, at 0 and at 1'),
        ('ids.npy', b'["a"]', r'is not a \.npy file'),
    ],
)
def test_ids_that_cannot_be_used(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        array_files.ids(str(path), what='example', expected=3)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize('name', ['ids.txt', 'ids.json', 'ids.npy'])
def test_ids_are_not_read_from_a_pipe(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match='is a pipe'):
        array_files.ids(str(tmp_path / name), what='example', expected=3)


@pytest.mark.parametrize('values', [np.eye(3), np.arange(3.0), np.array([b'a', b'b', b'c'])])
def test_ids_that_are_no_vector_of_names(tmp_path, values):
    np.save(tmp_path / 'ids.npy', values)
    with pytest.raises(ValueError, match='vector of texts or integers'):
        array_files.ids(str(tmp_path / 'ids.npy'), what='example', expected=3)


@pytest.mark.parametrize('code', [0xD800, 0x110000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_ids_of_no_text(tmp_path, code):
    np.save(tmp_path / 'ids.npy', np.array([65, 66, code], np.uint32).view('U1'))
    with pytest.raises(ValueError, match='no text'):
        array_files.ids(str(tmp_path / 'ids.npy'), what='example', expected=3)


@pytest.mark.parametrize('axis', ['ids', 'target_ids', 'member_ids'])
def test_every_axis_has_ids_of_its_own(saved, listed, axis):
    what = {'ids': 'example', 'target_ids': 'target', 'member_ids': 'member'}[axis]
    with pytest.raises(ValueError, match=rf"{what} id 'a\\x1b' occurs twice"):
        count = M if axis == 'member_ids' else N
        tensors.as_run(**saved(**{axis: listed(['a\x1b', 'a\x1b', *range(count - 2)])}))


def test_members_left_out_are_named(saved, listed):
    losses = LOSSES.copy()
    losses[[5, 7]] = NAN
    losses[9, 2] = np.inf
    members = listed([f'm{i}' for i in range(M)])
    notes = tensors.as_run(**saved(losses=losses, member_ids=members)).shown.notes
    assert len(notes) == 2
    assert (
        "2 of 40 members, because nothing was measured of them (rows of NaN): 'm5', 'm7'"
        in notes[0]
    )
    assert '1 of 40 members' in notes[1] and 'infinite' in notes[1] and "'m9'" in notes[1]


def test_targets_are_examples_by_name(saved, listed):
    ids = listed(list('abcdef'))
    both = tensors.as_run(**saved(ids=ids))
    assert both.target_ids == both.example_ids == tuple('abcdef')
    np.testing.assert_array_equal(both.target_examples, range(6))
    moved = tensors.as_run(**saved(ids=ids, target_ids=listed(list('fazbyx'), 'targets.json')))
    np.testing.assert_array_equal(moved.target_examples, [5, 0, -1, 1, -1, -1])
    by_position = tensors.as_run(**saved(losses=LOSSES[:, :2], target_ids=listed([4, 1], 't.npy')))
    np.testing.assert_array_equal(by_position.target_examples, [4, 1])


def test_targets_without_names_in_common_are_no_examples(saved, listed):
    fewer = tensors.as_run(**saved(losses=LOSSES[:, :2]))
    np.testing.assert_array_equal(fewer.target_examples, [-1, -1])
    assert '2 targets and 6 examples without ids in common' in fewer.shown.notes[0]
    other = tensors.as_run(**saved(target_ids=listed(IDS)))
    assert (other.target_examples == -1).all()
    assert 'no target has the id of an example' in other.shown.notes[0]


def test_inestimable_examples_can_be_left_out(saved, listed):
    masks = changed(changed(MASKS, np.s_[:, 1], True), np.s_[1:, 4], False)
    given = tensors.as_run(**saved(masks=masks, ids=listed(list('abcdef')), drop_inestimable=True))
    assert given.example_ids == tuple('acdf')
    assert given.target_ids == tuple('abcdef')
    np.testing.assert_array_equal(given.masks, masks[:, [0, 2, 3, 5]])
    np.testing.assert_array_equal(given.target_examples, [0, -1, 1, 2, -1, 3])
    assert "in all: 'b'; in only one: 'e'" in given.shown.notes[0]


def test_whether_an_example_is_estimable_depends_on_the_members_used(saved):
    masks, losses = MASKS.copy(), LOSSES.copy()
    masks[:, 3] = np.arange(M) < 20
    losses[:19] = NAN
    with pytest.raises(ValueError, match="in only one: '3'"):
        tensors.as_run(**saved(masks=masks, losses=losses))


def test_big_endian_fortran_order_and_doubles_are_read(saved):
    expected = estimators.difference_in_means(*drawn())
    for masks, losses in (
        (np.asfortranarray(MASKS), np.asfortranarray(LOSSES)),
        (MASKS, LOSSES.astype('>f8')),
    ):
        given = tensors.as_run(**saved(masks=masks, losses=losses))
        found = estimators.difference_in_means(given.masks, given.measurement())
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)


def test_rows_that_were_never_written_are_refused_by_name(saved, listed):
    masks, losses = changed(MASKS, [7, 9], False), changed(LOSSES, [7, 9], 0)
    members = listed([f'm{i}' for i in range(M)])
    with pytest.raises(ValueError, match=r"2 of 40 members .*'m7', 'm9'.*NaN"):
        tensors.as_run(**saved(masks=masks, losses=losses, member_ids=members))


def test_losses_that_were_never_written_are_refused_though_the_masks_were(saved):
    with pytest.raises(ValueError, match=r"2 of 40 members .*'7', '9'.*NaN"):
        tensors.as_run(**saved(losses=changed(LOSSES, [7, 9], 0)))


def test_masks_of_other_numbers_than_0_and_1_are_not_to_be_cast(saved):
    with pytest.raises(ValueError, match='such as -1, 1') as error:
        tensors.as_run(**saved(masks=np.where(MASKS, 1, -1)))
    assert 'astype' not in str(error.value)
    with pytest.raises(ValueError, match='astype'):
        tensors.as_run(**saved(masks=MASKS.astype(int)))


def test_arrays_and_their_files_are_the_same_run(saved):
    from_files = tensors.as_run(**saved(), ids=list('abcdef'))
    from_arrays = tensors.as_run(MASKS, LOSSES, ids=list('abcdef'))
    assert from_files.example_ids == from_arrays.target_ids == tuple('abcdef')
    np.testing.assert_array_equal(from_files.masks, from_arrays.masks)
    np.testing.assert_array_equal(from_files.measurement(), from_arrays.measurement())
    assert from_arrays.shown.names == tuple('abcdef')


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'masks': MASKS.astype(int)}, 'masks holds int64, not booleans'),
        ({'losses': LOSSES[1:]}, 'masks has 40 rows and losses 39'),
        ({'ids': ['a'] * 6}, "example ids: example id 'a' occurs twice"),
        ({'target_ids': ['a']}, 'holds 1 target ids, but there are 6'),
    ],
)
def test_arrays_are_named_as_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        tensors.as_run(**{'masks': MASKS, 'losses': LOSSES} | given)


def test_half_of_a_surrogate_pair_is_no_id(listed):
    ids = ['a', 'b\ud800', 'c', 'd', 'e', 'f']
    with pytest.raises(ValueError, match=r"example id 1 \('b\\ud800'\).*no text"):
        array_files.ids(listed(ids), what='example', expected=6)
    with pytest.raises(ValueError, match=r"member ids: member id 1 \('b\\ud800'\)"):
        array_files.check_ids(ids, source='member ids', what='member', expected=6)
