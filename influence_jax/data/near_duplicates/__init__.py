"""Near-duplicates planted in text and images, with the truth kept of what was changed."""

from influence_jax.data.near_duplicates.image_changes import ImageChange, ImageStrength, vary_image
from influence_jax.data.near_duplicates.plant import plant, unused
from influence_jax.data.near_duplicates.plant_images import PlantedImages, plant_images
from influence_jax.data.near_duplicates.text_changes import TextChange, TextChanger, changer
from influence_jax.data.near_duplicates.variant import ImageVariant, Passage, TextVariant

__all__ = [
    'ImageChange',
    'ImageStrength',
    'ImageVariant',
    'Passage',
    'PlantedImages',
    'TextChange',
    'TextChanger',
    'TextVariant',
    'changer',
    'plant',
    'plant_images',
    'unused',
    'vary_image',
]
