"""A 3x3 convolution whose gradients stay fast where members are trained: inside a scan.

XLA's CPU backend runs the automatic weight gradient of a convolution inside a `while` body as a
naive loop, at about a fiftieth of the speed of the convolution itself. Here both gradients are
written as plain NHWC x HWIO -> NHWC convolutions, which it does run fast. Other platforms
keep the automatic gradients: their convolution libraries recognise those.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from influence_jax.types import AnyArray

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_ONE_PIXEL = ((1, 1), (1, 1))


@jax.custom_vjp
def conv3x3(
    images: Float[AnyArray, 'B H W I'], kernel: Float[AnyArray, '3 3 I O']
) -> Float[Array, 'B H W O']:
    """Convolution of stride 1 with one pixel of zero padding; differentiable in both arguments."""
    return _convolve(images, kernel)


def _convolve(images: AnyArray, kernel: AnyArray) -> Array:
    images, kernel = jnp.asarray(images), jnp.asarray(kernel)
    return lax.conv_general_dilated(images, kernel, (1, 1), _ONE_PIXEL, dimension_numbers=_LAYOUT)


def _forward(images: AnyArray, kernel: AnyArray) -> tuple[Array, tuple[AnyArray, AnyArray]]:
    return _convolve(images, kernel), (images, kernel)


def _backward(residuals: tuple[AnyArray, AnyArray], cotangent: Array) -> tuple[Array, Array]:
    return lax.platform_dependent(
        *residuals, cotangent, cpu=_gradients_as_convolutions, default=_automatic_gradients
    )


def _automatic_gradients(
    images: AnyArray, kernel: AnyArray, cotangent: Array
) -> tuple[Array, Array]:
    return jax.vjp(_convolve, images, kernel)[1](cotangent)


def _gradients_as_convolutions(
    images: AnyArray, kernel: AnyArray, cotangent: Array
) -> tuple[Array, Array]:
    # The barriers keep XLA from folding the transposes into the convolutions' dimension
    # numbers, which would bring the slow forms back.
    rotated = lax.optimization_barrier(jnp.transpose(kernel[::-1, ::-1], (0, 1, 3, 2)))
    images_gradient = _convolve(cotangent, rotated)
    # Input channels act as the batch, the batch as input channels: O is the minor axis of
    # every operand, and the whole cotangent is the (large) kernel.
    channels_first, as_kernel = lax.optimization_barrier(
        (jnp.transpose(images, (3, 1, 2, 0)), jnp.transpose(cotangent, (1, 2, 0, 3)))
    )
    kernel_gradient = jnp.transpose(_convolve(channels_first, as_kernel), (1, 2, 0, 3))
    return images_gradient, kernel_gradient


conv3x3.defvjp(_forward, _backward)
