"""The images of an ensemble: which of them, and the near-duplicates planted among them."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int32

from experiments.settings import DataSettings, PlantingSettings
from influence_jax import data
from influence_jax.data.near_duplicates import plant_images
from influence_jax.data.pixel_distance import near_duplicates, one_of_each_cluster
from influence_jax.types import PRNGKey


class Images(NamedTuple):
    """What members train on, and what is known of near-duplicates among it.

    dataset: N images.
    groups: `[N]` the same number for an original and its variants; None where none were planted.
    changes: of each image how it differs from its original; '' for originals.
    """

    dataset: data.ImageDataset
    groups: Int32[np.ndarray, ' N'] | None
    changes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What a person would call each image; of a variant first of all what was changed."""
        named = zip(self.changes, self.dataset.names, strict=True)
        return tuple(f'{change}: {name}' if change else name for change, name in named)


def prepare(
    settings: DataSettings, planting: PlantingSettings, *, key: PRNGKey, seed: int
) -> Images:
    """Reads the source, chooses images with the key and plants near-duplicates with the seed."""
    dataset = _chosen(settings, key=key)
    if not planting.duplicated:
        return Images(dataset, None, ('',) * dataset.num_examples)
    dataset = _without_near_duplicates(dataset)
    unique = planting.unique or max(0, dataset.num_examples - planting.duplicated)
    if unique + planting.duplicated > dataset.num_examples:
        raise ValueError(
            f'--unique={planting.unique} and --duplicated={planting.duplicated} take '
            f'{unique + planting.duplicated} different images, but there are only '
            f'{dataset.num_examples} here without near-duplicates of their own; ask for fewer'
        )
    return Images(
        *plant_images(
            dataset,
            planting.duplication,
            unique=unique,
            duplicated=planting.duplicated,
            copies=planting.copies,
            seed=seed,
        )
    )


def _chosen(settings: DataSettings, *, key: PRNGKey) -> data.ImageDataset:
    folder = None if settings.data_dir is None else Path(settings.data_dir)
    dataset = data.load(settings.dataset, data_dir=folder)
    if not settings.num_examples:
        return dataset
    if settings.num_examples > dataset.num_examples:
        raise ValueError(
            f'--num_examples={settings.num_examples}, but {settings.dataset} has only '
            f'{dataset.num_examples} images here; ask for at most that many'
        )
    chosen = jax.random.permutation(key, dataset.num_examples)[: settings.num_examples]
    return dataset.take(np.sort(chosen))


def _without_near_duplicates(dataset: data.ImageDataset) -> data.ImageDataset:
    """One image of each natural cluster: 'unique' would not be true of the others."""
    kept = one_of_each_cluster(near_duplicates(dataset), dataset.num_examples)
    left_out = dataset.num_examples - len(kept)
    said = f'{left_out:,} near-duplicates of its own left out (same class, RMS < 0.06)'
    provenance = '; '.join(filter(None, (dataset.provenance, said if left_out else '')))
    return dataclasses.replace(dataset.take(kept), provenance=provenance)
