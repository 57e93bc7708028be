"""3x3 convolutions and their gradients, of factors rounded to bfloat16, on CPUs that multiply such.

Intel's AMX does it in tiles, AVX-512 with bfloat16 in vectors; sums are float32. It is what a
`compute_dtype` of bfloat16 asks for. What is too small for a normal number is 0.
"""

import ctypes
import functools
from pathlib import Path

from influence_jax.kernels import library
from influence_jax.kernels.convolutions import Convolutions

BFLOAT16 = Convolutions('influence_jax_convolve_bfloat16', 'influence_jax_kernel_gradient_bfloat16')
_SOURCE = 'bfloat16_convolution.cc'
_LEAST_CHANNELS = 8
_SIDE, _LEAST_FILLED = 16, 0.8
"""Images come in groups of so many; where more of them are missing, Winograd's are faster."""


def serves(images: int, inputs: int, outputs: int) -> bool:
    """Whether convolutions of so many images between so many channels are computed here."""
    in_groups = -(-images // _SIDE) * _SIDE
    return (
        images >= _LEAST_FILLED * in_groups > 0
        and min(inputs, outputs) >= _LEAST_CHANNELS
        and is_at_hand()
    )


def is_at_hand() -> bool:
    """Whether this CPU can, and there is a compiler."""
    return _multiplies_bfloat16() and library.registered(_SOURCE, BFLOAT16.targets) and _permitted()


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
