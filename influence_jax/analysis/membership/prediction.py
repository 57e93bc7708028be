"""How well scores of the records foretell which of them an attack succeeds on."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.resampling import Interval
from influence_jax.types import AnyArray, PRNGKey


class Prediction(NamedTuple):
    """One predictor, a row of the table.

    name: of the predictor.
    spearman: rank correlation with the vulnerability.
    auroc: for the most vulnerable records against all others.
    spearman_gain: what `spearman` exceeds the first predictor's by, in the same resamples.
    auroc_gain: the same of `auroc`.
    targets: how many records had all predictors.
    """

    name: str
    spearman: Interval
    auroc: Interval
    spearman_gain: Interval
    auroc_gain: Interval
    targets: int


def predicts_vulnerability(
    predictors: Mapping[str, Float[AnyArray, '*R T']],
    vulnerability: Float[AnyArray, '*R T'],
    *,
    key: PRNGKey,
    groups: Int[AnyArray, ' T'] | None = None,
    most_vulnerable: float = 0.1,
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Prediction]:
    """The table of predictors, with bootstrap intervals over records, or groups of them.

    Predictors of unequal reliability cannot be compared by these numbers: one that is estimated
    with more noise predicts worse, whatever it is of. See `compare_predictors`.

    Where predictors and vulnerability come from the same members they share their noise. To keep
    them apart, give several rounds, such as predictors from one half of the members with
    the vulnerability under the other half, and the other way round: each round is judged by
    itself, and the mean over the rounds is reported, records being drawn alike in all.

    Args:
      predictors: `[T]` scores by name, or `[R T]` for R rounds; high is to mean vulnerable. The
        first is the one that all are compared with. Infinity ranks like other scores; records of
        which any predictor is NaN are left out for all.
      vulnerability: `[T]` or `[R T]`, such as `Vulnerability.auroc`.
      key: draws the records.
      groups: `[T]` the same number for records that are drawn together, such as near-duplicates;
        by default each by itself.
      most_vulnerable: in (0, 1), the share of the records that `auroc` is to tell from the rest;
        records tied with the last of them belong to them.
      resamples: how many times the records are drawn.
      level: of the intervals.

    Raises:
      ValueError: no predictor, shapes that disagree, a vulnerability that is not finite,
        fewer than 3 records with all predictors, all of which are most vulnerable, or shares
        outside (0, 1).
    """
    truth = np.atleast_2d(np.asarray(vulnerability, np.float64))
    scores = {n: np.atleast_2d(np.asarray(s, np.float64)) for n, s in predictors.items()}
    _check(scores, truth, most_vulnerable)
    if groups is not None and np.shape(groups) != truth.shape[1:]:
        raise ValueError(
            f'groups {list(np.shape(groups))} must be one number for {truth.shape[1]} records'
        )
    known = ~np.any([np.isnan(score).any(axis=0) for score in scores.values()], axis=0)
    if known.sum() < 3:
        raise ValueError(f'only {known.sum()} records have all predictors: at least 3 are needed')
    truth = truth[:, known]
    together = np.arange(truth.shape[1]) if groups is None else np.asarray(groups)[known]
    extremes = np.stack([_largest(row, most_vulnerable) for row in truth])

    vulnerability_ranks = [Ranking(row) for row in truth]
    rankings = {n: [Ranking(row) for row in score[:, known]] for n, score in scores.items()}
    statistics: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    for drawn in observed_and_drawn(key, groups=together, resamples=resamples):
        true_ranks = [ranking.ranks(drawn) for ranking in vulnerability_ranks]
        for name, rounds in rankings.items():
            of_rounds = [
                _statistics(ranking.ranks(drawn), ranks, extreme, drawn)
                for ranking, ranks, extreme in zip(rounds, true_ranks, extremes, strict=True)
            ]
            statistics[name].append(np.mean(of_rounds, axis=0))
    table = {name: np.concatenate(parts, axis=1) for name, parts in statistics.items()}
    return _rows(table, targets=int(known.sum()), level=level)


class Ranking:
    """Mid-ranks of scores in any resample, from one sort."""

    def __init__(self, scores: Float[np.ndarray, ' T']):
        self._order = np.argsort(scores)
        ascending = scores[self._order]
        self._below = np.searchsorted(ascending, scores)
        self._not_above = np.searchsorted(ascending, scores, side='right')

    def ranks(self, drawn: Float[np.ndarray, 'b T']) -> Float[np.ndarray, 'b T']:
        """Rank of every score among those drawn, each as often as it was; ties share theirs."""
        up_to = np.pad(np.cumsum(drawn[:, self._order], axis=1), [(0, 0), (1, 0)])
        return (up_to[:, self._below] + up_to[:, self._not_above] + 1) / 2


def _check(
    scores: Mapping[str, Float[np.ndarray, 'R T']],
    truth: Float[np.ndarray, 'R T'],
    most_vulnerable: float,
) -> None:
    if not scores:
        raise ValueError('no predictors: give at least one')
    for name, score in scores.items():
        if score.shape != truth.shape or truth.ndim != 2:
            raise ValueError(
                f'predictor {name!r} {list(score.shape)} and vulnerability {list(truth.shape)} '
                'must have the same records (and rounds)'
            )
    if not np.isfinite(truth).all():
        raise ValueError('the vulnerability of some records is not finite: leave these out first')
    if not 0 < most_vulnerable < 1:
        raise ValueError(f'{most_vulnerable=} must lie strictly between 0 and 1')


def _largest(truth: Float[np.ndarray, ' T'], share: float) -> Bool[np.ndarray, ' T']:
    count = math.ceil(share * len(truth))
    extreme = truth >= np.partition(truth, len(truth) - count)[len(truth) - count]
    if extreme.all():
        raise ValueError(
            f'the most vulnerable {share:.0%} of the {len(truth)} records are tied with all '
            'others: no predictor can tell them apart'
        )
    return extreme


def observed_and_drawn(
    key: PRNGKey, *, groups: Int[np.ndarray, ' T'], resamples: int
) -> Iterator[Float[np.ndarray, 'b T']]:
    """The sample itself first, then its resamples."""
    yield np.ones((1, len(groups)))
    yield from resampling.weights_of_groups(key, groups=groups, resamples=resamples)


def _statistics(
    ranks: Float[np.ndarray, 'b T'],
    true_ranks: Float[np.ndarray, 'b T'],
    extreme: Bool[np.ndarray, ' T'],
    drawn: Float[np.ndarray, 'b T'],
) -> Float[np.ndarray, '2 b']:
    """Spearman correlation, and AUROC for the extreme ones; NaN where not defined."""
    middle = (drawn.sum(axis=1, keepdims=True) + 1) / 2
    a, b = ranks - middle, true_ranks - middle
    products = [np.einsum('bt,bt,bt->b', drawn, x, y) for x, y in ((a, b), (a, a), (b, b))]
    positives = drawn[:, extreme].sum(axis=1)
    negatives = drawn.sum(axis=1) - positives
    rank_sum = (drawn * ranks)[:, extreme].sum(axis=1)
    with np.errstate(divide='ignore', invalid='ignore'):
        spearman = products[0] / np.sqrt(products[1] * products[2])
        auroc = (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
    return np.stack([spearman, auroc])


def _rows(
    table: Mapping[str, Float[np.ndarray, '2 b']], *, targets: int, level: float
) -> list[Prediction]:
    def interval(row: Float[np.ndarray, ' b']) -> Interval:
        return resampling.interval(row[0], row[1:], level)

    first: Sequence[np.ndarray] = tuple(next(iter(table.values())))
    return [
        Prediction(
            name,
            interval(spearman),
            interval(auroc),
            interval(spearman - first[0]),
            interval(auroc - first[1]),
            targets,
        )
        for name, (spearman, auroc) in table.items()
    ]
