"""Standard errors of a difference of means between random subsets of the members.

Without influence the mask column of an example is independent of the losses, so both groups of
members are draws from the same losses and share one variance. Welch's error takes each group's
own, and has hardly any degrees of freedom where one group is small: among many entries it is far
too small for some. So the error of an entry is Student's, of the squares within both groups
together, and Welch's only where the entry is beyond what noise does and Welch's is the larger.

The functions take arrays of numpy or of jax; `xp` is the module of theirs.
"""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

from influence_jax.estimators.moments import Moments
from influence_jax.types import AnyArray

SURELY_NOT_NOISE = 4.0
"""|z| from which on the two groups of an entry are not taken for alike; noise: 6 in 100,000."""

WIDEST = 1.3
"""By what an error is multiplied at most for the shape of losses."""

# How far the 97.5 % point of a sum moves, as a part of itself, for an excess kurtosis and a
# squared skewness of 1: Edgeworth's second order, x = 1.96.
_BY_KURTOSIS = (1.96**2 - 3) / 24
_BY_SKEWNESS = (1.96**4 - 10 * 1.96**2 + 15) / 72


class Shape(NamedTuple):
    """Third and fourth moments of each target's losses over all members.

    skewness: `[t]`.
    kurtosis: `[t]` in excess of a normal distribution's.
    """

    skewness: Float[AnyArray, ' t']
    kurtosis: Float[AnyArray, ' t']


def shape(losses: Float[AnyArray, 'M t'], *, xp: ModuleType = np) -> Shape:
    """The shape of centered losses; 0 for a target of which all are equal."""
    squares = losses * losses  # products, since powers are slow
    powers = (squares, squares * losses, squares * squares)
    return _shape(*(power.mean(axis=0) for power in powers), xp=xp)


def shape_of(moments: Moments) -> Shape:
    """As `shape`, from the moments of each target's losses."""
    powers = (moments.second, moments.third, moments.fourth)
    return _shape(*(power / moments.count for power in powers), xp=np)


def _shape(second: Any, third: Any, fourth: Any, *, xp: ModuleType) -> Shape:
    """From the means of powers."""
    known = second > 0
    second = xp.where(known, second, 1)
    return Shape(
        xp.where(known, third / second**1.5, 0), xp.where(known, fourth / second**2 - 3, 0)
    )


def standard_error(
    difference: Any,
    within_in: Any,
    within_out: Any,
    *,
    included: Any,
    members: Any,
    of: Shape,
    xp: ModuleType = np,
) -> Any:
    """The standard error of differences of means; all arguments broadcast to one shape.

    `difference` +- Student's t (M - 2 degrees of freedom) times this error is meant to hold the
    truth: of skewed or heavy-tailed losses and few members with the example it is widened by
    Edgeworth's second order under the randomness of the masks (our reconstruction).

    Args:
      difference: mean without the example - mean with it.
      within_in: sum of squares about their mean of the members with the example.
      within_out: of those without it.
      included: how many members have the example, at least 2 and at most M - 2.
      members: M.
      of: the shape of the losses.
      xp: numpy or jax.numpy.
    """
    excluded = members - included
    within = within_in + within_out
    pooled = within / (members - 2) * (1 / included + 1 / excluded)
    factors = widening_factors(included, members=members)
    pooled = pooled * _widening(factors, of=of, xp=xp) ** 2
    welch = within_in / ((included - 1) * included) + within_out / ((excluded - 1) * excluded)
    unlike = difference**2 > SURELY_NOT_NOISE**2 * pooled
    return xp.sqrt(xp.where(unlike, xp.maximum(pooled, welch), pooled))


def error_of_weighted_sum(
    value: Float[np.ndarray, ' t'],
    weights: Float[np.ndarray, ' M'],
    losses: Float[np.ndarray, 'M t'],
    by_members: Float[np.ndarray, ' t'],
) -> Float[np.ndarray, ' t']:
    """As `standard_error`, of sums of differences of means: of losses times members' weights.

    Args:
      value: the sums.
      weights: of sum 0.
      losses: centered.
      by_members: root of the sum of squares of what each member adds, where Welch's error is that
        of a single difference.
    """
    members, squares = len(weights), np.square(weights).sum()
    within = np.maximum(np.square(losses).sum(axis=0) - value**2 / squares, 0)
    factors = WideningFactors(
        _BY_KURTOSIS * (members * (weights**4).sum() / squares**2 - 3) / members,
        _BY_SKEWNESS * (members * (weights**3).sum() ** 2 / squares**3) / members,
    )
    widening = _widening(factors, of=shape(losses), xp=np)
    pooled = within / (members - 2) * squares * widening**2
    unlike = value**2 > SURELY_NOT_NOISE**2 * pooled
    return np.sqrt(np.where(unlike, np.maximum(pooled, by_members**2), pooled))


class WideningFactors(NamedTuple):
    """By how much an error grows for each of the losses' kurtosis and squared skewness.

    by_kurtosis: for an excess kurtosis of 1.
    by_skewness: for a squared skewness of 1.
    """

    by_kurtosis: Any
    by_skewness: Any


def widening_factors(included: Any, *, members: Any) -> WideningFactors:
    """Of differences between members with an example, so many of all, and those without it."""
    spread = included * (members - included) / members**2
    return WideningFactors(
        _BY_KURTOSIS * ((1 - 6 * spread) / spread) / members,
        _BY_SKEWNESS * ((1 - 2 * included / members) ** 2 / spread) / members,
    )


def _widening(factors: WideningFactors, *, of: Shape, xp: ModuleType) -> Any:
    """For losses of that shape."""
    widening = 1 + factors.by_kurtosis * of.kurtosis + factors.by_skewness * of.skewness**2
    return xp.clip(widening, 1, WIDEST)


class Reliability(NamedTuple):
    """How far a standard error can be believed that is the root of a sum of squares.

    variance: the sum of squares of the members' contributions to an estimate.
    freedom: degrees of freedom of Student's t with which value +- t error covers.
    effective_members: on how many members the estimate rests: of losses that differ in k members
        alone it is k, however many others there are.
    """

    variance: Any
    freedom: Any
    effective_members: Any


def reliability(contributions: Any, *, members: int, axis: int, xp: ModuleType = np) -> Reliability:
    """From each member's contribution to an estimate: its residual times its weight.

    The variance of a sum of squares is seen in the fourth powers (Satterthwaite's approximation).
    A skewed sum needs more: by Cochran's rule an interval by Student's t is good where the
    number of members is large against the squared skewness of one, that is where 1 / (squared
    skewness of the sum) is large. In units in which a few members that alone carry an effect
    count one each, that is the effective number, and half of it the degrees of freedom
    (our reconstruction; calibrated in docs/results/calibration.md).
    """
    largest = xp.abs(contributions).max(axis=axis, keepdims=True)
    # Fourth powers of small numbers would vanish in float32.
    contributions = contributions / xp.where(largest > 0, largest, 1)
    squares = contributions * contributions
    of = reliability_of_powers(
        squares.sum(axis=axis),
        (squares * contributions).sum(axis=axis),
        (squares * squares).sum(axis=axis),
        members=members,
        xp=xp,
    )
    return of._replace(variance=of.variance * xp.squeeze(largest, axis=axis) ** 2)


def reliability_of_powers(
    second: Any, third: Any, fourth: Any, *, members: int, xp: ModuleType = np
) -> Reliability:
    """As `reliability`, from sums of the second to fourth powers of the contributions."""
    known = second > 0
    squares = xp.where(known, second, 1)
    # The fourth powers are never less than the bound.
    by_kurtosis = 3 * squares**2 / xp.maximum(fourth, squares**2 / members)
    skewness = xp.maximum(third**2 / squares**3, 1e-30)
    return Reliability(
        xp.where(known, second, 0),
        xp.where(
            known, xp.clip(xp.minimum(by_kurtosis, 0.5 / skewness), 1, members - 2), members - 2
        ),
        xp.where(known, xp.minimum(xp.minimum(by_kurtosis, 1 / skewness), members), members),
    )


def widened(freedom: Float[np.ndarray, '...'], *, members: int) -> Float[np.ndarray, '...']:
    """What an error of so many degrees of freedom must be multiplied by.

    So that it is read like all others, with Student's t of M - 2 degrees of freedom at 95 %.
    """
    return scipy.special.stdtrit(freedom, 0.025) / scipy.special.stdtrit(members - 2, 0.025)
