"""Checksums of arrays, the same however they are spread over devices and processes.

orbax has none of the values of large arrays: a bit that flips on the disk is read as it is.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from influence_jax.training.multihost import fetch
from influence_jax.types import AnyArray


def of_arrays(arrays: Mapping[str, AnyArray]) -> dict[str, int]:
    """A number of 32 bits for each array, of its shape, its type's size and all its bits.

    A sum of whole numbers, in which each element has an odd weight of its own: any change to one
    element changes it, other damage but for one time in 4 billion or so.
    """
    return {name: int(number) for name, number in fetch(_of_arrays(dict(arrays))).items()}


def differing(found: Mapping[str, AnyArray], expected: Mapping[str, Any]) -> list[str]:
    """Names of arrays whose checksum is another than expected, or that are not expected."""
    actual = of_arrays(found)
    return sorted(name for name in actual if actual[name] != expected.get(name))


@jax.jit
def _of_arrays(arrays: dict[str, AnyArray]) -> dict[str, UInt32[Array, '']]:
    return {name: _of_array(jnp.asarray(array)) for name, array in arrays.items()}


def _of_array(array: Array) -> UInt32[Array, '']:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    size = array.dtype.itemsize
    bits = lax.bitcast_convert_type(array, {1: jnp.uint8, 2: jnp.uint16}.get(size, jnp.uint32))
    # Computed in place, never reshaped: it stays spread as it is.
    weights = jnp.ones(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = 2 * math.prod(bits.shape[axis + 1 :]) % 2**32
        weights += lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * np.uint32(stride)
    start = np.uint32(zlib.crc32(repr((bits.shape, size)).encode()))
    return jnp.sum(bits.astype(jnp.uint32) * weights, dtype=jnp.uint32) + start
