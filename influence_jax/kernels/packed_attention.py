"""Causal attention of records laid end to end, on CPUs.

XLA multiplies blocks of tokens, most pairs of which belong to different records or look ahead. Here
every token meets the tokens that it reads and no others.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from influence_jax.kernels import library
from influence_jax.kernels.library import threads
from influence_jax.types import AnyArray

_ATTEND, _GRADIENTS = 'influence_jax_attend', 'influence_jax_attention_gradients'
_LONGEST = 512
"""Tokens that one reads: a guess. With 70 it was timed; for many, products of blocks are faster."""


def serves(reach: int, *arrays: AnyArray) -> bool:
    """Whether attention over so many tokens is to be computed here; else by the form in JAX."""
    return (
        jax.default_backend() == 'cpu'
        and reach <= _LONGEST
        and all(array.dtype == jnp.float32 for array in arrays)
        and library.registered('packed_attention.cc', (_ATTEND, _GRADIENTS))
    )


@dataclasses.dataclass(frozen=True)
class PackedAttention:
    """Softmax attention without a scale, of every token to those of its record before it.

    A `Form` of queries, keys and values `[C H d]` and the record `[C]`, int32, that each token
    belongs to; those of a record are together.

    Attributes:
        reach: how many tokens each reads at most, itself included.
        of_arrays: computes the same in JAX; hashable.
    """

    reach: int
    of_arrays: Callable[..., Array]
    platform = 'cpu'
    axes = 3
    differentiable = 3
    has_products = True

    def in_jax(self, *arrays: Array) -> Array:
        """See `Form`."""
        return self.of_arrays(*arrays)

    def value(self, *arrays: Array) -> Array:
        """See `Form`."""
        return self._called(_ATTEND, 1, arrays)[0]

    def gradients(self, *arrays: Array) -> Sequence[Array]:
        """See `Form`."""
        return self._called(_GRADIENTS, 3, arrays)

    def _called(self, target: str, results: int, arrays: Sequence[Array]) -> Sequence[Array]:
        shape = jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)
        call = jax.ffi.ffi_call(target, [shape] * results)
        return call(*arrays, reach=np.int64(self.reach), threads=threads())
