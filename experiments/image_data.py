"""The images of an ensemble: which of them, and the near-duplicates injected among them."""

import jax
import numpy as np

from experiments.settings import DataSettings, PlantingSettings
from influence_jax import data
from influence_jax.data.near_duplicates import image_change, inject, without_repeats
from influence_jax.data.pixel_distance import without_near_duplicates
from influence_jax.types import PRNGKey


def prepare(
    settings: DataSettings, planting: PlantingSettings, *, key: PRNGKey, seed: int
) -> data.Dataset:
    """Reads the source, chooses images with the key and injects near-duplicates with the seed."""
    dataset = _chosen(settings, key=key)
    if not planting.duplicated:
        return dataset
    dataset = without_near_duplicates(without_repeats(dataset))
    return inject(
        dataset,
        image_change(planting.duplication),
        unique=planting.unique or max(0, len(dataset) - planting.duplicated),
        duplicated=planting.duplicated,
        copies=planting.copies,
        seed=seed,
    )


def _chosen(settings: DataSettings, *, key: PRNGKey) -> data.Dataset:
    dataset = data.load(settings.dataset, data_dir=settings.data_dir)
    try:
        dataset.array('label')
        if (images := dataset.array('image')).ndim != 4:
            raise ValueError(f'images must have the shape [N H W C], found {images.shape}')
    except ValueError as error:
        raise ValueError(
            f'--dataset={settings.dataset}: {error}; a .npz file of images holds images [N H W C] '
            'and labels [N]'
        ) from error
    if not settings.num_examples:
        return dataset
    if settings.num_examples > len(dataset):
        raise ValueError(
            f'--num_examples={settings.num_examples}, but {settings.dataset} has only '
            f'{len(dataset)} images here; ask for at most that many'
        )
    chosen = jax.random.permutation(key, len(dataset))[: settings.num_examples]
    return dataset.take(np.sort(chosen))
