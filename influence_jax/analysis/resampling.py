"""Bootstrap: how often each unit is drawn, ranks in the resamples, and intervals."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.types import AnyArray, PRNGKey

_WEIGHTS_AT_ONCE = 2_000_000


class Interval(NamedTuple):
    """An estimate and the percentile interval of its bootstrap."""

    value: float
    low: float
    high: float


def host_generator(key: PRNGKey) -> np.random.Generator:
    """A generator for a few small draws on the host: under jax each would cost a compilation."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())


def weights(key: PRNGKey, *, units: int, resamples: int) -> Iterator[Float[np.ndarray, 'b U']]:
    """Yields, some resamples at a time, how many times each unit is drawn in each of them.

    Raises:
      ValueError: fewer than 2 resamples.
    """
    if resamples < 2:
        raise ValueError(f'{resamples=} must be at least 2')
    generator = host_generator(key)
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


def observed_and_drawn(
    key: PRNGKey, *, groups: Int[AnyArray, ' T'], resamples: int
) -> Iterator[Float[np.ndarray, 'b T']]:
    """Yields the sample itself first, then its resamples: see `weights_of_groups`."""
    yield np.ones((1, len(np.asarray(groups))))
    yield from weights_of_groups(key, groups=groups, resamples=resamples)


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


class Ranking:
    """Mid-ranks of scores, and their AUROC, in many resamples at once, from one sort."""

    def __init__(self, scores: Float[np.ndarray, ' T']):
        self._order = np.argsort(scores)
        ascending = scores[self._order]
        self._below = np.searchsorted(ascending, scores)
        self._not_above = np.searchsorted(ascending, scores, side='right')

    def ranks(self, drawn: Float[np.ndarray, 'b T']) -> Float[np.ndarray, 'b T']:
        """Rank of every score among those drawn, each as often as it was; ties share theirs."""
        up_to = np.pad(np.cumsum(drawn[:, self._order], axis=1), [(0, 0), (1, 0)])
        return (up_to[:, self._below] + up_to[:, self._not_above] + 1) / 2

    def auroc(
        self, drawn: Float[np.ndarray, 'b T'], positives: Bool[np.ndarray, ' T']
    ) -> Float[np.ndarray, ' b']:
        """AUROC of the scores in every resample; NaN where only one kind was drawn."""
        true = drawn[:, positives].sum(axis=1)
        both = true * (drawn.sum(axis=1) - true)
        rank_sum = (drawn * self.ranks(drawn))[:, positives].sum(axis=1)
        with np.errstate(divide='ignore', invalid='ignore'):
            return (rank_sum - true * (true + 1) / 2) / both
