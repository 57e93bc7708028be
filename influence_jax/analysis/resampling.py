"""Bootstrap: how often each unit is drawn, and intervals from what the resamples say."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from influence_jax.types import AnyArray, PRNGKey

_WEIGHTS_AT_ONCE = 2_000_000


class Interval(NamedTuple):
    """An estimate and the percentile interval of its bootstrap."""

    value: float
    low: float
    high: float


def weights(key: PRNGKey, *, units: int, resamples: int) -> Iterator[Float[np.ndarray, 'b U']]:
    """Yields, some resamples at a time, how many times each unit is drawn in each of them.

    Raises:
      ValueError: fewer than 2 resamples.
    """
    if resamples < 2:
        raise ValueError(f'{resamples=} must be at least 2')
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    at_once = max(1, _WEIGHTS_AT_ONCE // units)
    for start in range(0, resamples, at_once):
        drawn = (min(at_once, resamples - start), units)
        chosen = generator.integers(units, size=drawn) + units * np.arange(drawn[0])[:, None]
        counts = np.bincount(chosen.ravel(), minlength=drawn[0] * units)
        yield counts.reshape(drawn).astype(np.float64)


def weights_of_groups(
    key: PRNGKey, *, groups: Int[AnyArray, ' T'], resamples: int
) -> Iterator[Float[np.ndarray, 'b T']]:
    """As `weights`, where whole groups are drawn: how many times each of their targets is.

    What depends on each other, such as the versions of one record, must be drawn together.

    Args:
      key: draws the groups.
      groups: `[T]` the same number for targets of one group.
      resamples: how many times.

    Raises:
      ValueError: as `weights` does.
    """
    ids, group = np.unique(np.asarray(groups), return_inverse=True)
    for some in weights(key, units=len(ids), resamples=resamples):
        yield some[:, group]


def interval(value: float, resampled: Float[np.ndarray, ' b'], level: float) -> Interval:
    """The middle `level` of the resampled values; NaN where none is defined.

    Raises:
      ValueError: `level` outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f'{level=} must lie strictly between 0 and 1')
    defined = resampled[~np.isnan(resampled)]
    if not defined.size or np.isnan(value):
        return Interval(float(value), float('nan'), float('nan'))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def jackknife_error(without: Float[AnyArray, ' B *shape']) -> Float[np.ndarray, ' *shape']:
    """Standard error of a statistic, from its values without each of B equal parts in turn.

    For units that cannot be drawn twice, such as models that would be their own shadows.

    Raises:
      ValueError: fewer than 2 parts.
    """
    values = np.asarray(without, np.float64)
    if len(values) < 2:
        raise ValueError(f'{len(values)} parts are too few to leave one out: give 2 or more')
    return np.sqrt((len(values) - 1) * values.var(axis=0))
