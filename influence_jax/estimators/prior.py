"""Means of influences before a target's own members are looked at, learnt from all targets.

The mean of an entry: a regression of the ensemble's noisy estimates on cheap scores, piecewise
linear in each, since few scores of a column are anything but noise. How far entries are from their
means: `odds`.

Means are cross-fitted: of two halves of the members, each is predicted by what the other taught.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators.mask_products import HALVES, HalfEstimates
from influence_jax.kernels import scores as kernel
from influence_jax.threads import in_threads

_KNOTS = (-4, -2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16)
"""Standardized scores at which the slope of a mean may change."""

_FEWEST = 20  # entries on either side of a knot
_EXAMPLE_BLOCKS = 32
_AT_ONCE = 16  # targets of a thread
_ENTRIES = 2**16  # of a thread, in its cache
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
        examples, targets = scores.shape[1:]
        mean = np.zeros((examples, targets), np.float32)

        def of_some(rows: slice) -> None:
            rest = iter(self.coefficients)
            for score, knots in zip(scores, self.knots, strict=True):
                for feature in _features(score[rows], knots):
                    mean[rows] += np.float32(next(rest)) * feature

        in_threads(of_some, examples, step=max(1, _ENTRIES // targets))
        return mean


def standardize(
    scores: Float[np.ndarray, 'N t'],
    self_index: Int[np.ndarray, ' t'],
    found: Float[np.ndarray, 'N t'],
) -> bool:
    """Scores centered and scaled within each target; 0 for own ones, and where all are the same.

    Args:
      scores: float32.
      self_index: the example that each target is, -1 for none.
      found: to be filled.

    Returns:
      Whether all scores are finite; else what was found is of no use.
    """
    if kernel.there():
        if scores.strides[1] != scores.itemsize or scores.strides[0] % scores.itemsize:
            scores = scores.copy()
        return kernel.standardize(scores, self_index.astype(np.int32), found)
    if not np.isfinite(scores).all():
        return False

    def of_some(targets: slice) -> None:
        others = np.arange(len(scores))[:, None] != self_index[targets]
        weights = others / np.maximum(others.sum(axis=0), 1)
        some = np.asarray(scores[:, targets], np.float64)
        # Exact where all are the same, whatever their mean is rounded to.
        centered = some - some[others.argmax(axis=0), np.arange(some.shape[1])]
        centered -= np.einsum('nt,nt->t', centered, weights)
        deviation = np.sqrt(np.einsum('nt,nt,nt->t', centered, centered, weights))
        found[:, targets] = centered / np.where(deviation > 0, deviation, 1) * others

    in_threads(of_some, scores.shape[1], step=_AT_ONCE)
    return True


def knots_of(scores: Float[np.ndarray, 'F N t']) -> tuple[Float[np.ndarray, ' _'], ...]:
    """Knots of each score: those that have entries of these scores on both sides."""
    knots = np.array(_KNOTS, np.float64)
    found = []
    for score in scores:
        above = len(score.ravel()) - np.searchsorted(np.sort(score, axis=None), knots)
        fewest = np.minimum(above, score.size - above)
        found.append(knots[fewest >= _FEWEST])
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
    halves: HalfEstimates,
    unit: Float[np.ndarray, ' t'],
) -> tuple[Moments, Moments]:
    """The moments of each target, and those of each block of examples over these targets.

    About the mean of the target's column: what all entries have in common, such as the effect of
    the subsets' size, is not for scores to explain.

    Args:
      scores: `standardized`.
      knots: of each score.
      halves: estimates by either half of the members.
      unit: standard deviation of each target's losses.
    """
    bounds = np.linspace(0, scores.shape[1], _EXAMPLE_BLOCKS + 1).astype(int)
    size = sum(len(of) + 1 for of in knots)
    if kernel.there():
        features = kernel.Features(scores, knots, *halves, unit)
        of_target, of_block = (_moments_of(of, size) for of in features.moments(bounds))
        return of_target, of_block
    blocks = [slice(*ends) for ends in itertools.pairwise(bounds)]
    estimates = halves.values() / np.where(unit > 0, unit, np.inf)
    estimates -= estimates.mean(axis=1, keepdims=True)
    squares = np.zeros((scores.shape[2], len(blocks), size, size))
    products = np.zeros((2, scores.shape[2], len(blocks), size))

    def of_some(targets: slice) -> None:
        for target in range(targets.start, targets.stop):
            pairs = zip(np.ascontiguousarray(scores[:, :, target]), knots, strict=True)
            features = np.stack([one for score, of in pairs for one in _features(score, of)])
            features -= features.mean(axis=1, keepdims=True)
            of_target = np.ascontiguousarray(estimates[:, :, target])
            for place, block in enumerate(blocks):
                some = features[:, block]
                squares[target, place] = some @ some.T
                products[:, target, place] = of_target[:, block] @ some.T

    in_threads(of_some, scores.shape[2], step=_AT_ONCE)
    return (
        Moments(squares.sum(axis=1), products.sum(axis=2)),
        Moments(squares.sum(axis=0), products.sum(axis=1)),
    )


def _moments_of(products: Float[np.ndarray, 'groups G G'], size: int) -> Moments:
    """From products of features, and of both estimates behind them, above the diagonal."""
    squares = products[:, :size, :size]
    return Moments(
        np.triu(squares) + np.triu(squares, 1).swapaxes(1, 2),
        np.ascontiguousarray(products[:, :size, size:].transpose(2, 0, 1)),
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
    ridge = 1e-6 * np.trace(total) / len(total) or 1.0  # of scores that are all the same
    ridged = total + ridge * np.eye(len(total))
    coefficients = np.linalg.solve(ridged, by_target.products.sum(axis=1).T).T

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


def means(
    taught: tuple[Means, Means],
    scores: Float[np.ndarray, 'F N t'],
    halves: HalfEstimates,
    unit: Float[np.ndarray, ' t'],
    *,
    members: int,
) -> Float[np.ndarray, '2 N t']:
    """Means of all entries by what either half taught, with the target's own slope by that half.

    Args:
      taught: by either half of the members.
      scores: standardized.
      halves: estimates by either half.
      unit: standard deviation of each target's losses, by which means are multiplied.
      members: M.
    """
    noise = np.array([4 / len(range(members)[half]) for half in HALVES])
    variance = np.array([of.slope_variance for of in taught])
    if kernel.there():
        coefficients = np.array([of.coefficients for of in taught], np.float32)
        features = kernel.Features(scores, taught[0].knots, *halves, unit)
        return features.means(coefficients, noise=noise, variance=variance)
    divisor, estimates = np.where(unit > 0, unit, np.float32(np.inf)), halves.values()
    found = np.empty(estimates.shape, np.float32)
    for half, of in enumerate(taught):
        found[half] = of(scores)
        found[half] *= unit * own_slopes(
            found[half], estimates[half] / divisor, noise=noise[half], variance=variance[half]
        )
    return found


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


def spaced(targets: int, most: int) -> Int[np.ndarray, ' t']:
    """At most so many targets, evenly spaced."""
    return np.unique(np.linspace(0, targets - 1, min(targets, most)).round().astype(int))
