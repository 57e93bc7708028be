"""What all other members say of a target, for each member in turn, without loops over pairs."""

from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float

_BLOCK = 512


class Shadows(NamedTuple):
    """The members on one side, including a target or leaving it out, for every target.

    members: `[T]` how many.
    mean: `[T]` of what was measured of them.
    squares: `[T]` sum of squared deviations from that mean.
    """

    members: Float[np.ndarray, 'T']
    mean: Float[np.ndarray, 'T']
    squares: Float[np.ndarray, 'T']

    @classmethod
    def of(cls, values: Float[np.ndarray, 'M T'], belongs: Bool[np.ndarray, 'M T']) -> Self:
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

    def without(self, values: Float[np.ndarray, 'T'], belongs: Bool[np.ndarray, 'T']) -> 'Shadows':
        """What is left without one member, who belongs to this side of only some targets."""
        deviation = np.where(belongs, values - self.mean, 0.0)
        left = self.members - belongs
        squares = self.squares - deviation**2 * self.members / left
        return Shadows(left, self.mean - deviation / left, np.maximum(squares, 0.0))
