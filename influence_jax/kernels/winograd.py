"""3x3 convolutions and their gradients by Winograd's F(2x2, 3x3), on CPUs.

Of the products of a direct convolution they need 4/9. On one core of a Zen 4 they take 0.54 to 0.72
of XLA's time for a convolution or a gradient by the images, 0.36 to 0.60 for a gradient by the
kernel (docs/results/throughput.md). Results differ from those of a direct convolution by rounding.
"""

import jax
from jaxtyping import Array, Float

from influence_jax.kernels import library
from influence_jax.kernels.library import threads
from influence_jax.types import AnyArray

_CONVOLVE, _KERNEL_GRADIENT = 'influence_jax_convolve', 'influence_jax_kernel_gradient'
_LEAST_CHANNELS, _MOST_CHANNELS = 8, 4096


def serves(inputs: int, outputs: int) -> bool:
    """Whether convolutions between so many channels are to be computed here; else by XLA."""
    return (
        min(inputs, outputs) >= _LEAST_CHANNELS
        and max(inputs, outputs) <= _MOST_CHANNELS
        and library.registered('winograd.cc', (_CONVOLVE, _KERNEL_GRADIENT))
    )


def convolution(
    images: Float[AnyArray, '*P B H W I'], kernel: Float[AnyArray, '*P 3 3 I O']
) -> Float[Array, '*P B H W O']:
    """Convolution with one pixel of zero padding, of each of P problems; there may be no axis P."""
    return _call(images, kernel, kernel.shape[-1], turned=False)


def by_images(
    cotangent: Float[AnyArray, '*P B H W O'], kernel: Float[AnyArray, '*P 3 3 I O']
) -> Float[Array, '*P B H W I']:
    """Its gradient by the images."""
    return _call(cotangent, kernel, kernel.shape[-2], turned=True)


def by_kernel(
    images: Float[AnyArray, '*P B H W I'], cotangent: Float[AnyArray, '*P B H W O']
) -> Float[Array, '*P 3 3 I O']:
    """Its gradient by the kernel."""
    shape = (*images.shape[:-4], 3, 3, images.shape[-1], cotangent.shape[-1])
    call = jax.ffi.ffi_call(_KERNEL_GRADIENT, jax.ShapeDtypeStruct(shape, images.dtype))
    return call(images, cotangent, threads=threads())


def _call(images: AnyArray, kernel: AnyArray, channels: int, *, turned: bool) -> Array:
    shape = jax.ShapeDtypeStruct((*images.shape[:-1], channels), images.dtype)
    return jax.ffi.ffi_call(_CONVOLVE, shape)(images, kernel, turned=turned, threads=threads())
