"""How often noise alone is so far from zero: p-values from the randomness of the masks.

Under 'no influence' the members that have an example are a random n of the M members, whatever
the losses are: narrow, skewed, or with a few extremes. The distribution of the sum of n losses
drawn without replacement is known (a permutation test), and its tail is computed by a double
saddlepoint (Robinson 1982, Annals of Statistics 10:91; Skovgaard 1987, Journal of Applied
Probability 24:875), whose relative error is small however far out. Student's t and Welch's test
are right for normal losses only, the further out the more so.
"""

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Bool, Float

_ENTRIES = 2**22  # losses looked at together
_MOST_STEPS = 100
_CONVERGED = 1e-6  # of the last step, and steps converge quadratically
_SURE = 1e-18  # where a bound of the p-value is so small, the bound will do
_LARGEST_STEP = 2.0  # in units of the logit: Newton's method overshoots far out
_LARGEST_TILT = 700.0


def p_values(
    columns: Bool[np.ndarray, 'P M'], losses: Float[np.ndarray, 'P M']
) -> Float[np.ndarray, ' P']:
    """Two-sided p-values, twice the smaller tail, of the differences of means; float64.

    Below 1e-18 an upper bound of it (Bernstein's), which takes no time.

    Args:
      columns: which members have the example.
      losses: of the same members on the target, in any unit.
    """
    p = np.ones(len(columns))
    chunk = max(1, _ENTRIES // columns.shape[1])
    for start in range(0, len(columns), chunk):
        some = slice(start, start + chunk)
        centred = losses[some] - losses[some].mean(axis=1, dtype=np.float64, keepdims=True)
        spread = np.abs(centred).max(axis=1, keepdims=True)
        standardized = centred / np.where(spread > 0, spread, 1)
        bound = 2 * _bernstein(columns[some], standardized)
        is_high = standardized > standardized.min(axis=1, keepdims=True)
        highest = standardized.max(axis=1, keepdims=True)
        two_valued = (is_high == (standardized == highest)).all(axis=1)
        doubtful = np.flatnonzero((bound > _SURE) & (spread[:, 0] > 0) & ~two_valued)
        bound[doubtful] = 2 * _smaller_tail(columns[some][doubtful], standardized[doubtful])
        counted = np.flatnonzero(two_valued)
        bound[counted] = 2 * _tail_of_counts(columns[some][counted], is_high[counted])
        p[some] = np.where(spread[:, 0] > 0, bound, 1.0)
    return np.clip(p, np.minimum(2 * _chance_of_one_subset(columns), 1.0), 1.0)


def _chance_of_one_subset(columns: Bool[np.ndarray, 'P M']) -> Float[np.ndarray, ' P']:
    """No tail is smaller: the members that have the example are one of so many choices."""
    included, members = columns.sum(axis=1), columns.shape[1]
    log_choices = scipy.special.gammaln(members + 1) - scipy.special.gammaln(included + 1)
    return np.exp(scipy.special.gammaln(members - included + 1) - log_choices)


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

    From either group of members, the smaller. Losses are centred and within [-1, 1].
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
    centred and within [-1, 1].
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
    near = (w < 1e-3) | (q < 1e-3)  # at the centre of the distribution: a half
    safe_w, safe_q = np.where(near, 1, w), np.where(near, 1, q)
    return scipy.special.ndtr(-np.where(near, w, safe_w + np.log(safe_q / safe_w) / safe_w))


def _curvature(
    p: Float[np.ndarray, 'P M'], losses: Float[np.ndarray, 'P M']
) -> tuple[Float[np.ndarray, ' P'], ...]:
    """Second derivatives of the cumulants, and their determinant."""
    weight = p * (1 - p)
    uu, uv, vv = (weight * losses**2).sum(axis=1), (weight * losses).sum(axis=1), weight.sum(axis=1)
    return uu, uv, vv, np.maximum(uu * vv - uv**2, 1e-300)
