"""ImageDataset: what it refuses, its fingerprint, and subsets of it."""

import dataclasses

import numpy as np
import pytest

from influence_jax.data import ImageDataset


def make(**changes):
    fields = {
        'name': 'toy',
        'images': np.arange(5 * 4 * 3 * 3, dtype=np.uint8).reshape(5, 4, 3, 3),
        'labels': np.array([0, 1, 2, 0, 1], np.int32),
        'ids': ('a', 'b', 'c', 'd', 'e'),
        'class_names': ('x', 'y', 'z'),
    }
    return ImageDataset(**{**fields, **changes})


def test_counts_and_default_names():
    dataset = make()
    assert dataset.num_examples == 5
    assert dataset.num_classes == 3
    assert dataset.names == dataset.ids


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'images': np.zeros((5, 4, 3, 3), np.float32)}, 'must be uint8 .* found float32'),
        ({'images': [[[[0]]]] * 5}, 'must be uint8 .* found list'),
        ({'images': np.zeros((5, 4, 3), np.uint8)}, r'shape \[N H W C\], found \(5, 4, 3\)'),
        ({'images': np.zeros((5, 0, 3, 3), np.uint8)}, 'no images or no pixels'),
        ({'labels': np.array([0, 1, 2, 0, 1])}, 'labels must be int32, found int64'),
        ({'labels': [0, 1, 2, 0, 1]}, 'labels must be int32, found list'),
        ({'labels': np.zeros(4, np.int32)}, 'one for each of the 5 images'),
        ({'labels': np.zeros((5, 1), np.int32)}, 'one for each of the 5 images'),
        ({'labels': np.array([0, 1, 2, 3, 1], np.int32)}, 'label 3 of image 3 is out of range'),
        ({'labels': np.array([0, -1, 2, 0, 1], np.int32)}, 'label -1 of image 1 is out of range'),
        ({'ids': ('a', 'b', 'c', 'd')}, 'ids must number 5, found 4'),
        ({'ids': ('a', 'b', 'c', 'd', 'b')}, "the id 'b' occurs more than once"),
        ({'ids': (0, 1, 2, 3, 4)}, 'ids must be a tuple of str'),
        ({'names': ('a', 'b')}, 'names must number 5, found 2'),
        ({'class_names': ['x', 'y', 'z']}, 'class_names must be a tuple of str'),
        ({'class_names': ('x', 'y', 'x')}, "the class name 'x' occurs more than once"),
    ],
)
def test_bad_parts_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=f"dataset 'toy': .*{message}") as caught:
        make(**changes)
    assert '\n' not in str(caught.value)


def test_arrays_are_read_only_without_touching_the_callers():
    images = np.zeros((5, 4, 3, 3), np.uint8)
    dataset = make(images=images)
    with pytest.raises(ValueError, match='read-only'):
        dataset.images[0] = 1
    with pytest.raises(ValueError, match='read-only'):
        dataset.labels[0] = 1
    assert images.flags.writeable


def test_fingerprint_is_of_content_not_of_memory_layout():
    images = make().images
    strided = np.asfortranarray(images)
    assert make(images=strided).fingerprint == make().fingerprint
    assert len(make().fingerprint) == 64


@pytest.mark.parametrize(
    'changes',
    [
        {'images': make().images[::-1]},
        {'images': make().images.reshape(5, 3, 4, 3)},
        {'labels': np.array([0, 1, 2, 0, 2], np.int32)},
        {'ids': ('a', 'b', 'c', 'd', 'f')},
        {'ids': ('ab', '', 'c', 'd', 'e')},
    ],
)
def test_fingerprint_tells_contents_apart(changes):
    assert make(**changes).fingerprint != make().fingerprint


def test_fingerprint_leaves_out_what_changes_no_result():
    other = dataclasses.replace(make(), names=('A', 'B', 'C', 'D', 'E'), provenance='elsewhere')
    assert other.fingerprint == make().fingerprint


def test_take_keeps_ids_and_order():
    dataset = make(names=('A', 'B', 'C', 'D', 'E'))
    part = dataset.take(np.array([3, 0]))
    assert part.ids == ('d', 'a')
    assert part.names == ('D', 'A')
    assert part.class_names == dataset.class_names
    np.testing.assert_array_equal(part.images, dataset.images[[3, 0]])
    np.testing.assert_array_equal(part.labels, dataset.labels[[3, 0]])
    assert part.fingerprint != dataset.fingerprint


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
