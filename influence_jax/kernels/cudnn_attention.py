"""Causal attention of whole texts on NVIDIA's GPUs, by cuDNN.

XLA writes the scores of all pairs to memory, in float32, several times over. cuDNN never does.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from influence_jax.types import AnyArray

_LEAST_CAPABILITY = 8.0
"""Of a card that multiplies bfloat16."""


@dataclasses.dataclass(frozen=True)
class CausalAttention:
    """Softmax attention without a scale, of every token to the last ones, itself included.

    A `Form` of queries, keys and values `[B H S d]`, bfloat16. The gradients compute anew what is
    read.

    Attributes:
        window: how many tokens each reads at most, itself included; None for all.
        of_arrays: computes the same in JAX; hashable.
    """

    window: int | None
    of_arrays: Callable[..., Array]
    platform = 'cuda'
    axes = 4
    differentiable = 3
    has_products = True

    def serves(self, *heads: AnyArray) -> bool:
        """Whether this process's cards, and its cuDNN, attend these queries, keys and values."""
        shapes = {array.shape for array in heads}
        return (
            jax.default_backend() == 'gpu'
            and 'cuda' in jax.devices()[0].client.platform_version.lower()
            and float(jax.devices()[0].compute_capability) >= _LEAST_CAPABILITY
            and all(array.dtype == jnp.bfloat16 for array in heads)
            and len(shapes) == 1
            and _is_known(self.window, *shapes)
        )

    def in_jax(self, *arrays: Array) -> Array:
        """See `Form`."""
        return self.of_arrays(*arrays)

    def value(self, *arrays: Array) -> Array:
        """See `Form`."""
        of_texts = [array.reshape(-1, *array.shape[-3:]) for array in arrays]
        return self._fused(*of_texts).reshape(arrays[0].shape)

    def gradients(self, *arrays: Array) -> Sequence[Array]:
        """See `Form`."""
        *heads, cotangent = (array.reshape(-1, *array.shape[-3:]) for array in arrays)
        found = jax.vjp(self._fused, *heads)[1](cotangent)
        return [gradient.reshape(arrays[0].shape) for gradient in found]

    def _fused(self, *heads: Float[Array, 'B H S d']) -> Float[Array, 'B H S d']:
        return _by_cudnn(self.window, *heads)


def _by_cudnn(window: int | None, *heads: Float[Array, 'B H S d']) -> Float[Array, 'B H S d']:
    length = heads[0].shape[2]
    # cuDNN has no gradients of odd lengths; nobody reads a token that comes last.
    whole = [jnp.pad(array, ((0, 0), (0, 0), (0, length % 2), (0, 0))) for array in heads]
    read = jax.nn.dot_product_attention(
        *(array.swapaxes(1, 2) for array in whole),
        scale=1.0,
        is_causal=True,
        local_window_size=None if window is None else (window - 1, 0),
        implementation='cudnn',
    )
    return read.swapaxes(1, 2)[:, :, :length]


@functools.cache
def _is_known(window: int | None, shape: tuple[int, ...]) -> bool:
    """Whether JAX finds cuDNN, and that it has gradients of this shape."""
    array = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    by_cudnn = functools.partial(_by_cudnn, window)
    try:
        jax.eval_shape(lambda *heads: jax.vjp(by_cudnn, *heads)[1](heads[0]), *[array] * 3)
    except (NotImplementedError, RuntimeError):
        return False
    return True
