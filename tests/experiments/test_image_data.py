"""Which images an ensemble has, and the near-duplicates injected among them."""

import jax
import numpy as np
import pytest

from experiments import image_data, image_ensemble
from experiments.image_ensemble import ImageExperiment
from experiments.settings import DataSettings, EnsembleSettings, PlantingSettings
from influence_jax import data
from influence_jax.data.near_duplicates import ImageChange

KEY = jax.random.key(3)


def prepare(path, seed=0, num_examples=0, **injection):
    settings = DataSettings(str(path), num_examples=num_examples)
    return image_data.prepare(settings, PlantingSettings(**injection), key=KEY, seed=seed)


@pytest.fixture(scope='module')
def with_duplicates(images, tmp_path_factory):
    """The 48 images, the first two of which come twice more, a little brighter."""
    with np.load(images) as arrays:
        pixels, labels = arrays['images'], arrays['labels']
    again = [pixels[:2] // 2 + pixels[:2] // 2 + number for number in (1, 3)]
    path = tmp_path_factory.mktemp('images') / 'twice.npz'
    np.savez(
        path, images=np.concatenate([pixels, *again]), labels=np.append(labels, 2 * [*labels[:2]])
    )
    return path


def test_nothing_changes_where_nothing_is_injected(with_duplicates):
    loaded = data.load(str(with_duplicates))
    images = prepare(with_duplicates)
    assert images.groups is None
    assert images.fingerprint == loaded.fingerprint
    assert images.provenance == loaded.provenance
    assert images.descriptions == loaded.names
    some = np.sort(jax.random.permutation(KEY, 52)[:20])
    assert prepare(with_duplicates, num_examples=20).ids == loaded.take(some).ids


def test_all_others_are_written_once(images):
    source = data.load(str(images))
    injected = prepare(images, duplicated=4, copies=3, duplication=ImageChange.NOISE)
    _, sizes = np.unique(injected.groups, return_counts=True)
    assert sizes.tolist() == [1] * 44 + [3] * 4
    assert injected.num_examples == 44 + 4 * 3
    assert {name.partition('~')[0] for name in injected.ids} == set(source.ids)
    assert '44 unique examples and 4 in 3 versions each by noise' in injected.provenance
    assert 'left out' not in injected.provenance


def test_names_of_variants_say_what_was_changed(images):
    injected = prepare(images, duplicated=2, copies=3, unique=5)
    assert injected.num_examples == 5 + 2 * 3
    for name, known, change in zip(
        injected.descriptions, injected.names, injected.changes, strict=True
    ):
        assert name == (f'{change}: {known}' if change else known)
    assert sum(name.startswith('noise of ') for name in injected.descriptions) == 2 * 2


def test_near_duplicates_of_its_own_are_left_out_first(with_duplicates):
    injected = prepare(with_duplicates, duplicated=4, copies=2)
    assert injected.num_examples == 44 + 4 * 2
    numbers = {int(name.partition('~')[0][-5:]) for name in injected.ids}
    assert numbers == set(range(48))
    assert '4 near-duplicates of its own left out' in injected.provenance
    with pytest.raises(ValueError, match=r'unique=45 .* only 48 without near-duplicates of'):
        prepare(with_duplicates, duplicated=4, unique=45)


def test_injection_follows_the_seed_and_comes_after_the_choice_of_images(images):
    first, again, other = (prepare(images, seed=s, duplicated=4, copies=3) for s in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    few = prepare(images, num_examples=20, duplicated=4, copies=3)
    chosen = prepare(images, num_examples=20)
    assert {name.partition('~')[0] for name in few.ids} == set(chosen.ids)


def test_notes_survive_the_choice_of_images_and_injection(images, tmp_path):
    with np.load(images) as arrays:
        pixels, labels = arrays['images'], arrays['labels']
    path = tmp_path / 'first.npz'
    np.savez(path, images=pixels.transpose(0, 3, 1, 2), labels=labels)
    for settings in ({}, {'num_examples': 20}, {'duplicated': 4, 'copies': 3}):
        (note,) = prepare(path, **settings).notes
        assert '[48 3 8 8] taken as channels first' in note


@pytest.mark.parametrize(
    'arrays',
    [{'x': np.zeros((6, 2)), 'y': np.arange(6)}, {'images': np.zeros((6, 4, 4, 3), np.uint8)},
     {'image': np.zeros((6, 2)), 'label': np.arange(6)}],
)  # fmt: skip
def test_a_table_is_refused_with_what_images_look_like(tmp_path, arrays):
    np.savez(tmp_path / 'table.npz', **arrays)
    with pytest.raises(ValueError, match=r'table.npz: .*images \[N H W C\]') as caught:
        prepare(tmp_path / 'table.npz')
    assert '\n' not in str(caught.value)
    with pytest.raises(ValueError, match="no array 'label'"):
        prepare('wordnet')


def test_runs_of_one_data_seed_are_of_the_same_records(images, monkeypatch):
    class Trained(Exception):
        """Ends the launch where it would train."""

    def launched(**ensemble):
        given = []

        def train(task, dataset, **arguments):
            given.append((dataset.fingerprint, arguments['seed']))
            raise Trained

        monkeypatch.setattr(image_ensemble, 'train_ensemble', train)
        experiment = ImageExperiment(
            DataSettings(dataset=str(images), num_examples=20),
            EnsembleSettings(members=8, **ensemble),
            planting=PlantingSettings(duplicated=4, copies=2),
        )
        with pytest.raises(Trained):
            image_ensemble.run(experiment)
        return given[0]

    (first, _), (same, seed), (other, _) = (
        launched(),
        launched(seed=1, data_seed=0),
        launched(seed=1),
    )
    assert first == same != other
    assert seed == 1
    with pytest.raises(ValueError, match='data_seed must lie in 0'):
        EnsembleSettings(data_seed=-1)
