"""What is known and what is not: z-scores, p-values, intervals, false discoveries."""

import math

import numpy as np
import scipy
from jaxtyping import Bool, Float

from influence_jax.threads import in_threads
from influence_jax.types import AnyArray, Influence

SURE = 1e-18
"""Where a bound of a p-value is so small, the bound will do."""

_ENTRIES = 2**16  # losses that a thread looks at together: they stay in its cache
_MOST_STEPS = 100
_CONVERGED = 1e-4  # of the last step: steps converge quadratically, and p-values to 1e-7
_LARGEST_STEP = 2.0  # in units of the logit: Newton's method overshoots far out
_LARGEST_TILT = 700.0


def z_scores(
    values: Float[AnyArray, '...'], standard_errors: Float[AnyArray, '...']
) -> Float[np.ndarray, '...']:
    """Values in standard errors; infinite where the error is zero, NaN where both are."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.asarray(values) / np.asarray(standard_errors)


def p_values(z: Float[AnyArray, '...'], *, members: int | None) -> Float[np.ndarray, '...']:
    """Two-sided p-values of z-scores under 'no influence', float64.

    By Student's t with M - 2 degrees of freedom, as the errors are estimated from the same members.

    Args:
      z: z-scores; NaN gives NaN.
      members: M, complete members behind them, at least 3; None for the normal distribution, of
        errors that are not estimated from members.

    Raises:
      ValueError: fewer than 3 members.
    """
    return np.asarray(
        2 * scipy.special.stdtr(_freedom(members), -np.abs(np.asarray(z, np.float64)))
    )


def z_of_p(p: float, *, members: int | None) -> float:
    """The |z| whose two-sided p-value is `p`: the inverse of `p_values`."""
    return float(-scipy.special.stdtrit(_freedom(members), p / 2))


def intervals(
    influence: Influence, *, members: int | None, level: float = 0.95
) -> tuple[Float[np.ndarray, 'N T'], Float[np.ndarray, 'N T']]:
    """Confidence intervals of every entry, each entry by itself: `(low, high)`, both `[N T]`.

    Args:
      influence: values and standard errors, of any shape.
      members: M, complete members behind them; None as in `p_values`.
      level: in (0, 1), how many in a hundred such intervals hold the truth.

    Raises:
      ValueError: `level` outside (0, 1), or fewer than 3 members.
    """
    if not 0 < level < 1:
        raise ValueError(f'{level=} must lie strictly between 0 and 1')
    reach = z_of_p(1 - level, members=members) * np.asarray(influence.standard_error)
    values = np.asarray(influence.values)
    return values - reach, values + reach


def selected_intervals(
    values: Float[AnyArray, '...'],
    standard_errors: Float[AnyArray, '...'],
    *,
    members: int | None,
    selected: int,
    candidates: int,
    level: float = 0.95,
) -> tuple[Float[np.ndarray, '...'], Float[np.ndarray, '...']]:
    """Confidence intervals of what was selected by its value: `(low, high)`.

    Of the intervals of all that was selected, on average at most 1 - level miss the truth (false
    coverage rate, Benjamini and Yekutieli 2005): each is one of level 1 - (1 - level) R / m.
    `intervals` of selected entries alone miss it far more often.

    Args:
      values: of the selected entries, of any shape.
      standard_errors: of the same.
      members: M, complete members behind them; None as in `p_values`.
      selected: R, how many were selected.
      candidates: m, from how many.
      level: in (0, 1).

    Raises:
      ValueError: `level` outside (0, 1), more selected than candidates, fewer than 3 members.
    """
    if not 0 < level < 1:
        raise ValueError(f'{level=} must lie strictly between 0 and 1')
    if selected > candidates:
        raise ValueError(f'{selected=} are more than the {candidates=} they were selected from')
    p = (1 - level) * max(selected, 1) / max(candidates, 1)
    reach = z_of_p(p, members=members) * np.asarray(standard_errors)
    values = np.asarray(values)
    return values - reach, values + reach


def benjamini_hochberg(
    p: Float[AnyArray, '...'], *, level: float = 0.05, tests: int | None = None
) -> Bool[np.ndarray, '...']:
    """Which of many p-values are discoveries, at most `level` of them false on average.

    Benjamini and Hochberg (1995); also right for positively dependent tests.

    Args:
      p: p-values of any shape; NaN is never a discovery.
      level: false discovery rate, in (0, 1).
      tests: how many tests were made in all, where only the smallest p-values are given.

    Raises:
      ValueError: `level` outside (0, 1), or fewer `tests` than p-values.
    """
    if not 0 < level < 1:
        raise ValueError(f'{level=} must lie strictly between 0 and 1')
    p = np.asarray(p, np.float64)
    tests = p.size if tests is None else tests
    if tests < p.size:
        raise ValueError(f'{tests=} are fewer than the {p.size} p-values given')
    if not p.size:
        return np.zeros(p.shape, bool)
    adjusted = scipy.stats.false_discovery_control(np.where(np.isnan(p), 1.0, p), axis=None)
    return (adjusted * (tests / p.size) <= level).reshape(p.shape)


def _freedom(members: int | None) -> float:
    if members is None:
        return math.inf
    if members < 3:
        raise ValueError(f'{members} members leave no degrees of freedom: use at least 3')
    return members - 2


def largest_of_noise(*, members: int | None, examples: int, targets: int) -> float:
    """The |z| that one entry in a whole matrix without any influence is expected to exceed upwards.

    Bonferroni over N T, Student's t with M - 2 degrees of freedom.
    """
    return float(-scipy.special.stdtrit(_freedom(members), 1 / (examples * targets)))


def randomization_p_values(
    columns: Bool[np.ndarray, 'P M'], losses: Float[np.ndarray, 'P M'], *, sure: float = SURE
) -> Float[np.ndarray, ' P']:
    """Two-sided p-values of differences of means, by the randomness of the masks; float64.

    Under 'no influence' the members that have an example are a random n of the M members, whatever
    the losses are: narrow, skewed, or with a few extremes. The distribution of the sum of n losses
    drawn without replacement is known (a permutation test), and its tail is computed by a double
    saddlepoint (Robinson 1982, Annals of Statistics 10:91; Skovgaard 1987, Journal of Applied
    Probability 24:875), whose relative error is small however far out. Student's t and Welch's
    test are right for normal losses only, the further out the more so.

    Twice the smaller tail; or an upper bound of it (Bernstein's), which takes no time, where that
    is small enough.

    Args:
      columns: which members have the example.
      losses: of the same members on the target, in any unit.
      sure: the largest bound that will do.
    """

    def of_some(some: slice) -> Float[np.ndarray, ' p']:
        centered = losses[some] - losses[some].mean(axis=1, dtype=np.float64, keepdims=True)
        spread = np.abs(centered).max(axis=1, keepdims=True)
        standardized = centered / np.where(spread > 0, spread, 1)
        bound = 2 * _bernstein(columns[some], standardized)
        is_high = standardized > standardized.min(axis=1, keepdims=True)
        highest = standardized.max(axis=1, keepdims=True)
        two_valued = (is_high == (standardized == highest)).all(axis=1)
        doubtful = np.flatnonzero((bound > sure) & (spread[:, 0] > 0) & ~two_valued)
        bound[doubtful] = 2 * _smaller_tail(columns[some][doubtful], standardized[doubtful])
        counted = np.flatnonzero(two_valued)
        if counted.size:  # scipy takes milliseconds for no distribution at all
            bound[counted] = 2 * _tail_of_counts(columns[some][counted], is_high[counted])
        return np.where(spread[:, 0] > 0, bound, 1.0)

    step = max(1, _ENTRIES // columns.shape[1])
    p = np.concatenate([np.empty(0), *in_threads(of_some, len(columns), step=step)])
    return at_least_one_subset(p, columns.sum(axis=1), columns.shape[1])


def at_least_one_subset(
    p: Float[np.ndarray, ' P'], included: AnyArray, members: int
) -> Float[np.ndarray, ' P']:
    """No tail is smaller: the members that have the example are one of so many choices.

    Args:
      p: two-sided p-values.
      included: `[P]` how many members have the example.
      members: M.
    """
    included = np.asarray(included, np.float64)
    log_choices = scipy.special.gammaln(members + 1) - scipy.special.gammaln(included + 1)
    chance = np.exp(scipy.special.gammaln(members - included + 1) - log_choices)
    return np.clip(p, np.minimum(2 * chance, 1.0), 1.0)


def _tail_of_counts(
    columns: Bool[np.ndarray, 'P M'], is_high: Bool[np.ndarray, 'P M']
) -> Float[np.ndarray, ' P']:
    """The smaller tail of losses of two values, as of correctness, exactly: hypergeometric."""
    members, high = columns.shape[1], is_high.sum(axis=1)
    included, both = columns.sum(axis=1), (columns & is_high).sum(axis=1)
    of = scipy.stats.hypergeom(members, high, included)
    return np.minimum(of.cdf(both), of.sf(both - 1))


def _bernstein(
    columns: Bool[np.ndarray, 'P M'], losses: Float[np.ndarray, 'P M']
) -> Float[np.ndarray, ' P']:
    """Bernstein's bound of the tail, which holds for draws without replacement (Hoeffding 1963).

    From either group of members, the smaller. Losses are centered and within [-1, 1].
    """
    count, total = columns.sum(axis=1), np.einsum('pm,pm->p', columns, losses)
    variance = np.square(losses).mean(axis=1)
    exponent = np.zeros(len(columns))
    for size in (count, columns.shape[1] - count):
        size = np.maximum(size, 1)
        beyond = np.abs(total) / size
        exponent = np.maximum(
            exponent, size * beyond**2 / np.maximum(2 * variance + 2 / 3 * beyond, 1e-300)
        )
    return np.exp(-exponent)


def _smaller_tail(
    columns: Bool[np.ndarray, 'P M'], losses: Float[np.ndarray, 'P M']
) -> Float[np.ndarray, ' P']:
    """Barndorff-Nielsen's form of the tail beyond a saddlepoint.

    Members enter independently with probability n / M, given that n enter: cumulants of (sum of
    losses, number) are K(u, v) = sum over members of log(1 - f + f exp(u y + v)). Losses are
    centered and within [-1, 1].
    """
    members = columns.shape[1]
    count, total = columns.sum(axis=1), (columns * losses).sum(axis=1)
    share = count / members
    odds = scipy.special.logit(share)[:, None]
    # Where it would be if losses were normal.
    squares = (losses**2).sum(axis=1)
    u = total / np.where(squares > 0, share * (1 - share) * squares, 1)
    v = np.zeros(len(columns))
    active = np.arange(len(columns))
    for _ in range(_MOST_STEPS):
        y = losses[active]
        p = scipy.special.expit(odds[active] + u[active, None] * y + v[active, None])
        uu, uv, vv, determinant = _curvature(p, y)
        by_u, by_v = total[active] - (p * y).sum(axis=1), count[active] - p.sum(axis=1)
        du, dv = (vv * by_u - uv * by_v) / determinant, (uu * by_v - uv * by_u) / determinant
        shrink = np.minimum(1, _LARGEST_STEP / np.maximum(np.abs(du) + np.abs(dv), 1e-300))
        u[active] = np.clip(u[active] + shrink * du, -_LARGEST_TILT, _LARGEST_TILT)
        v[active] += shrink * dv
        active = active[np.abs(du) + np.abs(dv) > _CONVERGED * (1 + np.abs(u[active]))]
        if not active.size:
            break
    tilted = odds + u[:, None] * losses + v[:, None]
    cumulant = (np.logaddexp(0, tilted) - np.logaddexp(0, odds)).sum(axis=1)
    w = np.sqrt(2 * np.maximum(u * total + v * count - cumulant, 0))
    *_, determinant = _curvature(scipy.special.expit(tilted), losses)
    q = np.abs(u) * np.sqrt(determinant / (members * share * (1 - share)))
    near = (w < 1e-3) | (q < 1e-3)  # at the center of the distribution: a half
    safe_w, safe_q = np.where(near, 1, w), np.where(near, 1, q)
    return scipy.special.ndtr(-np.where(near, w, safe_w + np.log(safe_q / safe_w) / safe_w))


def _curvature(
    p: Float[np.ndarray, 'P M'], losses: Float[np.ndarray, 'P M']
) -> tuple[Float[np.ndarray, ' P'], ...]:
    """Second derivatives of the cumulants, and their determinant."""
    weight = p * (1 - p)
    uu, uv, vv = (weight * losses**2).sum(axis=1), (weight * losses).sum(axis=1), weight.sum(axis=1)
    return uu, uv, vv, np.maximum(uu * vv - uv**2, 1e-300)
