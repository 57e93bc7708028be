"""What is known and what is not: z-scores, p-values, intervals, false discoveries."""

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from influence_jax.types import AnyArray, Influence


def z_scores(
    values: Float[AnyArray, '...'], standard_errors: Float[AnyArray, '...']
) -> Float[np.ndarray, '...']:
    """Values in standard errors; infinite where the error is zero, NaN where both are."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.asarray(values) / np.asarray(standard_errors)


def p_values(z: Float[AnyArray, '...'], *, members: int) -> Float[np.ndarray, '...']:
    """Two-sided p-values of z-scores under 'no influence', float64.

    By Student's t with M - 2 degrees of freedom, as the errors are estimated from the same members.

    Args:
      z: z-scores; NaN gives NaN.
      members: M, usable members behind them; at least 3.

    Raises:
      ValueError: fewer than 3 members.
    """
    return 2 * scipy.stats.t.sf(np.abs(np.asarray(z, np.float64)), _freedom(members))


def z_of_p(p: float, *, members: int) -> float:
    """The |z| whose two-sided p-value is `p`: the inverse of `p_values`."""
    return float(scipy.stats.t.isf(p / 2, _freedom(members)))


def intervals(
    influence: Influence, *, members: int, level: float = 0.95
) -> tuple[Float[np.ndarray, 'N T'], Float[np.ndarray, 'N T']]:
    """Confidence intervals of every entry, each entry by itself: `(low, high)`, both `[N T]`.

    Args:
      influence: values and standard errors, of any shape.
      members: M, usable members behind them.
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
    members: int,
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
      members: M, usable members behind them.
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
    ascending = np.sort(p, axis=None)
    below = np.flatnonzero(ascending <= level * np.arange(1, p.size + 1) / max(tests, 1))
    return p <= ascending[below[-1]] if below.size else np.zeros(p.shape, bool)


def _freedom(members: int) -> int:
    if members < 3:
        raise ValueError(f'{members} members leave no degrees of freedom: use at least 3')
    return members - 2


def largest_of_noise(*, members: int, examples: int, targets: int) -> float:
    """The |z| that one entry in a whole matrix without any influence is expected to exceed upwards.

    Bonferroni over N T, Student's t with M - 2 degrees of freedom.
    """
    return float(scipy.stats.t.isf(1 / (examples * targets), _freedom(members)))
