"""A 3x3 convolution and its gradients as matrix products over rows of pixels.

For accelerators with matrix units, where each vmapped member has a kernel of its own. A row of W
pixels with I channels is one vector of W I entries, and the kernel a band matrix that takes three
rows, one above another, to a row of the output. Two in three entries of the band are zero, or
more; still it is faster than patches of 3x3 pixels, since activations are copied three times and
not nine, and memory is what takes the time at the widths of small members. On an H100, forward and
both gradients of 64 members took 0.3 to 0.9 of the time of patches in bfloat16
(docs/results/gpu.md). Wide images are cut into tiles of at most `TILE` pixels, so that the band
stays small.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from influence_jax.types import AnyArray

TILE = 8
"""Most pixels that a row of the band matrix writes."""


def convolution(
    dtype: Any, images: Float[AnyArray, 'B H W I'], kernel: Float[AnyArray, '3 3 I O']
) -> Float[Array, 'B H W O']:
    """Returns the convolution of stride 1 with one pixel of zero padding.

    Args:
        dtype: that the factors are rounded to; sums are of the type of the images.
        images: of one member.
        kernel: its own.
    """
    batch, height, width, _ = images.shape
    tile = _tile(width)
    rows = _rows(dtype, images, tile)
    band = _band(jnp.asarray(kernel, dtype), tile, _beside(tile, width))
    y = _product(rows, band, 1, images.dtype)
    return y.reshape(batch, height, width, -1)


def by_kernel(
    dtype: Any, images: Float[AnyArray, 'B H W I'], cotangent: Float[AnyArray, 'B H W O']
) -> Float[Array, '3 3 I O']:
    """Returns the gradient by the kernel; arguments as of `convolution`."""
    inputs, outputs, width = images.shape[3], cotangent.shape[3], images.shape[2]
    tile = _tile(width)
    rows, beside = _rows(dtype, images, tile), _beside(tile, width)
    y = jnp.asarray(cotangent, dtype).reshape(len(rows), tile * outputs)
    band = _product(rows, y, 0, images.dtype)
    band = band.reshape(3, tile + 2 * beside, inputs, tile, outputs)
    band = jnp.pad(band, ((0, 0), (1 - beside, 1 - beside), (0, 0), (0, 0), (0, 0)))
    # Pixel p of a tile is read, by tap t, into pixel p - t.
    taps = [jnp.einsum('rpipo->rio', band[:, t : t + tile]) for t in range(3)]
    return jnp.stack(taps, axis=1)


def _tile(width: int) -> int:
    return max(size for size in range(1, min(width, TILE) + 1) if width % size == 0)


def _beside(tile: int, width: int) -> int:
    """How many pixels beside a tile its output depends on: none where it is a whole row."""
    return int(tile < width)


def _rows(dtype: Any, images: Float[AnyArray, 'B H W I'], tile: int) -> Float[Array, 'rows inputs']:
    """Every tile with the pixels beside it, and the rows above and below."""
    batch, height, width, _ = images.shape
    beside = _beside(tile, width)
    padded = jnp.pad(images.astype(dtype), ((0, 0), (1, 1), (beside, beside), (0, 0)))
    read = tile + 2 * beside
    tiles = [padded[:, :, first : first + read] for first in range(0, width, tile)]
    across = jnp.stack(tiles, axis=2)  # [B, H + 2, W / tile, read, I]
    three = jnp.stack([across[:, row : row + height] for row in range(3)], axis=3)
    return three.reshape(batch * height * (width // tile), -1)


def _band(
    kernel: Float[AnyArray, '3 3 I O'], tile: int, beside: int
) -> Float[Array, 'inputs outputs']:
    """The kernel as a matrix from three rows of pixels to the `tile` of one."""
    columns = [
        jnp.pad(kernel, ((0, 0), (pixel, tile - 1 - pixel), (0, 0), (0, 0)))
        for pixel in range(tile)
    ]
    band = jnp.stack(columns, axis=3)  # [3, tile + 2, I, tile, O]
    band = band[:, 1 - beside : tile + 1 + beside]
    return band.reshape(-1, tile * kernel.shape[3])


def _product(
    a: Float[Array, 'i j'], b: Float[Array, 'k l'], axis: int, dtype: Any
) -> Float[Array, 'm n']:
    """The sum over `axis` of a, and the first of b."""
    contracted = (((axis,), (0,)), ((), ()))
    return lax.dot_general(a, b, contracted, preferred_element_type=dtype)
