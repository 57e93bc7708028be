"""Counts over a range that grows with what is counted, exactly and in one pass."""

import math

import numpy as np
from jaxtyping import Float


class GrowingHistogram:
    """Evenly spaced bins over [-r, r), r the least power of two beyond everything counted.

    When r doubles, neighbouring bins are joined, so that the counts are those which the final
    edges would have given from the start. The number of bins is a multiple of 4 for that.
    """

    def __init__(self, bins: int) -> None:
        if bins < 4 or bins % 4:
            raise ValueError(f'{bins=} must be a positive multiple of 4')
        self._exponent: int | None = None
        # Exact halves of one another whatever the number of bins, so that edges nest.
        self._edges_of_unit = np.arange(-bins // 2, bins // 2 + 1) / (bins // 2)
        self.counts = np.zeros(bins, np.int64)

    @property
    def edges(self) -> Float[np.ndarray, 'bins+1']:
        """`[bins + 1]` ascending."""
        return np.ldexp(self._edges_of_unit, self._exponent or 0)

    def reach(self, largest: float) -> None:
        """Lets the bins enclose everything of absolute value up to `largest`."""
        needed = math.frexp(largest)[1]
        if self._exponent is None:
            self._exponent = needed
        while self._exponent < needed:
            joined = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(joined, len(joined) // 2)
            self._exponent += 1

    def count(self, ascending: Float[np.ndarray, 'rows n'], weight: int = 1) -> None:
        """Adds `weight` for each entry of sorted rows; entries outside of the edges are ignored."""
        edges = self.edges
        for row in ascending:
            self.counts += weight * np.diff(np.searchsorted(row, edges))
