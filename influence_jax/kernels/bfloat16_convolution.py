"""3x3 convolutions and their gradients, of factors rounded to bfloat16, on CPUs that multiply such.

Intel's AMX does it in tiles, AVX-512 with bfloat16 in vectors; sums are float32. It is what a
`compute_dtype` of bfloat16 asks for.
"""

import ctypes
import functools
from pathlib import Path

import jax
from jaxtyping import Array, Float

from influence_jax.kernels import library
from influence_jax.kernels.library import threads
from influence_jax.types import AnyArray

_CONVOLVE, _KERNEL_GRADIENT = 'influence_jax_tile_convolve', 'influence_jax_tile_kernel_gradient'
_SOURCE = 'bfloat16_convolution.cc'
LEAST_CHANNELS = 8
"""Convolutions between fewer are left to XLA."""


def serves(*channels: int) -> bool:
    """Whether convolutions between so many channels, of rounded factors, are computed here."""
    return (
        min(channels) >= LEAST_CHANNELS
        and _multiplies_bfloat16()
        and library.registered(_SOURCE, (_CONVOLVE, _KERNEL_GRADIENT))
        and _permitted()
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


@functools.cache
def _multiplies_bfloat16() -> bool:
    """Linux tells; elsewhere no CPU is taken to."""
    try:
        known = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace')
    except OSError:
        return False
    return 'avx512_bf16' in known.split()


@functools.cache
def _permitted() -> bool:
    """AMX must be asked for."""
    found = library.loaded(_SOURCE)
    if found is None:
        return False
    permitted = found.influence_jax_tiles_permitted
    permitted.restype = ctypes.c_int32
    return bool(permitted())
