"""How well two disjoint halves of the ensemble agree, against their size."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.convergence.standard_errors import (
    known_influence,
    others,
    sampled_targets,
)
from influence_jax.analysis.margins import top1_margin
from influence_jax.analysis.resampling import host_generator
from influence_jax.estimators import (
    EstimatorLike,
    adjusted,
    as_estimator,
    benjamini_hochberg,
    difference_in_means,
    p_values,
    z_scores,
)
from influence_jax.estimators.ensemble import complete_members, examples_of_targets
from influence_jax.types import AnyArray, Masks, Measurement, PRNGKey

_MOST_DEFAULT_SIZES = 8
_LEAST_DEFAULT_SIZE = 8
_UNMEASURED = np.empty(0)


class Reliability(NamedTuple):
    """How reliable estimates are: how well they would agree with those of as many new members.

    members: of the ensemble.
    self_influence: NaN where no target is an example.
    off_diagonal: of all other entries.
    significant: of the pairs of example and other target found by members of their own; NaN where
        there were too few members or pairs.
    margin: of the ranks of Top-1 Influence Margins. A margin is no mean, and from two halves the
        formula promised more than was measured (docs/results/convergence.md).
    """

    members: int
    self_influence: float
    off_diagonal: float
    significant: float
    margin: float


class Convergence(NamedTuple):
    """Agreement of two disjoint sets of members; mean over repeated random splits.

    All of at most 256 sampled targets, fewer of more than 131,072 examples.

    members: `[S]` members in each of the two sets, ascending.
    self_influence: `[S]` Pearson correlation of the two sets' self-influences; NaN where no target
        is an example.
    off_diagonal: `[S]` the same of all other entries.
    margin: `[S]` Spearman correlation of the two sets' Top-1 Influence Margins.
    significant: `[S]` Pearson correlation over the off-diagonal entries that a third set, a third
        of all members, finds significant; NaN beyond M/3, where no such set is left.
    significant_pairs: `[S]` how many entries these were, mean of the splits.
    """

    members: Int[np.ndarray, ' S']
    self_influence: Float[np.ndarray, ' S']
    off_diagonal: Float[np.ndarray, ' S']
    margin: Float[np.ndarray, ' S']
    significant: Float[np.ndarray, ' S'] = _UNMEASURED
    significant_pairs: Float[np.ndarray, ' S'] = _UNMEASURED

    def reliability(self, members: int | None = None) -> Reliability:
        """Reliability of an ensemble, by default of the largest two halves together.

        Spearman and Brown's formula from the largest halves of which an agreement is known.

        Args:
          members: of the ensemble; also larger ones, whose reliability is thereby predicted.
        """
        whole = 2 * int(self.members[-1]) if members is None else members

        def lengthened(agreement: Float[np.ndarray, ' S']) -> float:
            known = np.flatnonzero(np.isfinite(agreement))
            if not known.size:
                return float('nan')
            largest = known[-1]
            return spearman_brown(float(agreement[largest]), whole / int(self.members[largest]))

        return Reliability(
            whole,
            lengthened(self.self_influence),
            lengthened(self.off_diagonal),
            lengthened(self.significant),
            lengthened(self.margin),
        )


def least_half(estimator: EstimatorLike) -> int:
    """The fewest members from which `split_half` lets an estimator make its estimate."""
    # Means differ without any errors: `_difference`.
    return 2 if estimator is difference_in_means else as_estimator(estimator).least_members


def split_half(
    masks: Masks,
    losses: Measurement,
    *,
    key: PRNGKey,
    estimator: EstimatorLike = difference_in_means,
    sizes: Sequence[int] | None = None,
    repeats: int = 4,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> Convergence:
    """Estimates influence twice, from disjoint members, and correlates the two estimates.

    Entries of examples that are always in or always out of a half are left out of the
    correlations, so that small halves can be asked for, too.

    Significant pairs are chosen by members that are in neither half: a pair chosen by a half's own
    noise would agree too well or, beside the unlucky other half, too badly. All estimators are
    judged on the same pairs: those of `adjusted` (of `difference_in_means`, where a third of the
    members is too few for it), 5 % false discoveries by Benjamini and Hochberg.

    Args:
      masks: `[M N]` bool.
      losses: `[M T]`; rows with anything non-finite are left out.
      key: draws the halves and the sample of targets; the same for every estimator.
      estimator: which estimate, see `as_estimator`.
      sizes: members in each half, `least_half(estimator)` .. M/2; by default up to 8, evenly
        spaced in the logarithm.
      repeats: random splits, over which the correlations are averaged. Within one, smaller halves
        are parts of the larger ones.
      target_examples: as in `summarize`.

    Raises:
      ValueError: too few complete members for two halves, sizes out of range, `repeats` below 1, or
        masks and losses as in `difference_in_means`.
    """
    estimator = as_estimator(estimator)
    masks, losses = complete_members(masks, losses)
    largest, least = len(masks) // 2, least_half(estimator)
    if largest < least:
        raise ValueError(
            f'two halves for the estimator {estimator.name} need at least {2 * least} complete '
            f'members, not {len(masks)}'
        )
    if repeats < 1:
        raise ValueError(f'{repeats=} must be at least 1')
    members = _default_sizes(least, largest) if sizes is None else np.unique(np.asarray(sizes, int))
    if not members.size or members[0] < least or members[-1] > largest:
        raise ValueError(
            f'sizes of halves for the estimator {estimator.name} must lie in '
            f'{least} .. {largest}, not {members.tolist()}'
        )
    examples, targets = masks.shape[1], losses.shape[1]
    self_index = examples_of_targets(target_examples, examples=examples, targets=targets)
    generator = host_generator(key)
    sample = np.sort(generator.permutation(targets)[: sampled_targets(examples)])
    self_index, losses = self_index[sample], losses[:, sample]
    third = len(masks) // 3

    curves = np.empty((repeats, 5, len(members)))
    for curve in curves:
        order = generator.permutation(len(masks))
        chosen = _significant(masks[order[-third:]], losses[order[-third:]], self_index)
        for s, size in enumerate(members):
            halves = order[:size], order[size : 2 * size]
            first, second = (
                _values(estimator, masks[half], losses[half], self_index) for half in halves
            )
            pairs = chosen if size <= third else np.zeros_like(chosen)
            curve[:, s] = *_agreement(first, second, self_index, pairs), pairs.sum()
    return Convergence(members, *_mean_of_defined(curves))


def _default_sizes(least: int, largest: int) -> Int[np.ndarray, ' S']:
    least = min(max(least, _LEAST_DEFAULT_SIZE), largest)
    # At least a factor of sqrt(2) apart: what is nearer tells nothing more.
    count = min(_MOST_DEFAULT_SIZES, 2 + int(2 * np.log2(largest / least)))
    return np.unique(np.geomspace(least, largest, count).round().astype(int))


def _agreement(
    first: Float[np.ndarray, 'N t'],
    second: Float[np.ndarray, 'N t'],
    self_index: Int[np.ndarray, ' t'],
    pairs: Bool[np.ndarray, 'N t'],
) -> tuple[float, float, float, float]:
    """In the order of `Convergence`."""
    off_diagonal = others(self_index, examples=len(first))
    # What is not known is not among the two largest.
    margins = [top1_margin(np.where(np.isnan(half), -np.inf, half)) for half in (first, second)]
    return (
        correlation(first[~off_diagonal], second[~off_diagonal]),
        correlation(first[off_diagonal], second[off_diagonal]),
        correlation(*margins, ranks=True),
        correlation(first[pairs], second[pairs]),
    )


def _significant(
    masks: Bool[np.ndarray, 'm N'],
    losses: Float[np.ndarray, 'm t'],
    self_index: Int[np.ndarray, ' t'],
) -> Bool[np.ndarray, 'N t']:
    """Off-diagonal entries that these members tell from zero; none where they are too few."""
    enough = [of for of in (adjusted, difference_in_means) if len(masks) >= of.least_members]
    chosen = others(self_index, examples=masks.shape[1])
    if not enough:
        return np.zeros_like(chosen)
    z = z_scores(*known_influence(enough[0], masks, losses, self_index))
    chosen[chosen] = benjamini_hochberg(p_values(z[chosen], members=len(masks)))
    return chosen


def _values(
    estimator: EstimatorLike,
    masks: Bool[np.ndarray, 's N'],
    losses: Float[np.ndarray, 's t'],
    self_index: Int[np.ndarray, ' t'],
) -> Float[np.ndarray, 'N t']:
    if estimator is difference_in_means:
        return _difference(masks, losses)
    return np.asarray(known_influence(estimator, masks, losses, self_index).values)


def _difference(
    masks: Bool[np.ndarray, 's N'], losses: Float[np.ndarray, 's t']
) -> Float[np.ndarray, 'N t']:
    """`difference_in_means` without its errors: NaN only where one of the means is of nobody."""
    centered = (losses - losses.mean(axis=0, dtype=np.float64, keepdims=True)).astype(np.float32)
    included = masks.sum(axis=0, dtype=np.float32)[:, None]
    sums = masks.T.astype(np.float32) @ centered
    with np.errstate(divide='ignore', invalid='ignore'):
        values = (centered.sum(axis=0, keepdims=True) - sums) / (len(masks) - included)
        values -= sums / included
    return np.where(np.isfinite(values), values, np.nan)


def _mean_of_defined(values: Float[np.ndarray, 'R 5 S']) -> Float[np.ndarray, '5 S']:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # the mean of nothing is NaN
        return np.nanmean(values, axis=0)


def correlation(
    a: Float[np.ndarray, '...'], b: Float[np.ndarray, '...'], *, ranks: bool = False
) -> float:
    """Pearson's, or Spearman's, over the pairs that are defined; NaN where it has no meaning."""
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined].astype(np.float64), b[defined].astype(np.float64)
    if ranks:
        a, b = scipy.stats.rankdata(a), scipy.stats.rankdata(b)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float('nan')
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def spearman_brown(agreement: float, factor: float = 2.0) -> float:
    """The reliability of `factor` times as many members, from the agreement r of two such sets.

    k r / (1 + (k - 1) r), so 2 r / (1 + r) for the whole of two halves (Spearman 1910, Brown
    1910): if independent errors have variance e, and what is estimated has v, then
    r = v / (v + e) and the answer is v / (v + e / k). A negative r comes of noise alone and is
    mirrored (our reconstruction), so that noise stays even about zero and within -1 .. 1.
    """
    return factor * agreement / (1 + (factor - 1) * abs(agreement))
