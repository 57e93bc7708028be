"""GroupNorm of images with what follows it, on CPUs: what is added, and ReLU.

XLA passes over the images for each of their moments, for each sum of the gradients, and to scale
them. Here an image is read once forwards and once backwards.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from influence_jax.kernels import library
from influence_jax.kernels.library import threads
from influence_jax.types import AnyArray

_NORMALIZE, _GRADIENTS = 'influence_jax_group_norm', 'influence_jax_group_norm_gradients'
_LARGEST = 2**15
"""Floats of an image: with what is added XLA is faster at 32x32x32, slower at half (Zen 4)."""


def serves(images: AnyArray, *others: AnyArray) -> bool:
    """Whether images `[B H W C]` are normalized here; else by the form in JAX."""
    arrays = images, *others
    return (
        jax.default_backend() == 'cpu'
        and math.prod(images.shape[1:]) < _LARGEST
        and all(array.dtype == jnp.float32 for array in arrays)
        and library.registered('group_norm.cc', (_NORMALIZE, _GRADIENTS))
    )


@dataclasses.dataclass(frozen=True)
class GroupNormalization:
    """A `Form` of images `[B H W C]`, scale `[C]`, shift `[C]` and maybe what is added `[B H W C]`.

    Attributes:
        groups: of channels.
        rectified: whether what is negative in the end is made zero.
        adds: whether something is added.
        of_arrays: computes the same in JAX; hashable.
    """

    groups: int
    rectified: bool
    adds: bool
    of_arrays: Callable[..., Array]
    platform = 'cpu'
    axes = 4
    has_products = False

    @property
    def differentiable(self) -> int:
        """See `Form`."""
        return 4 if self.adds else 3

    def in_jax(self, *arrays: Array) -> Array:
        """See `Form`."""
        return self.of_arrays(*arrays)

    def value(self, *arrays: Array) -> Array:
        """See `Form`."""
        return self._called(_NORMALIZE, arrays[:1], arrays)[0]

    def gradients(self, *arrays: Array) -> Sequence[Array]:
        """See `Form`."""
        return self._called(_GRADIENTS, arrays[:-1], (arrays[-1], *arrays[:-1]))

    def _called(
        self, target: str, like: Sequence[Array], arrays: Sequence[Array]
    ) -> Sequence[Array]:
        shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in like]
        call = jax.ffi.ffi_call(target, shapes)
        groups = np.int64(self.groups)
        return call(*arrays, groups=groups, rectified=self.rectified, threads=threads())
