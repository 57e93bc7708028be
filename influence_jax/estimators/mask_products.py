"""Products of an ensemble's masks with blocks of targets, on the devices of this process."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped

from influence_jax.estimators.scan import on_accelerators
from influence_jax.kernels import mask_sums as kernel
from influence_jax.threads import in_threads
from influence_jax.types import AnyArray

HALVES = slice(0, None, 2), slice(1, None, 2)
"""Members of even and of odd number."""


_ROWS = 2**9  # of a product that a thread computes at once


class HalfEstimates(NamedTuple):
    """Differences of means by the members of even and of odd number.

    sums: `[2 N t]` of the losses, about their mean, of the members with an example.
    of_sums: `[2 N]` what makes of these the difference; 0 where a half has no comparison.
    """

    sums: Float[np.ndarray, '2 N t']
    of_sums: Float[np.ndarray, '2 N']

    def values(self, rows: slice = slice(None)) -> Float[np.ndarray, '2 n t']:
        """Of some examples."""
        return self.sums[:, rows] * self.of_sums[:, rows, None]


class MaskProducts:
    """Products of the masks.

    Args:
      masks: of complete members.
      packed: the same as bits, where sums may be looked up, of rounded losses; without them, they
        are matrix products.
    """

    def __init__(self, masks: Bool[np.ndarray, 'M N'], packed: kernel.Masks | None = None) -> None:
        self._masks, self._on_devices = masks, on_accelerators()
        self._packed = None if self._on_devices else packed
        first = len(masks[HALVES[0]])
        self._rows = slice(0, first), slice(first, len(masks))
        included = np.stack([masks[half].sum(axis=0) for half in HALVES]).astype(np.float32)
        self._included = included
        members = np.array([[len(masks[half])] for half in HALVES], np.float32)
        squares = included * (1 - included / members)
        compared = squares > 0
        self._of_sums = np.where(compared, -1 / np.where(compared, squares, 1), np.float32(0))

    @functools.cached_property
    def weights(self) -> Float[AnyArray, 'M N']:
        """The masks as floats, members of even number before those of odd number.

        On accelerators where there are some.
        """
        weights = self.ordered(self._masks).astype(np.float32)
        return jnp.asarray(weights) if self._on_devices else weights

    def ordered(self, rows: Shaped[np.ndarray, 'M t']) -> Shaped[np.ndarray, 'M t']:
        """Rows of members in the order of the weights."""
        return np.concatenate([rows[half] for half in HALVES])

    def sums(self, losses: Float[np.ndarray, 'M t']) -> Float[np.ndarray, 'N t']:
        """Sums of the losses of the members with an example."""
        if self._packed is not None and kernel.there():
            included = self._included.sum(axis=0, keepdims=True)
            return kernel.sums(self._packed, losses, included=included)[0]
        return self._product(self.weights.T, self.ordered(losses))

    def by_halves(self, losses: Float[np.ndarray, 'M t']) -> HalfEstimates:
        """Differences of means by either half; the losses of each are about their mean."""
        if self._packed is not None and kernel.there():
            sums = kernel.sums(self._packed, losses, included=self._included)
            return HalfEstimates(sums, self._of_sums)
        of_halves = [
            self._product(self.weights[rows].T, losses[members])
            for rows, members in zip(self._rows, HALVES, strict=True)
        ]
        return HalfEstimates(np.stack(of_halves), self._of_sums)

    def of_half(self, half: int, entries: Float[np.ndarray, 'N t']) -> Float[np.ndarray, 'm t']:
        """Sums of the entries of the examples that each member of a half has."""
        return self._product(self.weights[self._rows[half]], entries)

    def _product(
        self, one: Float[AnyArray, 'n k'], other: Float[np.ndarray, 'k t']
    ) -> Float[np.ndarray, 'n t']:
        if self._on_devices:
            # By default accelerators round products of float32 to 10 bits.
            return np.asarray(jnp.matmul(one, other, precision=jax.lax.Precision.HIGHEST))
        product = np.empty((one.shape[0], other.shape[1]), np.float32)

        def of_some(rows: slice) -> None:
            np.matmul(one[rows], other, out=product[rows])

        # In our threads: those of BLAS would wait, spinning, for the next product.
        in_threads(of_some, len(product), step=_ROWS)
        return product
