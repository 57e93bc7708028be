"""Dataset: what it takes and refuses, its fingerprint, and subsets of it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.data import Dataset

TEXT = np.dtypes.StringDType()


def make(arrays=None, **changes):
    images = np.arange(5 * 4 * 3 * 3, dtype=np.uint8).reshape(5, 4, 3, 3)
    given = {'image': images, 'label': np.array([0, 1, 2, 0, 1], np.int32)}
    fields = {
        'ids': ('a', 'b', 'c', 'd', 'e'),
        'class_names': ('x', 'y', 'z'),
        'name': 'toy',
    }
    return Dataset({**given, **(arrays or {})}, **{**fields, **changes})


def texts(completions=(' x', ' y', 'plain', ' z'), **changes):
    arrays = {
        'prompt': np.array(['Q: a A:', 'Q: a A:', '', 'Q: b A:'], TEXT),
        'completion': np.array(completions, TEXT),
    }
    fields = {
        'ids': ('a', 'a~1', 'b', 'c'),
        'groups': [7, 7, 2, 0],
        'changes': ('', 'another answer', '', ''),
        'provenance': 'made up',
    }
    return Dataset(arrays, **{**fields, **changes})


def test_arrays_alone_are_enough():
    dataset = Dataset({'x': np.zeros((3, 2))})
    assert len(dataset) == dataset.num_examples == 3
    assert dataset.ids == dataset.names == ('0', '1', '2')
    assert dataset.labels == dataset.changes == ('', '', '')
    assert dataset.groups is None and not dataset.has_near_duplicate.any()
    assert dataset.is_original.all()


def test_any_pytree_keeps_its_structure():
    nested = {'pair': (np.zeros((2, 3)), np.ones(2, bool)), 'more': {'z': np.arange(2)}}
    taken = Dataset(nested).take([1])
    assert taken.arrays['pair'][0].shape == (1, 3)
    assert taken.arrays['more']['z'].tolist() == [1]
    assert Dataset(np.arange(4)).take([3, 0]).arrays.tolist() == [3, 0]
    assert isinstance(Dataset({'x': jnp.zeros(2)}).arrays['x'], np.ndarray)


def test_labels_are_class_names_or_numbers():
    assert make().labels == ('x', 'y', 'z', 'x', 'y')
    assert make().num_classes == 3
    assert make(class_names=()).labels == ('0', '1', '2', '0', '1')
    assert make(labels=tuple('pqrst')).labels == tuple('pqrst')
    assert make({'label': np.zeros(5)}).labels == ('',) * 5


@pytest.mark.parametrize(
    ('arrays', 'changes', 'message'),
    [
        ({'label': np.zeros(4, np.int32)}, {}, "differ in length: 'image' has 5 .* 'label' has 4"),
        ({'image': [[0.0]] * 5}, {}, "'image/0/0' is of type float, not a numpy array"),
        ({'image': np.array([None] * 5)}, {}, "'image' holds Python objects"),
        ({'image': np.zeros(5, [('a', int), ('b', int)])}, {}, "'image' holds .* records"),
        ({'label': np.int32(3)}, {}, "'label' is of type int32"),
        ({'label': np.array(3)}, {}, "'label' is a single value"),
        ({'label': np.array([0, 1, 2, 3, 1])}, {}, 'label 3 of example 3 is out of range'),
        ({'label': np.array([0, -1, 2, 0, 1])}, {}, 'label -1 of example 1 is out of range'),
        ({}, {'ids': ('a', 'b', 'c', 'd')}, 'ids must number 5, one an example; found 4'),
        ({}, {'ids': ('a', 'b', 'c', 'd', 'b')}, "the id 'b' occurs more than once"),
        ({}, {'ids': iter(range(5))}, 'ids must be texts, found 0'),
        ({}, {'names': ('a', 'b')}, 'names must number 5, .* found 2'),
        ({}, {'names': ('\ud800',) * 5}, r"names holds '\\ud800', which is no valid text"),
        ({}, {'labels': ('a', 'b')}, 'labels must number 5, .* found 2'),
        ({}, {'changes': ('', '')}, 'changes must number 5'),
        ({}, {'groups': [0, 1]}, r'groups must be 5 integers, .* of shape \(2,\)'),
        ({}, {'groups': np.zeros(5)}, 'groups must be 5 integers, .* found float64'),
        ({}, {'class_names': ('x', 'y', 'x')}, "the class name 'x' occurs more than once"),
    ],
)
def test_bad_parts_are_refused_in_one_line(arrays, changes, message):
    with pytest.raises(ValueError, match=f"dataset 'toy': .*{message}") as caught:
        make(arrays, **changes)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [({}, 'no arrays'), ({'x': np.zeros((0, 3))}, 'no examples'), ({'x': None}, 'no arrays')],
)
def test_nothing_is_no_dataset(arrays, message):
    with pytest.raises(ValueError, match=message):
        Dataset(arrays)


def test_arrays_are_read_only_without_touching_the_callers():
    images, groups = np.zeros((5, 4, 3, 3), np.uint8), np.zeros(5, np.int32)
    dataset = make({'image': images}, groups=groups)
    for array in (*dataset.arrays.values(), dataset.groups):
        with pytest.raises(ValueError, match='read-only'):
            array[0] = 1
    assert images.flags.writeable
    groups[0] = 5
    assert dataset.groups[0] == 0
    given = {'x': np.zeros(2)}
    dataset = Dataset(given)
    given['y'] = np.zeros(3)
    assert list(dataset.arrays) == ['x']


def test_fingerprint_is_of_content_not_of_memory_layout():
    images = make().arrays['image']
    strided = make({'image': np.asfortranarray(images)})
    swapped = make({'label': np.array([0, 1, 2, 0, 1], '>i4')})
    assert strided.fingerprint == swapped.fingerprint == make().fingerprint
    assert len(make().fingerprint) == 64
    fixed_width = Dataset({'x': np.array(['a', 'bcd'])})
    assert fixed_width.fingerprint == Dataset({'x': np.array(['a', 'bcd'], TEXT)}).fingerprint


def test_the_fingerprint_is_the_same_for_ever():
    # Runs name their dataset by it.
    dataset = Dataset({'x': np.arange(3, dtype='f4'), 'y': np.array(list('abc'))}, groups=[0, 1, 0])
    assert dataset.fingerprint.startswith('6a71fe1e626b')


@pytest.mark.parametrize(
    ('arrays', 'changes'),
    [
        ({'image': make().arrays['image'][::-1]}, {}),
        ({'image': make().arrays['image'].reshape(5, 3, 4, 3)}, {}),
        ({'label': np.array([0, 1, 2, 0, 2], np.int32)}, {}),
        ({'label': np.array([0, 1, 2, 0, 1], np.uint32)}, {}),
        ({'more': np.zeros(5)}, {}),
        ({}, {'ids': ('a', 'b', 'c', 'd', 'f')}),
        ({}, {'ids': ('ab', '', 'c', 'd', 'e')}),
        ({}, {'groups': range(5)}),
    ],
)
def test_fingerprint_tells_contents_apart(arrays, changes):
    assert make(arrays, **changes).fingerprint != make().fingerprint


@pytest.mark.parametrize(
    'changes',
    [
        {'completions': (' x', ' y', 'plain', ' w')},
        # The same bytes in a row, cut elsewhere.
        {'completions': (' x ', 'y', 'plain', ' z')},
        {'ids': ('a', 'a~', '1b', 'c')},
        {'groups': [7, 7, 2, 2]},
        {'groups': None},
    ],
)
def test_fingerprint_of_texts(changes):
    assert texts(**changes).fingerprint != texts().fingerprint


def test_fingerprint_leaves_out_what_changes_no_result():
    other = dataclasses.replace(
        make(), names=tuple('ABCDE'), labels=tuple('pqrst'), provenance='elsewhere', notes=('n',)
    )
    assert other.fingerprint == make().fingerprint
    assert texts(changes=(), name='other').fingerprint == texts().fingerprint


def test_near_duplicates_are_examples_of_one_group():
    assert texts().has_near_duplicate.tolist() == [True, True, False, False]
    assert texts().is_original.tolist() == [True, False, True, True]
    # Of a group, a single record is left.
    assert not texts().take([1, 2]).has_near_duplicate.any()


def test_descriptions_say_of_variants_what_was_changed():
    assert texts().descriptions == ('a', 'another answer: a~1', 'b', 'c')


def test_texts_are_prompts_with_their_completions():
    assert texts().texts == ('Q: a A: x', 'Q: a A: y', 'plain', 'Q: b A: z')
    assert texts().has_texts and not make().has_texts
    with pytest.raises(
        ValueError, match=r"no array 'prompt'.*image uint8 \[5 4 3 3\], label int32"
    ):
        _ = make().texts


def test_it_is_shown_in_a_line():
    shown = repr(make())
    assert shown == "Dataset('toy', 5 examples: image uint8 [5 4 3 3], label int32 [5])"
    assert 'prompt text [4]' in repr(texts())


def test_take_keeps_what_belongs_to_each_example():
    dataset = make(names=tuple('ABCDE'), groups=range(5))
    part = dataset.take(np.array([3, 0]))
    assert (part.ids, part.names, part.labels) == (('d', 'a'), ('D', 'A'), ('x', 'x'))
    assert part.class_names == dataset.class_names
    np.testing.assert_array_equal(part.arrays['image'], dataset.arrays['image'][[3, 0]])
    assert part.groups.tolist() == [3, 0]
    assert part.fingerprint != dataset.fingerprint
    taken = texts().take([2, 1])
    assert taken.texts == ('plain', 'Q: a A: y')
    assert taken.changes == ('', 'another answer')
    assert (taken.name, taken.provenance) == ('dataset', 'made up')
    assert texts().take(range(4)).fingerprint == texts().fingerprint


@pytest.mark.parametrize(
    ('indices', 'message'),
    [
        ([0, 5], 'run from 0 to 5, but .* has the examples 0 to 4'),
        ([-1, 2], 'run from -1 to 2'),
        ([1, 1], "the id 'b' occurs more than once"),
        ([], 'non-empty vector of integers'),
        ([0.0, 1.0], 'non-empty vector of integers; found float64'),
        ([True, False, True, True, True], 'found bool'),
        ([[0, 1]], r'of shape \(1, 2\)'),
    ],
)
def test_take_refuses_bad_indices(indices, message):
    with pytest.raises(ValueError, match=message):
        make().take(np.array(indices))
