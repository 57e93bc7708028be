"""How well two disjoint halves of the ensemble agree, against their size."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import scipy.stats
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.margins import top1_margin
from influence_jax.estimators.ensemble import examples_of_targets, usable
from influence_jax.types import AnyArray, Masks, Measurement, PRNGKey

_SAMPLED_COLUMNS = 256
_DEFAULT_SIZES = 8
_LEAST_DEFAULT_SIZE = 8


class Convergence(NamedTuple):
    """Agreement of two disjoint sets of members; mean over repeated random splits.

    members: `[S]` members in each of the two sets, ascending.
    self_influence: `[S]` Pearson correlation of the two sets' self-influences; NaN where no target
        is an example.
    off_diagonal: `[S]` the same of all other entries (of a sample of the columns).
    margin: `[S]` Spearman correlation of the two sets' Top-1 Influence Margins (same sample).
    """

    members: Int[np.ndarray, 'S']
    self_influence: Float[np.ndarray, 'S']
    off_diagonal: Float[np.ndarray, 'S']
    margin: Float[np.ndarray, 'S']


def split_half(
    masks: Masks,
    losses: Measurement,
    *,
    key: PRNGKey,
    sizes: Sequence[int] | None = None,
    repeats: int = 4,
    target_examples: Int[AnyArray, 'T'] | None = None,
) -> Convergence:
    """Estimates influence twice, from disjoint members, and correlates the two estimates.

    Differences of means; entries of examples that are always in or always out of a half are left
    out of the correlations, so that small halves can be asked for, too.

    Args:
      masks: `[M N]` bool.
      losses: `[M T]`; rows with anything non-finite are left out.
      key: draws the halves and the sample of columns.
      sizes: members in each half, 2 .. M/2; by default about 8, evenly spaced in the logarithm.
      repeats: random splits at each size, over which the correlations are averaged.
      target_examples: as in `summarize`.

    Raises:
      ValueError: fewer than 4 usable members, sizes outside 2 .. M/2, `repeats` below 1, or masks
        and losses as in `difference_in_means`.
    """
    masks, losses = usable(masks, losses)
    largest = len(masks) // 2
    if largest < 2:
        raise ValueError(f'two halves need at least 4 usable members, not {len(masks)}')
    if repeats < 1:
        raise ValueError(f'{repeats=} must be at least 1')
    members = _default_sizes(largest) if sizes is None else np.unique(np.asarray(sizes, int))
    if not members.size or members[0] < 2 or members[-1] > largest:
        raise ValueError(f'sizes of halves must lie in 2 .. {largest}, not {members.tolist()}')
    examples, targets = masks.shape[1], losses.shape[1]
    own = examples_of_targets(target_examples, examples=examples, targets=targets)
    # A few small shuffles on the host: under jax each would cost a compilation.
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    columns = generator.permutation(targets)[:_SAMPLED_COLUMNS]
    centred = (losses - losses.mean(axis=0, dtype=np.float64, keepdims=True)).astype(np.float32)

    curves = np.empty((3, len(members)))
    for s, size in enumerate(members):
        agreements = []
        for _ in range(repeats):
            order = generator.permutation(len(masks))
            first, second = (
                _estimate(masks[half], centred[half], own, columns)
                for half in (order[:size], order[size : 2 * size])
            )
            agreements.append(
                (
                    _correlation(first.selves, second.selves),
                    _correlation(first.others, second.others),
                    _correlation(first.margins, second.margins, ranks=True),
                )
            )
        curves[:, s] = _mean_of_defined(np.array(agreements))
    return Convergence(members, *curves)


def _default_sizes(largest: int) -> Int[np.ndarray, 'S']:
    least = min(_LEAST_DEFAULT_SIZE, largest)
    return np.unique(np.geomspace(least, largest, _DEFAULT_SIZES).round().astype(int))


class _Estimate(NamedTuple):
    """What one half says; NaN where an example was always in it or always out of it."""

    selves: Float[np.ndarray, 't']
    others: Float[np.ndarray, '_']
    margins: Float[np.ndarray, 'c']


def _estimate(
    masks: Bool[np.ndarray, 's N'],
    losses: Float[np.ndarray, 's T'],
    own: Int[np.ndarray, 'T'],
    columns: Int[np.ndarray, 'c'],
) -> _Estimate:
    is_example = own >= 0
    own_masks, own_losses = masks[:, own[is_example]], losses[:, is_example]
    selves = _difference(
        np.einsum('st,st->t', own_masks, own_losses),
        own_losses.sum(axis=0),
        own_masks.sum(axis=0, dtype=np.float32),
        len(masks),
    )
    sampled = losses[:, columns]
    matrix = _difference(
        masks.T.astype(np.float32) @ sampled,
        sampled.sum(axis=0, keepdims=True),
        masks.sum(axis=0, dtype=np.float32)[:, None],
        len(masks),
    )
    # What is not known is not among the two largest.
    margins = top1_margin(np.where(np.isnan(matrix), np.float32(-np.inf), matrix))
    off_diagonal = own[columns][None, :] != np.arange(len(matrix))[:, None]
    return _Estimate(selves, matrix[off_diagonal], margins)


def _difference(
    included_sum: np.ndarray, whole_sum: np.ndarray, included: np.ndarray, members: int
) -> np.ndarray:
    """Mean without - mean with; NaN where one of the two is of nobody."""
    with np.errstate(divide='ignore', invalid='ignore'):
        values = (whole_sum - included_sum) / (members - included) - included_sum / included
    return np.where(np.isfinite(values), values, np.nan)


def _correlation(a: np.ndarray, b: np.ndarray, *, ranks: bool = False) -> float:
    """Pearson's, or Spearman's, over the pairs that are defined; NaN where it has no meaning."""
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined].astype(np.float64), b[defined].astype(np.float64)
    if ranks:
        a, b = scipy.stats.rankdata(a), scipy.stats.rankdata(b)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float('nan')
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _mean_of_defined(values: Float[np.ndarray, 'R 3']) -> Float[np.ndarray, '3']:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # the mean of nothing is NaN
        return np.nanmean(values, axis=0)
