"""Two predictors of one criterion, compared with what noise takes from each allowed for."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.resampling import Interval
from influence_jax.types import AnyArray, PRNGKey

_AT_ONCE = 64


class PredictorComparison(NamedTuple):
    """How two predictors go with a criterion, by Spearman's correlation.

    Observed correlations shrink with the noise of what is correlated, so those of two predictors
    of unequal reliability say little of the two. *Corrected* ones are divided by the root of the
    product of both reliabilities (Spearman 1904), which estimates the correlation of what each
    would be on average over models; ranks make that an approximation. They may exceed 1. A partial
    correlation is NaN where one that it is made of does.

    spearman: of the first and of the second with the criterion, observed.
    reliability: of the first, of the second, and of the criterion: the correlation of two
        estimates of it by disjoint sets of members.
    corrected: `spearman`, corrected.
    advantage: corrected, of the first over the second.
    partial: of the first with the criterion given the second, and the other way round, observed.
    corrected_partial: the same of corrected correlations.
    targets: on how many.
    """

    spearman: tuple[Interval, Interval]
    reliability: tuple[Interval, Interval, Interval]
    corrected: tuple[Interval, Interval]
    advantage: Interval
    partial: tuple[Interval, Interval]
    corrected_partial: tuple[Interval, Interval]
    targets: int


def compare_predictors(
    first: Float[AnyArray, 'K T'],
    second: Float[AnyArray, 'K T'],
    criterion: Float[AnyArray, '#K H T'],
    *,
    key: PRNGKey,
    groups: Int[AnyArray, ' T'] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> PredictorComparison:
    """Compares two predictors, each estimated by K disjoint sets of members.

    Correlations with the criterion are means over the sets. Intervals are by bootstrap over
    targets, or groups of them, with the models as they are: to cover other models too, look at how
    the values change as models are left out.

    Args:
      first: from each of the sets; infinity ranks like other scores, targets that are NaN in
        anything are left out of everything.
      second: another predictor, from the same sets.
      criterion: for each set, by H disjoint lots of members that are not in it, such as
        `Vulnerability.auroc`. K may be 1 where it is the same for all sets.
      key: draws the targets.
      groups: `[T]` the same number for targets that are drawn together, such as near-duplicates.
      resamples: how many times.
      level: of the intervals.

    Raises:
      ValueError: shapes that disagree, fewer than 2 sets or lots, fewer than 4 targets that are
        defined, or a predictor or criterion that is the same for all of them.
    """
    one, other, lots = (np.asarray(a, np.float64) for a in (first, second, criterion))
    _check(one, other, lots, groups)
    stacked = np.concatenate([one, other, lots.reshape(-1, lots.shape[2])])
    known = ~np.isnan(stacked).any(axis=0)
    stacked = stacked[:, known]
    if known.sum() < 4 or (stacked == stacked[:, :1]).all(axis=1).any():
        raise ValueError(
            f'{known.sum()} targets have all scores: at least 4 are needed, not all alike'
        )
    together = np.arange(known.sum()) if groups is None else np.asarray(groups)[known]
    correlations = np.concatenate(
        [
            rank_correlations(stacked, drawn)
            for drawn in resampling.observed_and_drawn(key, groups=together, resamples=resamples)
        ]
    )
    table = _quantities(correlations, sets=len(one), lots=lots.shape[:2])

    def intervals(name: str) -> tuple[Interval, ...]:
        return tuple(resampling.interval(c[0], c[1:], level) for c in table[name])

    def two(name: str) -> tuple[Interval, Interval]:
        first, second = intervals(name)
        return first, second

    of_first, of_second, of_criterion = intervals('reliability')
    (advantage,) = intervals('advantage')
    return PredictorComparison(
        spearman=two('spearman'),
        reliability=(of_first, of_second, of_criterion),
        corrected=two('corrected'),
        advantage=advantage,
        partial=two('partial'),
        corrected_partial=two('corrected_partial'),
        targets=int(known.sum()),
    )


def rank_correlations(
    scores: Float[np.ndarray, 'V T'], drawn: Float[np.ndarray, 'b T']
) -> Float[np.ndarray, 'b V V']:
    """Spearman's correlations of all scores with each other, targets counting as often as drawn."""
    rankings = [resampling.Ranking(row) for row in scores]
    parts = []
    for some in _pieces(drawn):
        ranks = np.stack([ranking.ranks(some) for ranking in rankings], axis=1)
        middle = (some.sum(axis=1) + 1) / 2
        weighted = (ranks - middle[:, None, None]) * np.sqrt(some)[:, None]
        products = weighted @ weighted.transpose(0, 2, 1)
        scale = np.sqrt(np.einsum('bvv->bv', products))
        with np.errstate(divide='ignore', invalid='ignore'):
            parts.append(products / (scale[:, :, None] * scale[:, None, :]))
    return np.concatenate(parts)


def partial(
    direct: Float[np.ndarray, ' *b'],
    between: Float[np.ndarray, ' *b'],
    of_other: Float[np.ndarray, ' *b'],
) -> Float[np.ndarray, ' *b']:
    """Partial correlation of a predictor with a criterion, given another predictor.

    Args:
      direct: of the predictor with the criterion.
      between: of the two predictors.
      of_other: of the other predictor with the criterion.

    Returns:
      NaN where a correlation is not inside (-1, 1), as corrected ones need not be.
    """
    with np.errstate(invalid='ignore', divide='ignore'):
        left = np.sqrt(1 - between**2) * np.sqrt(1 - of_other**2)
        found = (direct - between * of_other) / left
    return np.where(np.abs(direct) < 1, found, np.nan)


def _pieces(drawn: Float[np.ndarray, 'b T']) -> Iterator[Float[np.ndarray, 'p T']]:
    for start in range(0, len(drawn), _AT_ONCE):
        yield drawn[start : start + _AT_ONCE]


def _quantities(
    r: Float[np.ndarray, 'b V V'], *, sets: int, lots: tuple[int, ...]
) -> dict[str, tuple[Float[np.ndarray, ' b'], ...]]:
    """The fields of a comparison, from all correlations of first, second and criterion."""
    rounds, per_round = lots
    one, other = np.arange(sets), sets + np.arange(sets)
    place = 2 * sets + np.arange(rounds * per_round).reshape(rounds, per_round)
    of_set = [place[k if rounds > 1 else 0] for k in range(sets)]

    def mean(pairs: Iterator[tuple[int, int]]) -> Float[np.ndarray, ' b']:
        return np.mean([r[:, a, b] for a, b in pairs], axis=0)

    direct = [mean((who[k], c) for k in range(sets) for c in of_set[k]) for who in (one, other)]
    reliable = [mean(itertools.combinations(who, 2)) for who in (one, other)]
    reliable.append(mean(p for row in place for p in itertools.combinations(row, 2)))
    same = mean(zip(one, other, strict=True))
    # Of different sets: within one, both predictors have the same noise.
    across = mean((one[k], other[m]) for k, m in itertools.permutations(range(sets), 2))
    with np.errstate(invalid='ignore', divide='ignore'):
        corrected = [
            d / np.sqrt(rel * reliable[2]) for d, rel in zip(direct, reliable, strict=False)
        ]
        between = across / np.sqrt(reliable[0] * reliable[1])
    return {
        'spearman': tuple(direct),
        'reliability': tuple(reliable),
        'corrected': tuple(corrected),
        'advantage': (corrected[0] - corrected[1],),
        'partial': (partial(direct[0], same, direct[1]), partial(direct[1], same, direct[0])),
        'corrected_partial': (
            partial(corrected[0], between, corrected[1]),
            partial(corrected[1], between, corrected[0]),
        ),
    }


def _check(
    one: Float[np.ndarray, '...'],
    other: Float[np.ndarray, '...'],
    lots: Float[np.ndarray, '...'],
    groups: Int[AnyArray, ' T'] | None,
) -> None:
    shapes = f'first {list(one.shape)}, second {list(other.shape)}, criterion {list(lots.shape)}'
    if one.ndim != 2 or one.shape != other.shape or lots.ndim != 3:
        raise ValueError(f'{shapes}: give [sets targets] twice and [sets lots targets]')
    if lots.shape[0] not in (1, len(one)) or lots.shape[2] != one.shape[1]:
        raise ValueError(f'{shapes}: they must have the same sets and targets')
    if len(one) < 2 or lots.shape[1] < 2:
        raise ValueError(f'{shapes}: reliability needs 2 sets and 2 lots of members, or more')
    if groups is not None and np.shape(groups) != one.shape[1:]:
        raise ValueError(
            f'groups {list(np.shape(groups))} must be one number for {one.shape[1]} targets'
        )
