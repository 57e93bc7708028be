"""What is done to inputs, images above all, before a network sees them, on the device."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from influence_jax.types import AnyArray, PRNGKey


def as_numbers(inputs: Any) -> Any:
    """Returns bytes (uint8) as float32 from 0 to 1, everything else as it is."""

    def scaled(leaf: AnyArray) -> AnyArray:
        return leaf.astype(jnp.float32) / 255 if leaf.dtype == jnp.uint8 else leaf

    return jax.tree.map(scaled, inputs)


def centered(images: UInt8[AnyArray, 'B H W C'] | Float[AnyArray, 'B H W C']) -> Any:
    """Returns bytes (uint8) as float32 from -1 to 1, numbers as they are."""
    images = jnp.asarray(images)
    return images.astype(jnp.float32) / 127.5 - 1 if images.dtype == jnp.uint8 else images


def standardized(images: UInt8[AnyArray, 'B H W C']) -> Float[Array, 'B H W C']:
    """Returns every image with mean 0 and variance 1: a scale in which no other has a part."""
    pixels = jnp.asarray(images, jnp.float32) / 255
    mean = pixels.mean((1, 2, 3), keepdims=True)
    variance = pixels.var((1, 2, 3), keepdims=True)
    # An image of one color has no contrast to restore.
    return (pixels - mean) * jax.lax.rsqrt(variance + 1e-3)


def random_crop_and_flip(
    images: Float[Array, 'B H W C'], *, key: PRNGKey, padding: int = 4
) -> Float[Array, 'B H W C']:
    """Shifts every image by up to `padding` pixels each way and mirrors half of them.

    As in He et al. (arXiv 1512.03385, section 4.2): zeros are padded on every side and a crop
    of the original size is taken at random; zero is the mean color of normalized images. Each
    image is moved on its own. Pure and free of Python state: works under `jit` and under
    `vmap` over members.

    Args:
      images: any scale.
      key: of this batch.
      padding: greatest shift in pixels, static; 0 mirrors only.

    Raises:
      ValueError: `padding` is negative.
    """
    if padding < 0:
        raise ValueError(f'{padding=} must be 0 or more pixels')
    offset_key, flip_key = jax.random.split(key)
    offsets = jax.random.randint(offset_key, (images.shape[0], 2), 0, 2 * padding + 1)
    flips = jax.random.bernoulli(flip_key, shape=(images.shape[0],))
    margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.vmap(lambda image, offset, flip: _crop_and_flip(image, offset, flip, padding))(
        jnp.pad(images, margins), offsets, flips
    )


def _crop_and_flip(
    padded: Float[Array, 'H_padded W_padded C'],
    offset: Int[Array, ' 2'],
    flip: Bool[Array, ''],
    padding: int,
) -> Float[Array, 'H W C']:
    height, width, channels = padded.shape
    size = (height - 2 * padding, width - 2 * padding, channels)
    cropped = jax.lax.dynamic_slice(padded, (offset[0], offset[1], 0), size)
    return jnp.where(flip, cropped[:, ::-1], cropped)
