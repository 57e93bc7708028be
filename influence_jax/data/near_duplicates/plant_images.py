"""An image dataset with near-duplicates planted in it, the truth kept."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from influence_jax.data.dataset import ImageDataset
from influence_jax.data.near_duplicates import choose
from influence_jax.data.near_duplicates.image_changes import ImageChange, ImageStrength, vary_image
from influence_jax.data.near_duplicates.variant import ImageVariant


class PlantedImages(NamedTuple):
    """Images, some of them near-duplicates, and the truth about them.

    dataset: unique images first, in the order of the dataset they are from, then the clusters.
    groups: `[N]` the same number for an original and its variants.
    changes: of each image how it differs from its original; '' for originals.
    """

    dataset: ImageDataset
    groups: Int32[np.ndarray, ' N']
    changes: tuple[str, ...]


def plant_images(
    dataset: ImageDataset,
    change: ImageChange,
    *,
    unique: int,
    duplicated: int,
    copies: int,
    seed: int,
    strength: ImageStrength | None = None,
) -> PlantedImages:
    """Chooses images at random and writes some of them several times, each time changed.

    As `plant` does with texts: all variants are made from the original, keep its label, and
    differ from it and from each other. Near-duplicates that the dataset has by itself are not
    looked for (see `data.pixel_distance`): where there are any, take them out first.

    Args:
      dataset: originals.
      change: the kind of change.
      unique: images that are written once.
      duplicated: images that are written `copies` times.
      copies: the original and `copies - 1` variants; at least 2, and at most 4 with `FLIP`.
      seed: 0 or more; the same seed gives the same images and variants.
      strength: how far images are changed; the defaults if None.

    Returns:
      `unique + duplicated * copies` images; variants have the ids 'X~1', 'X~2' ... of 'X'.

    Raises:
      ValueError: a count is out of range, there are too few images that can be changed, or JPEG
        cannot store images of so many channels.
    """

    def vary(image: int, rng: np.random.Generator) -> ImageVariant | None:
        return vary_image(change, dataset.images[image], rng=rng, strength=strength)

    counts = choose.Counts(unique, duplicated, copies)
    choice = choose.choose(
        dataset.ids,
        counts,
        vary=vary,
        identity=lambda variant: variant.image.tobytes(),
        original=lambda image: dataset.images[image].tobytes(),
        seed=seed,
        what=f'dataset {dataset.name!r}, {change.value}',
    )
    written = [ImageVariant(dataset.images[i], '') for i in choice.unique]
    for image, variants in choice.clusters.items():
        written += [ImageVariant(dataset.images[image], ''), *variants]
    sources = choice.sources
    planted = dataclasses.replace(
        dataset,
        images=np.stack([variant.image for variant in written]),
        labels=dataset.labels[sources],
        ids=choose.variant_ids(dataset.ids, choice),
        names=tuple(dataset.names[i] for i in sources),
        provenance=choose.provenance(dataset.provenance, counts, change.value, seed),
    )
    return PlantedImages(planted, choice.groups, tuple(variant.change for variant in written))
