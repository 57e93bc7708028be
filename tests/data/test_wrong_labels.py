"""Planted wrong labels: how many, which, and that the dataset keeps which they are."""

import numpy as np
import pytest

from influence_jax.data import Dataset
from influence_jax.data.wrong_labels import plant_wrong_labels


def dataset(count=50, classes=3):
    labels = np.arange(count, dtype=np.int32) % classes
    return Dataset({'x': np.zeros((count, 2)), 'label': labels}, class_names='abc'[:classes])


def test_some_examples_get_another_label_and_are_marked():
    before = dataset()
    found = plant_wrong_labels(before, 0.2, seed=4)
    changed = found.array('label') != before.array('label')
    np.testing.assert_array_equal(changed, found.mislabelled)
    assert changed.sum() == 10
    assert found.array('label').dtype == np.int32
    assert found.array('label').max() < 3
    assert found.ids == before.ids
    assert found.labels == tuple('abc'[label] for label in found.array('label'))
    assert '10 labels were replaced' in found.provenance
    again = plant_wrong_labels(before, 0.2, seed=4)
    assert again.fingerprint == found.fingerprint != before.fingerprint
    assert plant_wrong_labels(before, 0.2, seed=5).fingerprint != found.fingerprint
    more = plant_wrong_labels(found, 0.2, seed=4)
    assert more.mislabelled.sum() == 20


@pytest.mark.parametrize('share', [0, 0.001, 1, -0.5])
def test_shares_that_change_nothing_or_all_are_refused(share):
    with pytest.raises(ValueError, match='wrong_labels'):
        plant_wrong_labels(dataset(), share, seed=0)


def test_one_class_or_no_labels_are_refused():
    with pytest.raises(ValueError, match='1 class'):
        plant_wrong_labels(dataset(classes=1), 0.2, seed=0)
    with pytest.raises(ValueError, match='label'):
        plant_wrong_labels(Dataset({'x': np.zeros(9)}), 0.2, seed=0)


def test_a_dataset_keeps_which_labels_are_wrong(tmp_path):
    marks = np.arange(6) == 2
    arrays = {'x': np.zeros((6, 2)), 'label': np.arange(6) % 2}
    found = Dataset(arrays, mislabelled=marks)
    assert found.take([2, 0]).mislabelled.tolist() == [True, False]
    assert found.fingerprint == Dataset(arrays).fingerprint  # it changes no result
    assert Dataset(arrays).mislabelled is None
    for wrong in (marks[:4], marks.astype(int)):
        with pytest.raises(ValueError, match='mislabelled must be 6'):
            Dataset(arrays, mislabelled=wrong)
    images = np.zeros((6, 4, 4, 3), np.uint8)
    for name, rest in (('table', arrays), ('images', {'images': images, 'labels': [0, 1] * 3})):
        np.savez(tmp_path / f'{name}.npz', mislabelled=marks, **rest)
        read = Dataset.from_npz(tmp_path / f'{name}.npz')
        np.testing.assert_array_equal(read.mislabelled, marks)
        assert 'mislabelled' not in read.arrays
