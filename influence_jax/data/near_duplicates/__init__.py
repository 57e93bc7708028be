"""Near-duplicates injected into images and texts, with the truth kept of what was changed."""

from influence_jax.data.near_duplicates.image_changes import (
    ImageChange,
    ImageStrength,
    image_change,
    vary_image,
)
from influence_jax.data.near_duplicates.injection import (
    Change,
    Variant,
    inject,
    unused,
    without_repeats,
)
from influence_jax.data.near_duplicates.text_changes import TextChange, text_change

__all__ = [
    'Change',
    'ImageChange',
    'ImageStrength',
    'TextChange',
    'Variant',
    'image_change',
    'inject',
    'text_change',
    'unused',
    'vary_image',
    'without_repeats',
]
