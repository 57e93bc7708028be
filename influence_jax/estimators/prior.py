"""What is known of influences before a target's own members are looked at, learnt from all targets.

Two parts, both learnt from the ensemble. The *mean* of an entry: a regression of the ensemble's
noisy estimates on cheap scores, piecewise linear in each, since few scores of a column are
anything but noise. Its *odds* of being far from that mean: a mixture of a spike and of slabs of
many widths (adaptive shrinkage: Stephens 2017, doi 10.1093/biostatistics/kxw041), with its own
weights for entries of small and of large mean.

Means are cross-fitted: of two halves of the members, each is predicted by what the other taught.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.types import AnyArray

HALVES = slice(0, None, 2), slice(1, None, 2)
"""Members of even and of odd number."""

_TAIL = 1 - np.geomspace(0.5, 2.0**-15, 15)
"""Quantiles of means between which the odds are the same."""

_KNOTS = (-4, -2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)
"""Standardized scores at which the slope of a mean may change."""

_SLABS = np.concatenate([2.0 ** np.arange(0.5, 4, 0.5), 2.0 ** np.arange(4, 9)])
"""Standard deviations of the slabs, in standard errors of the entry."""

_CELLS = np.sinh(np.linspace(np.arcsinh(-500), np.arcsinh(500), 1201))
_NULL_ENTRIES = 10.0  # of none, added to all before the weights are learnt, as in Stephens (2017)
_POOLED_ENTRIES = 50.0  # of all bins, added to each bin
_ROUNDS = 6
_STEPS = 60
_BISECTIONS = 24
_FEWEST_IN_A_BIN = 20
_EXAMPLE_BLOCKS = 32
_SURE = 2.0  # standard errors by which a slope must differ from none


class Means(NamedTuple):
    """How the mean of an entry follows from its scores, as one half of the members has it.

    knots: of each score, where the slope changes; of scores standardized within their target.
    coefficients: `[P]` in standard deviations of the target's losses.
    slope_variance: between targets, of what their coefficients are multiplied by.
    """

    knots: tuple[Float[np.ndarray, ' _'], ...]
    coefficients: Float[np.ndarray, ' P']
    slope_variance: float

    @property
    def any(self) -> bool:
        """Whether scores say anything."""
        return bool(np.any(self.coefficients))

    def __call__(self, scores: Float[np.ndarray, 'F N t']) -> Float[np.ndarray, 'N t']:
        """Means of all entries, before a target's own slope; scores are `standardized`."""
        mean, rest = np.zeros(scores.shape[1:], np.float32), iter(self.coefficients)
        for score, knots in zip(scores, self.knots, strict=True):
            for feature in _features(score, knots):
                mean += np.float32(next(rest)) * feature
        return mean


def standardized(
    scores: Float[AnyArray, 'F N t'], is_other: Bool[np.ndarray, 'N t']
) -> Float[np.ndarray, 'F N t']:
    """Scores centered and scaled within each target; 0 for own ones, and where all are the same."""
    weights = is_other / np.maximum(is_other.sum(axis=0), 1)
    centered = np.asarray(scores, np.float64)
    centered = centered - (centered * weights).sum(axis=1, keepdims=True)
    deviation = np.sqrt((centered**2 * weights).sum(axis=1, keepdims=True))
    return (centered / np.where(deviation > 0, deviation, 1) * is_other).astype(np.float32)


def knots_of(scores: Float[np.ndarray, 'F N t']) -> tuple[Float[np.ndarray, ' _'], ...]:
    """Knots of each score: those that have entries of these scores on both sides."""
    knots = np.array(_KNOTS, np.float64)
    found = []
    for score in scores:
        above = len(score.ravel()) - np.searchsorted(np.sort(score, axis=None), knots)
        fewest = np.minimum(above, score.size - above)
        found.append(knots[fewest >= _FEWEST_IN_A_BIN])
    return tuple(found)


class Moments(NamedTuple):
    """Products of the features of entries, with one another and with data, by groups of entries.

    squares: `[groups P P]`.
    products: `[2 groups P]` with the estimates of either half of the members.
    """

    squares: Float[np.ndarray, 'groups P P']
    products: Float[np.ndarray, '2 groups P']


def moments(
    scores: Float[np.ndarray, 'F N t'],
    knots: tuple[Float[np.ndarray, ' _'], ...],
    estimates: Float[np.ndarray, '2 N t'],
) -> tuple[Moments, Moments]:
    """The moments of each target, and those of each block of examples over these targets.

    About the mean of the target's column: what all entries have in common, such as the effect of
    the subsets' size, is not for scores to explain.

    Args:
      scores: `standardized`.
      knots: of each score.
      estimates: by either half, in standard deviations of the target's losses.
    """
    examples = np.linspace(0, scores.shape[1], _EXAMPLE_BLOCKS + 1).astype(int)
    blocks = [slice(*ends) for ends in itertools.pairwise(examples)]
    size = sum(len(of) + 1 for of in knots)
    estimates = estimates - estimates.mean(axis=1, keepdims=True)
    squares = np.zeros((scores.shape[2], len(blocks), size, size))
    products = np.zeros((2, scores.shape[2], len(blocks), size))
    for target in range(scores.shape[2]):
        pairs = zip(scores[:, :, target], knots, strict=True)
        features = np.stack([feature for score, of in pairs for feature in _features(score, of)])
        features -= features.mean(axis=1, keepdims=True)
        for place, block in enumerate(blocks):
            some = features[:, block]
            squares[target, place] = some @ some.T
            products[:, target, place] = estimates[:, block, target] @ some.T
    return (
        Moments(squares.sum(axis=1), products.sum(axis=2)),
        Moments(squares.sum(axis=0), products.sum(axis=1)),
    )


def learn_means(
    by_target: Moments, by_examples: Moments, knots: tuple[Float[np.ndarray, ' _'], ...]
) -> tuple[Means, Means]:
    """The regression by either half, times the slope with which it predicts the other half.

    That slope is lowered by what noise reaches, so that scores which say nothing give means of 0.
    The noise of entries is common to a target, and to an example, which the same members have.

    Args:
      by_target: moments of each target.
      by_examples: of each block of examples, over the same targets.
      knots: of each score.
    """
    total = by_target.squares.sum(axis=0)
    ridge = 1e-6 * np.trace(total) / len(total) * np.eye(len(total))
    coefficients = np.linalg.solve(total + ridge, by_target.products.sum(axis=1).T).T

    def checked(of: Moments) -> tuple[Float[np.ndarray, '2 _'], Float[np.ndarray, '2 _']]:
        """Products of each half's means with the other half's estimates, and their squares."""
        predicted = np.einsum('hp,hgp->hg', coefficients, of.products[::-1])
        return predicted, np.einsum('hp,gpq,hq->hg', coefficients, of.squares, coefficients)

    predicted, squares = checked(by_target)
    whole = max(squares.sum(), np.finfo(np.float64).tiny)
    slope, error = predicted.sum() / whole, 0.0
    for of in (by_target, by_examples):
        found, expected = checked(of)
        off = (found - slope * expected).sum(axis=0)
        error = math.hypot(error, np.linalg.norm(off) / whole)
    slope = min(slope - (_SURE * error) ** 2 / slope, 1.0) if slope > _SURE * error else 0.0
    variance = 0.0
    if slope > 0:
        # Both halves' deviations from the common slope have independent noise.
        apart, weights = predicted / slope - squares, squares.prod(axis=0)
        variance = max(apart.prod(axis=0).sum() / max(weights.sum(), 1e-300), 0.0)
    first, second = (Means(knots, slope * part, float(min(variance, 1.0))) for part in coefficients)
    return first, second


def own_slopes(
    means: Float[np.ndarray, 'N t'],
    estimates: Float[np.ndarray, 'N t'],
    *,
    noise: float,
    variance: float,
) -> Float[np.ndarray, ' t']:
    """What each target's means are to be multiplied by: its own slope, shrunk towards 1.

    Args:
      means: of one half of the members.
      estimates: of the same half, in the same unit.
      noise: variance of an estimate.
      variance: of slopes between targets.
    """
    squares = np.maximum(np.square(means, dtype=np.float64).sum(axis=0), 1e-300)
    slope = (means * estimates).sum(axis=0, dtype=np.float64) / squares
    return np.maximum(1 + (slope - 1) * variance / (variance + noise / squares + 1e-300), 0)


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
        least = 1 / (1 + self.variances.max())
        for weights, variances in zip(self.weights.T, self.variances.T, strict=True):
            precision = 1 / (1 + variances)
            exponent = np.exp(-0.5 * (precision - least)[place] * squares)
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

    def add(
        self,
        means: Float[np.ndarray, ' n'],
        z: Float[np.ndarray, ' n'],
        of_halves: Float[np.ndarray, '2 n'],
    ) -> None:
        """Counts entries; both halves' estimates are in standard errors of the whole's."""
        place = np.searchsorted(self.edges, means)
        cell = np.clip(np.searchsorted(_CELLS, z) - 1, 0, len(_CELLS) - 2)
        bins, cells = self._counts.shape
        flat = np.bincount(place * cells + cell, minlength=bins * cells)
        self._counts += flat.reshape(bins, cells)
        self._entries += np.bincount(place, minlength=bins)
        product = of_halves.prod(axis=0)
        self._products += np.bincount(place, product, minlength=bins)
        self._squares += np.bincount(place, product**2, minlength=bins)

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
        seen = counts > 0
        counts, squares = counts[seen], ((_CELLS[1:] + _CELLS[:-1])[seen] / 2) ** 2
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
        weights[0] = 1 - weights.sum()
        return weights, variances


def _features(
    score: Float[np.ndarray, '...'], knots: Float[np.ndarray, ' _']
) -> list[Float[np.ndarray, '...']]:
    hinges = (np.maximum(score - np.float32(knot), 0) - max(-float(knot), 0) for knot in knots)
    return [score, *hinges]


def normal_z(z: Float[np.ndarray, '...'], *, freedom: int) -> Float[np.ndarray, '...']:
    """The normal z-score that is as far out as Student's t of so many degrees of freedom.

    Wallace (1959), doi 10.1214/aoms/1177706075, equation 4.
    """
    squared = freedom * np.log1p(np.square(z, dtype=np.float64) / freedom)
    return np.sign(z) * np.sqrt(squared) * (8 * freedom + 1) / (8 * freedom + 3)


def halves_of(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M t']
) -> Float[np.ndarray, '2 N t']:
    """Differences of means by either half of the members; 0 where one has no comparison."""
    found = []
    for half in HALVES:
        columns = masks[half] - masks[half].mean(axis=0, keepdims=True, dtype=np.float32)
        left = losses[half] - losses[half].mean(axis=0, keepdims=True)
        squares = np.square(columns).sum(axis=0)
        found.append(-(columns.T @ left) / np.where(squares > 0, squares, np.inf)[:, None])
    return np.array(found, np.float32)


def spaced(targets: int, most: int) -> Int[np.ndarray, ' t']:
    """At most so many targets, evenly spaced."""
    return np.unique(np.linspace(0, targets - 1, min(targets, most)).round().astype(int))
