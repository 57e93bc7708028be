"""How far influences are from their means, learnt from all targets.

A mixture of a spike and of slabs of many widths (adaptive shrinkage: Stephens 2017,
doi 10.1093/biostatistics/kxw041), with its own weights for entries of small and of large mean.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Complex64, Float, Int

from influence_jax.estimators.mask_products import HalfEstimates
from influence_jax.kernels import posterior as kernel
from influence_jax.threads import in_threads

_TAIL = 1 - np.geomspace(0.5, 2.0**-15, 15)
"""Quantiles of means between which the odds are the same."""

_SLABS = np.concatenate([2.0 ** np.arange(0.5, 4, 0.5), 2.0 ** np.arange(4, 9)])
"""Standard deviations of the slabs, in standard errors of the entry."""

_CELLS = np.linspace(np.arcsinh(-500), np.arcsinh(500), 1201)
"""Edges of the cells of a histogram of z, of which these are the inverse hyperbolic sines."""
_NULL_ENTRIES = 10.0  # of none, added to all before the weights are learnt, as in Stephens (2017)
_POOLED_ENTRIES = 50.0  # of all bins, added to each bin
_ROUNDS = 6
_STEPS = 60
_LEAST_WEIGHT = 1e-300  # of which posteriors, far out, can still be computed
_FEWEST_IN_A_BIN = 20
_SURE = 2.0  # standard errors by which halves may agree too little

_STEPS_A_UNIT = 2**11  # of log(1 + |z|)
_REACH = 2000.0  # |z|; beyond it the widest slab is alone
_BISECTIONS = 24
_PIECES = 8  # of a block that is counted, as counts take memory


class Odds(NamedTuple):
    """A mixture of normal distributions about the mean, in standard errors of the entry.

    edges: of the means, in standard deviations of the target's losses, between bins.
    weights: `[bins K]` of the components, sum 1; the first is the spike.
    variances: `[bins K]` of the same.
    """

    edges: Float[np.ndarray, ' E']
    weights: Float[np.ndarray, 'E+1 K']
    variances: Float[np.ndarray, 'E+1 K']

    def _components(
        self, means: Float[np.ndarray, '*shape'], z: Float[np.ndarray, '*shape']
    ) -> Iterator[tuple[Float[np.ndarray, '*shape'], Float[np.ndarray, '*shape']]]:
        """Yields of each: by what it shrinks z, its own variance too; and its weight, unscaled."""
        place, squares = np.searchsorted(self.edges, means), np.square(z)
        # Relative to the widest that is there, at which nothing is ever too far out.
        there = np.where(self.weights > 0, self.variances, 0)
        least = 1 / (1 + there.max(axis=1))
        for weights, variances in zip(self.weights.T, self.variances.T, strict=True):
            precision = 1 / (1 + variances)
            exponent = np.exp(-0.5 * np.maximum(precision - least, 0)[place] * squares)
            yield (1 - precision)[place], (weights * np.sqrt(precision))[place] * exponent

    def moments(
        self, means: Float[np.ndarray, '*shape'], z: Float[np.ndarray, '*shape']
    ) -> tuple[Float[np.ndarray, '*shape'], Float[np.ndarray, '*shape']]:
        """Posterior mean and standard deviation of deviations from the means, estimated as z."""
        total, first, second = (np.zeros(z.shape) for _ in range(3))
        for shrink, weight in self._components(means, z):
            total += weight
            first += weight * shrink
            second += weight * shrink**2
        kept = first / total
        return z * kept, np.sqrt(kept + z**2 * np.maximum(second / total - kept**2, 0))

    def tabulated(self) -> 'OddsTable':
        """The moments as a table, from which those of many entries are quickly read off."""
        steps = int(np.ceil(np.log1p(_REACH) * _STEPS_A_UNIT)) + 2
        z = np.expm1(np.arange(steps) / _STEPS_A_UNIT)
        between = [-np.inf, *self.edges, np.inf]
        table = np.empty((len(self.weights), steps), np.complex64)
        for place in range(len(table)):
            # Any mean of the bin: the upper end is in it.
            mean = between[place + 1] if place < len(self.edges) else np.inf
            first, table.imag[place] = self.moments(np.full(steps, mean), z)
            table.real[place] = first / np.where(z > 0, z, 1)
        table.real[:, 0] = table.real[:, 1]
        return OddsTable(self.edges.astype(np.float32), table)

    def quantile(
        self, means: Float[np.ndarray, '*shape'], z: Float[np.ndarray, '*shape'], level: float
    ) -> Float[np.ndarray, '*shape']:
        """The posterior's, by bisection."""
        components = list(self._components(means, z))
        total = sum(weight for _, weight in components)
        mean, deviation = self.moments(means, z)
        reach = deviation / np.sqrt(min(level, 1 - level))  # Chebyshev's inequality
        low, high = mean - reach, mean + reach
        for _ in range(_BISECTIONS):
            middle, below = (low + high) / 2, np.zeros(z.shape)
            for shrink, weight in components:
                below += weight * scipy.special.ndtr((middle - z * shrink) / np.sqrt(shrink))
            is_below = below < level * total
            low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
        return (low + high) / 2


class OddsTable(NamedTuple):
    """Moments of `Odds` at steps of |z|, linear between them.

    Within 2e-5 of the deviation, up to |z| = 2000.

    edges: see there.
    table: `[bins steps]` by what z is multiplied, and the deviation as the imaginary part.
    """

    edges: Float[np.ndarray, ' E']
    table: Complex64[np.ndarray, 'E+1 S']

    def moments(
        self, means: Float[np.ndarray, '*shape'], z: Float[np.ndarray, '*shape']
    ) -> tuple[Float[np.ndarray, '*shape'], Float[np.ndarray, '*shape']]:
        """As `Odds.moments`, float32."""
        steps = self.table.shape[1]
        size = np.log1p(np.abs(z).astype(np.float32)) * np.float32(_STEPS_A_UNIT)
        np.minimum(size, np.float32(steps - 1.5), out=size)
        step = size.astype(np.int32)
        place = np.searchsorted(self.edges, means).astype(np.int32) * np.int32(steps) + step
        flat = self.table.reshape(-1)
        found = flat[place]
        size -= step.astype(np.float32)
        found += (flat[place + 1] - found) * size
        return z * found.real, found.imag

    def of_entries(
        self,
        entries: kernel.Entries,
        values: Float[np.ndarray, 'N t'],
        errors: Float[np.ndarray, 'N t'],
    ) -> kernel.Work:
        """Posterior means and deviations of entries, in C++, see `kernel.Entries.posterior`."""
        return entries.posterior(self.table, values, errors, steps_a_unit=_STEPS_A_UNIT)


class Counts(NamedTuple):
    """Of some entries, by bins of means.

    cells: `[bins cells]` how many entries' z-scores are in each.
    entries: `[bins]` how many there are.
    products: `[bins]` sums of the products of both halves' estimates.
    squares: `[bins]` sums of the squares of these.
    """

    cells: Int[np.ndarray, 'bins cells']
    entries: Int[np.ndarray, ' bins']
    products: Float[np.ndarray, ' bins']
    squares: Float[np.ndarray, ' bins']

    @classmethod
    def of_all(cls, parts: Sequence['Counts']) -> 'Counts':
        """Of entries that were counted in parts."""
        return cls(*(np.sum(of, axis=0) for of in zip(*parts, strict=True)))


class Histogram:
    """Deviations from their means, counted by bins of means, and what they are without noise."""

    def __init__(self, means: Float[np.ndarray, ' _']) -> None:
        """Bins are between quantiles of these means; there is one where all are 0."""
        self.edges = np.empty(0)
        if np.any(means):
            fewest = _FEWEST_IN_A_BIN / means.size
            tail = _TAIL[fewest <= 1 - _TAIL]
            self.edges = np.unique(np.quantile(means, np.concatenate([1 - tail[::-1], tail])))
        bins = len(self.edges) + 1
        self._counts = np.zeros((bins, len(_CELLS) - 1))
        self._entries, self._products, self._squares = np.zeros((3, bins))

    def counts(
        self,
        means: Float[np.ndarray, ' n'],
        z: Float[np.ndarray, ' n'],
        of_halves: Float[np.ndarray, '2 n'],
    ) -> Counts:
        """Counts entries; both halves' estimates are in standard errors of the whole's."""
        bins, cells = self._counts.shape
        place = np.searchsorted(self.edges, means)
        cell = (np.arcsinh(z) / _CELLS[-1] + 1) * (cells / 2)
        cell = np.clip(cell.astype(int), 0, cells - 1)
        product = of_halves.prod(axis=0)
        return Counts(
            np.bincount(place * cells + cell, minlength=bins * cells).reshape(bins, cells),
            np.bincount(place, minlength=bins),
            np.bincount(place, product, minlength=bins),
            np.bincount(place, product**2, minlength=bins),
        )

    def counts_of_entries(self, entries: kernel.Entries, halves: HalfEstimates) -> Counts:
        """Counts a block of entries, but for own ones and those of constant targets, in C++.

        Args:
          entries: of the block, with the edges of this histogram.
          halves: deviations by either half of the members.
        """
        bins, cells = self._counts.shape
        work = entries.counts(*halves, end=np.sinh(_CELLS[-1]), cells=cells)

        def of_some(rows: slice) -> Counts:
            counts, (products, squares) = np.zeros((bins, cells), np.int64), np.zeros((2, bins))
            work(rows, counts, products, squares)
            return Counts(counts, counts.sum(axis=1), products, squares)

        examples = halves.sums.shape[1]
        return Counts.of_all(in_threads(of_some, examples, step=-(-examples // _PIECES)))

    def add(self, counts: Counts) -> None:
        """Adds some entries."""
        self._counts += counts.cells
        self._entries += counts.entries
        self._products += counts.products
        self._squares += counts.squares

    def odds(self) -> Odds:
        """The mixture of largest likelihood in each bin; a bin of few entries is like all.

        Errors that are a little too small look like a wider spike. So the mean square of entries
        is what both halves of the members agree on, whatever their noise: it gives the spike what
        slabs leave of it, never less than can be resolved, and bounds the slabs.
        """
        null = _NULL_ENTRIES * (np.arange(len(_SLABS) + 1) == 0)
        start = np.full(len(null), 1 / len(null))
        pooled, _ = self._mixture(slice(None), added=null, start=start)
        found = [
            self._mixture(slice(place, place + 1), added=_POOLED_ENTRIES * pooled, start=pooled)
            for place in range(len(self._counts))
        ]
        weights, variances = (np.array(part) for part in zip(*found, strict=True))
        return Odds(self.edges, weights, variances)

    def _mixture(
        self, bins: slice, *, added: Float[np.ndarray, ' K'], start: Float[np.ndarray, ' K']
    ) -> tuple[Float[np.ndarray, ' K'], Float[np.ndarray, ' K']]:
        """Weights and variances of components, by EM and the square that is agreed on in turn."""
        entries = max(self._entries[bins].sum(), 1)
        agreed = self._products[bins].sum() / entries
        error = max(np.sqrt(self._squares[bins].sum()), 1) / entries
        counts = self._counts[bins].sum(axis=0)
        seen, edges = counts > 0, np.sinh(_CELLS)
        counts, squares = counts[seen], ((edges[1:] + edges[:-1])[seen] / 2) ** 2
        weights, variances = start, np.concatenate([[1.0], _SLABS**2])
        for _ in range(_ROUNDS):
            density = np.exp(-0.5 * squares[:, None] / (1 + variances)) / np.sqrt(1 + variances)
            density = np.maximum(density, 1e-300)
            for _ in range(_STEPS):
                joint = density * weights
                share = counts @ (joint / joint.sum(axis=1, keepdims=True)) + added
                weights = share / share.sum()
            slabs = weights[1:] @ variances[1:]
            spike = np.clip((agreed - slabs) / weights[0], min(error, 1.0), 1.0)
            variances = np.concatenate([[spike], variances[1:]])
        most = max(agreed, 0) + _SURE * error
        weights = np.concatenate([[0.0], weights[1:] * min(1, most / max(slabs, 1e-300))])
        weights[weights < _LEAST_WEIGHT] = 0
        weights[0] = 1 - weights.sum()
        return weights, variances
