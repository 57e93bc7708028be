"""The embedded clip art: numbers known of it."""

import importlib.resources

import numpy as np

from influence_jax.data import Dataset, pixel_distance


def test_what_it_holds():
    dataset = Dataset.clipart()
    assert dataset.arrays['image'].shape == (1567, 32, 32, 3)
    np.testing.assert_array_equal(
        np.bincount(dataset.arrays['label']), [200, 200, 200, 103, 200, 200, 200, 104, 160]
    )
    assert dataset.class_names[0] == 'animals'
    assert dataset.class_names[6] == 'signs_and_symbols'
    assert dataset.name == 'clipart'
    assert dataset.ids[42] == 'clipart-00042'
    assert all(
        name.startswith(label) for name, label in zip(dataset.names, dataset.labels, strict=True)
    )
    assert 'public domain' in dataset.provenance


def test_pictures_are_centred_on_white():
    images = Dataset.clipart().arrays['image']
    assert np.median(images[:, [0, 0, -1, -1], [0, -1, 0, -1]]) == 255


def test_ids_and_fingerprint_are_stable():
    # Runs recorded with an earlier version name their examples by these.
    assert Dataset.clipart().fingerprint.startswith('334e95a968ee')


def test_near_duplicates_as_published():
    dataset = Dataset.clipart()
    pairs = pixel_distance.near_duplicates(dataset)
    assert pixel_distance.has_near_duplicate(pairs, dataset.num_examples).sum() == 132


def test_provenance_and_licence_travel_with_it():
    readme = importlib.resources.files('influence_jax.data') / 'embedded' / 'README.md'
    text = readme.read_text(encoding='utf-8')
    assert 'Provenance' in text
    assert 'ublic domain' in text
