"""What other members say of a target, for each subset in turn, without loops over pairs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

_BLOCK = 512


class Shadows(NamedTuple):
    """The members on one side, including a target or leaving it out, for every target.

    members: `[T]` how many.
    mean: `[T]` of what was measured of them.
    squares: `[T]` sum of squared deviations from that mean.
    """

    members: Float[np.ndarray, ' T']
    mean: Float[np.ndarray, ' T']
    squares: Float[np.ndarray, ' T']

    @classmethod
    def of(cls, values: Float[np.ndarray, 'M T'], belongs: Bool[np.ndarray, 'M T']) -> 'Shadows':
        """Of all members; block by block of the targets, so that no second matrix exists."""
        parts = []
        for start in range(0, values.shape[1], _BLOCK):
            block = values[:, start : start + _BLOCK].astype(np.float64)
            side = belongs[:, start : start + _BLOCK]
            count = side.sum(axis=0, dtype=np.float64)
            mean = block.sum(axis=0, where=side) / count
            squares = np.square(block - mean[None]).sum(axis=0, where=side)
            parts.append((count, mean, squares))
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def without(
        self, values: Float[np.ndarray, 'k T'], belongs: Bool[np.ndarray, ' T']
    ) -> 'Shadows':
        """Returns what is left without k members of one mask.

        Args:
          values: of these members.
          belongs: of which targets they are on this side.
        """
        count = len(values)
        left = self.members - count * belongs
        centre = values.mean(axis=0, dtype=np.float64)
        apart = np.square(values - centre[None]).sum(axis=0, where=belongs[None])
        deviation = np.where(belongs, centre - self.mean, 0.0)
        squares = self.squares - apart - deviation**2 * self.members * count / left
        return Shadows(left, self.mean - deviation * count / left, np.maximum(squares, 0.0))
