"""3x3 convolutions and their gradients by the tiles of Intel's AMX, on CPUs that have them.

Their factors are rounded to bfloat16, sums are float32: what is asked for by a `compute_dtype` of
bfloat16.
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
_SOURCE = 'amx.cc'
_LEAST_CHANNELS = 8


def serves(inputs: int, outputs: int) -> bool:
    """Whether convolutions between so many channels, of rounded factors, are computed here."""
    return (
        min(inputs, outputs) >= _LEAST_CHANNELS
        and _has_tiles()
        and library.registered(_SOURCE, (_CONVOLVE, _KERNEL_GRADIENT))
        and _may_use_tiles()
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
def _has_tiles() -> bool:
    """Linux tells; elsewhere no CPU is taken to have them."""
    try:
        known = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace')
    except OSError:
        return False
    return {'amx_bf16', 'avx512_bf16'} <= set(known.split())


@functools.cache
def _may_use_tiles() -> bool:
    found = library.loaded(_SOURCE)
    if found is None:
        return False
    permitted = found.influence_jax_tiles_permitted
    permitted.restype = ctypes.c_int32
    return bool(permitted())
