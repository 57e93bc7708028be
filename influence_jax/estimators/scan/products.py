"""Sums over the members that include an example, as matrix products of three kinds.

Masks are 0 or 1 and exact in any number format, so all that can be lost is in the losses.
"""

import enum
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from influence_jax.types import AnyArray

_DIGIT = 128  # what the upper of the two digits of fixed-point numbers counts
_LARGEST = _DIGIT * (_DIGIT - 2)  # both digits, -64 .. 64 and -127 .. 127, fit in int8
_TRIAL_TARGETS = 128

ROUNDING = 1 / (np.sqrt(12) * _LARGEST)
"""Standard deviation of the rounding of a fixed-point loss, where the largest is 1."""


class Product(enum.Enum):
    """How losses are written in the product with the masks.

    FLOAT32: as they are, in full precision.
    BFLOAT16: as the exact sum of three bfloat16, summed up in float32: the rate of bfloat16
        thrice for the accuracy of float32.
    FIXED_POINT: as two digits of int8, 15 bits in all, of which the sums are exact integers.
    """

    FLOAT32 = 'float32'
    BFLOAT16 = 'bfloat16'
    FIXED_POINT = 'fixed_point'


def prepare(product: Product, masks: Bool[np.ndarray, 'M N']) -> Array:
    """The masks in the format that the product multiplies."""
    return jnp.asarray(masks, _FORMAT[product])


def sums(product: Product, masks: Array, losses: Float[AnyArray, 'M t']) -> Float[Array, 't N']:
    """Sums of the losses over the members that include each example.

    Args:
      product: how to multiply.
      masks: `[M N]` as prepared for it.
      losses: `[M t]` within [-1, 1].
    """
    return _SUMS[product](masks, jnp.asarray(losses))


def fastest(masks: Bool[np.ndarray, 'M N']) -> Product:
    """The product that takes the least time on this machine for these masks, by trying each."""
    losses = jnp.linspace(-1, 1, len(masks) * _TRIAL_TARGETS).reshape(len(masks), _TRIAL_TARGETS)
    return min(Product, key=lambda product: _seconds(product, masks, losses))


def _seconds(product: Product, masks: Bool[np.ndarray, 'M N'], losses: Array) -> float:
    prepared = prepare(product, masks)
    multiply = jax.jit(lambda masks, losses: sums(product, masks, losses))
    multiply(prepared, losses).block_until_ready()
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        multiply(prepared, losses).block_until_ready()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def _float32(masks: Float[Array, 'M N'], losses: Float[Array, 'M t']) -> Float[Array, 't N']:
    # By default accelerators round products of float32 to 10 bits.
    return jnp.matmul(losses.T, masks, precision=lax.Precision.HIGHEST)


def _bfloat16(masks: Array, losses: Float[Array, 'M t']) -> Float[Array, 't N']:
    whole = jnp.zeros((losses.shape[1], masks.shape[1]), jnp.float32)
    for _ in range(3):
        # Not astype alone: compilers may keep the excess precision, and the rest would be 0.
        part = lax.reduce_precision(losses, exponent_bits=8, mantissa_bits=7)
        losses = losses - part
        whole += jnp.matmul(part.astype(jnp.bfloat16).T, masks, preferred_element_type=jnp.float32)
    return whole


def _fixed_point(masks: Array, losses: Float[Array, 'M t']) -> Float[Array, 't N']:
    numbers = jnp.round(losses.T * _LARGEST)
    upper = jnp.round(numbers / _DIGIT)
    lower = numbers - upper * _DIGIT

    def exact(digits: Array) -> Array:
        return jnp.matmul(digits.astype(jnp.int8), masks, preferred_element_type=jnp.int32)

    whole = exact(upper).astype(jnp.float32) * _DIGIT + exact(lower).astype(jnp.float32)
    return whole / _LARGEST


_FORMAT = {
    Product.FLOAT32: jnp.float32,
    Product.BFLOAT16: jnp.bfloat16,
    Product.FIXED_POINT: jnp.int8,
}
_SUMS: dict[Product, Callable[[Array, Array], Array]] = {
    Product.FLOAT32: _float32,
    Product.BFLOAT16: _bfloat16,
    Product.FIXED_POINT: _fixed_point,
}
