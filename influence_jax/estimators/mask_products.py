"""Products of an ensemble's masks with blocks of targets, on the devices of this process."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from influence_jax.estimators.scan import on_accelerators
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

    weights: `[M N]` the masks as floats, members of even number before those of odd number; on
        accelerators where there are some.
    """

    def __init__(self, masks: Bool[np.ndarray, 'M N']) -> None:
        self._on_devices = on_accelerators()
        ordered = np.concatenate([masks[half] for half in HALVES]).astype(np.float32)
        self.weights = jnp.asarray(ordered) if self._on_devices else ordered
        first = len(masks[HALVES[0]])
        self._rows = slice(0, first), slice(first, len(masks))
        included = np.stack([ordered[rows].sum(axis=0) for rows in self._rows])
        members = np.array([[len(ordered[rows])] for rows in self._rows], np.float32)
        squares = included * (1 - included / members)
        compared = squares > 0
        self._of_sums = np.where(compared, -1 / np.where(compared, squares, 1), np.float32(0))

    def ordered(self, losses: Float[np.ndarray, 'M t']) -> Float[np.ndarray, 'M t']:
        """Losses of members in the order of the weights."""
        return np.concatenate([losses[half] for half in HALVES])

    def sums(self, losses: Float[np.ndarray, 'M t']) -> Float[np.ndarray, 'N t']:
        """Sums of the losses of the members with an example."""
        return self._product(self.weights.T, self.ordered(losses))

    def by_halves(self, losses: Float[np.ndarray, 'M t']) -> HalfEstimates:
        """Differences of means by either half; the losses of each are about their mean."""
        sums = np.empty((2, self.weights.shape[1], losses.shape[1]), np.float32)
        for of_half, rows, members in zip(sums, self._rows, HALVES, strict=True):
            of_half[:] = self._product(self.weights[rows].T, losses[members])
        return HalfEstimates(sums, self._of_sums)

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
