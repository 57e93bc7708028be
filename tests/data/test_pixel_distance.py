"""Pixel distances and near-duplicates against loops."""

import numpy as np
import pytest

from influence_jax.data import Dataset, pixel_distance


def dataset_of(images, labels):
    return Dataset({'image': images, 'label': np.asarray(labels, np.int32)}, provenance='made up')


def pairs_by_loops(dataset, threshold):
    unit, labels = dataset.arrays['image'].astype(np.float64) / 255, dataset.arrays['label']
    return [
        (i, j)
        for i in range(len(unit))
        for j in range(i + 1, len(unit))
        if labels[i] == labels[j] and np.sqrt(np.mean((unit[i] - unit[j]) ** 2)) < threshold
    ]


def test_distances_by_hand():
    a = np.array([[0.0, 0.0], [1.0, 0.0]])
    b = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.5]])
    expected = np.sqrt(np.array([[0, 1, 0.125], [0.5, 0.5, 0.625]]))
    np.testing.assert_allclose(pixel_distance.rms_distances(a, b), expected, atol=1e-6)


def test_distances_over_several_tiles(monkeypatch):
    monkeypatch.setattr(pixel_distance, '_TILE', 4)
    rng = np.random.default_rng(0)
    a, b = rng.random((9, 50)), rng.random((6, 50))
    expected = np.sqrt(np.mean((a[:, None] - b[None]) ** 2, axis=-1))
    np.testing.assert_allclose(pixel_distance.rms_distances(a, b), expected, atol=1e-5)


@pytest.mark.parametrize('tile', [4, 512])
def test_near_duplicates_as_by_loops(monkeypatch, tile):
    monkeypatch.setattr(pixel_distance, '_TILE', tile)
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 256, (7, 4, 4, 3))
    noise = rng.integers(-40, 41, (21, 4, 4, 3))
    images = np.clip(np.tile(originals, (3, 1, 1, 1)) + noise, 0, 255).astype(np.uint8)
    labels = rng.integers(0, 2, 21)
    dataset = dataset_of(images, labels)
    for threshold in (0.05, 0.11, 0.13, 0.15, 1.0):
        pairs = pixel_distance.near_duplicates(dataset, threshold)
        assert [tuple(pair) for pair in pairs.tolist()] == pairs_by_loops(dataset, threshold)
    assert 0 < len(pairs_by_loops(dataset, 0.13)) < len(pairs_by_loops(dataset, 1.0))


def test_the_threshold_itself_is_exclusive_and_exact():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    images[1] = 15  # 15/255 apart
    images[2] = 200
    dataset = dataset_of(images, [0, 0, 0])
    distance = float(np.sqrt(np.float64(225)) / 255)
    assert len(pixel_distance.near_duplicates(dataset, distance)) == 0
    just_above = np.nextafter(distance, 1)
    assert pixel_distance.near_duplicates(dataset, just_above).tolist() == [[0, 1]]


def test_equal_images_of_different_classes_are_no_pair():
    dataset = dataset_of(np.full((3, 2, 2, 3), 200, np.uint8), [0, 1, 0])
    assert pixel_distance.near_duplicates(dataset).tolist() == [[0, 2]]


def test_no_pairs_have_the_shape_of_pairs():
    dataset = dataset_of(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), [0, 0])
    pairs = pixel_distance.near_duplicates(dataset)
    assert pairs.shape == (0, 2)
    assert not pixel_distance.has_near_duplicate(pairs, 2).any()


def test_has_near_duplicate():
    pairs = np.array([[0, 3], [3, 4]])
    np.testing.assert_array_equal(
        pixel_distance.has_near_duplicate(pairs, 6), [True, False, False, True, True, False]
    )


def test_one_of_each_cluster_is_the_first_whatever_joins_the_others():
    pairs = np.array([[1, 4], [4, 6], [2, 6], [3, 5]])  # 1-4-6-2 and 3-5
    kept = pixel_distance.one_of_each_cluster(pairs, 8)
    np.testing.assert_array_equal(kept, [0, 1, 3, 7])
    np.testing.assert_array_equal(pixel_distance.one_of_each_cluster(pairs[:, ::-1], 8), kept)
    everything = pixel_distance.one_of_each_cluster(np.empty((0, 2), np.int64), 3)
    np.testing.assert_array_equal(everything, [0, 1, 2])


def test_nothing_near_is_left_when_one_of_each_cluster_is():
    rng = np.random.default_rng(0)
    originals = rng.integers(40, 216, (5, 4, 4, 3))
    images = (np.tile(originals, (4, 1, 1, 1)) + rng.integers(-9, 10, (20, 4, 4, 3))).astype(
        np.uint8
    )
    dataset = dataset_of(images, [0] * 20)
    kept = pixel_distance.without_near_duplicates(dataset)
    assert kept.ids == tuple('01234')
    assert not len(pixel_distance.near_duplicates(kept))
    assert kept.provenance.startswith('made up; 15 near-duplicates of its own left out')
    assert pixel_distance.without_near_duplicates(kept).provenance == kept.provenance


def test_bad_input():
    with pytest.raises(ValueError, match='rows of one length'):
        pixel_distance.rms_distances(np.zeros((2, 3)), np.zeros((2, 4)))
    dataset = dataset_of(np.zeros((2, 1, 1, 1), np.uint8), [0, 0])
    for threshold in (0, -1, float('nan')):
        with pytest.raises(ValueError, match='must be above 0'):
            pixel_distance.near_duplicates(dataset, threshold)
    with pytest.raises(ValueError, match="no array 'image'"):
        pixel_distance.near_duplicates(Dataset({'x': np.zeros(2)}))
    with pytest.raises(ValueError, match='there are the examples 0 to 4'):
        pixel_distance.has_near_duplicate(np.array([[0, 5]]), 5)
    with pytest.raises(ValueError, match='name the examples -1 to 2'):
        pixel_distance.one_of_each_cluster(np.array([[-1, 2]]), 5)
