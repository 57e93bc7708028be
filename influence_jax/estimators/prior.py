"""What is known of influences before a target's own members are looked at, learnt from all targets.

Two parts, both learnt from the ensemble. The *mean* of an entry: a regression of the ensemble's
noisy estimates on cheap scores, piecewise linear in each, since few scores of a column are
anything but noise. Its *odds* of being far from that mean: a mixture of a spike and of slabs of
many widths (adaptive shrinkage: Stephens 2017, doi 10.1093/biostatistics/kxw041), with its own
weights for entries of small and of large mean.

Means are cross-fitted: of two halves of the members, each is predicted by what the other taught.
"""

from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int

from influence_jax.types import AnyArray

HALVES = slice(0, None, 2), slice(1, None, 2)
"""Members of even and of odd number."""

_TAIL = 1 - np.geomspace(0.5, 2.0**-15, 15)
"""Quantiles of means between which the odds are the same."""

_KNOTS = (-4, -2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)
"""Standardized scores at which the slope of a mean may change."""

_WIDTHS = np.concatenate([[0.0], 2.0 ** np.arange(0, 9)])
"""Standard deviations of the mixture's components, in standard errors of the entry."""

_CELLS = np.sinh(np.linspace(np.arcsinh(-500), np.arcsinh(500), 1201))
_NULL_ENTRIES = 10.0  # of none, added to all before the weights are learnt, as in Stephens (2017)
_POOLED_ENTRIES = 50.0  # of all bins, added to each bin
_STEPS = 300
_FEWEST_IN_A_BIN = 20
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
    """Of each target: products of the features of its entries, with one another and with data.

    squares: `[t P P]`.
    products: `[2 t P]` with the estimates of either half of the members.
    """

    squares: Float[np.ndarray, 't P P']
    products: Float[np.ndarray, '2 t P']

    @classmethod
    def of(
        cls,
        scores: Float[np.ndarray, 'F N t'],
        knots: tuple[Float[np.ndarray, ' _'], ...],
        estimates: Float[np.ndarray, '2 N t'],
    ) -> 'Moments':
        """Target by target; estimates are in standard deviations of the target's losses."""
        squares, products = [], []
        for target in range(scores.shape[2]):
            features = np.stack(
                [
                    feature
                    for score, of in zip(scores[:, :, target], knots, strict=True)
                    for feature in _features(score, of)
                ]
            )
            squares.append(features @ features.T)
            products.append(estimates[:, :, target] @ features.T)
        return cls(np.array(squares, np.float64), np.array(products, np.float64).swapaxes(0, 1))


def learn_means(
    moments: Moments, knots: tuple[Float[np.ndarray, ' _'], ...]
) -> tuple[Means, Means]:
    """The regression by either half, times the slope with which it predicts the other half.

    That slope is lowered by what noise reaches, so that scores which say nothing give means of 0.
    """
    total = moments.squares.sum(axis=0)
    ridge = 1e-6 * np.trace(total) / len(total) * np.eye(len(total))
    coefficients = np.linalg.solve(total + ridge, moments.products.sum(axis=1).T).T
    # Of each half's means: with the other half's estimates, and their own squares.
    predicted = np.einsum('hp,htp->ht', coefficients, moments.products[::-1])
    squares = np.einsum('hp,tpq,hq->ht', coefficients, moments.squares, coefficients)
    whole = max(squares.sum(), np.finfo(np.float64).tiny)
    slope = predicted.sum() / whole
    error = np.sqrt(np.square((predicted - slope * squares).sum(axis=0)).sum()) / whole
    slope = min(slope - (_SURE * error) ** 2 / slope, 1.0) if slope > _SURE * error else 0.0
    variance = 0.0
    if slope > 0:
        # Both halves' deviations from the common slope have independent noise.
        apart = predicted / slope - squares
        weights = squares.prod(axis=0)
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
    weights: `[bins K]` of components of the widths `_WIDTHS`, sum 1.
    """

    edges: Float[np.ndarray, ' E']
    weights: Float[np.ndarray, 'E+1 K']

    def posterior(
        self, means: Float[np.ndarray, 'N t'], z: Float[np.ndarray, 'N t']
    ) -> 'Posterior':
        """Of deviations from the means that were estimated to be `z`, in standard errors."""
        widths = _WIDTHS**2
        log_density = -0.5 * (np.log1p(widths) + z[..., None] ** 2 / (1 + widths))
        with np.errstate(divide='ignore'):
            weights = np.log(self.weights)[np.searchsorted(self.edges, means)] + log_density
        weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return Posterior(weights, z, widths / (1 + widths))


class Posterior(NamedTuple):
    """Mixtures: component k is normal with the mean z shrink_k and the variance shrink_k.

    weights: `[N t K]`.
    z: `[N t]`.
    shrink: `[K]`.
    """

    weights: Float[np.ndarray, 'N t K']
    z: Float[np.ndarray, 'N t']
    shrink: Float[np.ndarray, ' K']

    def moments(self) -> tuple[Float[np.ndarray, 'N t'], Float[np.ndarray, 'N t']]:
        """Mean and standard deviation."""
        kept = self.weights @ self.shrink
        spread = self.weights @ self.shrink**2 - kept**2
        return self.z * kept, np.sqrt(kept + self.z**2 * np.maximum(spread, 0))

    def quantile(self, level: float) -> Float[np.ndarray, 'N t']:
        """By bisection; where the spike holds the quantile, it is 0."""
        mean, deviation = self.moments()
        reach = deviation / np.sqrt(min(level, 1 - level))  # Chebyshev's inequality
        low, high = mean - reach, mean + reach
        # A spike has no width: a thousandth of a standard error stands for it.
        scale = np.sqrt(np.maximum(self.shrink, 1e-6))
        for _ in range(24):
            middle = (low + high) / 2
            below = np.zeros_like(middle)
            for k, width in enumerate(scale):
                centered = (middle - self.z * self.shrink[k]) / width
                below += self.weights[..., k] * scipy.special.ndtr(centered)
            low, high = np.where(below < level, middle, low), np.where(below < level, high, middle)
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
        self._squares, self._entries = np.zeros(bins), np.zeros(bins)

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
        self._squares += np.bincount(place, of_halves.prod(axis=0), minlength=bins)

    def odds(self) -> Odds:
        """The mixture of largest likelihood in each bin, by EM; bins of few entries like all.

        Errors that are a little too small look like slabs everywhere. So what lies outside of the
        spike has, in the mean of a bin, at most the square that both halves agree on.
        """
        middle = (_CELLS[1:] + _CELLS[:-1]) / 2
        variance = 1 + _WIDTHS**2
        density = np.exp(-0.5 * middle[:, None] ** 2 / variance) / np.sqrt(variance)
        density = np.maximum(density, 1e-300)
        start = np.full(len(_WIDTHS), 1 / len(_WIDTHS))
        null = np.zeros(len(_WIDTHS))
        null[0] = _NULL_ENTRIES
        pooled = _mixture(self._counts.sum(axis=0), density, added=null, start=start)
        weights = np.array(
            [
                _mixture(counts, density, added=_POOLED_ENTRIES * pooled, start=pooled)
                for counts in self._counts
            ]
        )
        agreed = np.maximum(self._squares, 0) / np.maximum(self._entries, 1)
        implied = np.maximum(weights @ _WIDTHS**2, 1e-300)
        weights[:, 1:] *= np.minimum(agreed / implied, 1)[:, None]
        weights[:, 0] = 1 - weights[:, 1:].sum(axis=1)
        return Odds(self.edges, weights)


def _features(
    score: Float[np.ndarray, '...'], knots: Float[np.ndarray, ' _']
) -> list[Float[np.ndarray, '...']]:
    return [score, *(np.maximum(score - np.float32(knot), 0) for knot in knots)]


def _mixture(
    counts: Float[np.ndarray, ' C'],
    density: Float[np.ndarray, 'C K'],
    *,
    added: Float[np.ndarray, ' K'],
    start: Float[np.ndarray, ' K'],
) -> Float[np.ndarray, ' K']:
    weights = start
    seen = counts > 0
    counts, density = counts[seen], density[seen]
    for _ in range(_STEPS):
        joint = density * weights
        share = counts @ (joint / joint.sum(axis=1, keepdims=True))
        weights = (share + added) / (share + added).sum()
    return weights


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
