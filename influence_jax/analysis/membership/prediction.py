"""How well scores of the records foretell which of them an attack succeeds on."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.resampling import Interval
from influence_jax.estimators.difference_of_means import difference_in_means
from influence_jax.estimators.ensemble import complete_members
from influence_jax.estimators.estimator import EstimatorLike
from influence_jax.estimators.summary import summarize
from influence_jax.estimators.uncertainty import z_scores
from influence_jax.types import AnyArray, Masks, Measurement, PRNGKey


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

    vulnerability_ranks = [resampling.Ranking(row) for row in truth]
    rankings = {
        n: [resampling.Ranking(row) for row in score[:, known]] for n, score in scores.items()
    }
    statistics: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    for drawn in resampling.observed_and_drawn(key, groups=together, resamples=resamples):
        true_ranks = [ranking.ranks(drawn) for ranking in vulnerability_ranks]
        for name, rounds in rankings.items():
            of_rounds = [
                _statistics(ranking, ranks, extreme, drawn)
                for ranking, ranks, extreme in zip(rounds, true_ranks, extremes, strict=True)
            ]
            statistics[name].append(np.mean(of_rounds, axis=0))
    table = {name: np.concatenate(parts, axis=1) for name, parts in statistics.items()}
    return _rows(table, targets=int(known.sum()), level=level)


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


def _statistics(
    ranking: resampling.Ranking,
    true_ranks: Float[np.ndarray, 'b T'],
    extreme: Bool[np.ndarray, ' T'],
    drawn: Float[np.ndarray, 'b T'],
) -> Float[np.ndarray, '2 b']:
    """Spearman correlation, and AUROC for the extreme ones; NaN where not defined."""
    middle = (drawn.sum(axis=1, keepdims=True) + 1) / 2
    a, b = ranking.ranks(drawn) - middle, true_ranks - middle
    products = [np.einsum('bt,bt,bt->b', drawn, x, y) for x, y in ((a, b), (a, a), (b, b))]
    with np.errstate(divide='ignore', invalid='ignore'):
        spearman = products[0] / np.sqrt(products[1] * products[2])
    return np.stack([spearman, ranking.auroc(drawn, extreme)])


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


def predictors(
    masks: Masks,
    losses: Measurement,
    *,
    estimator: EstimatorLike = difference_in_means,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> dict[str, Float[np.ndarray, ' T']]:
    """Scores of every target, by name, that may foretell how well its membership is inferred.

    'self-influence': I(t => t). 'standardized self-influence': that in its standard errors, so that
    records of different spread can be compared. 'margin', 'floored margin', 'z margin': as in
    `Summary`. 'total influence': sum of the target's column. 'mean loss': over all members,
    without regard to the masks. Margins are ratios, what is standardized has no unit, the others
    have that of the losses.

    Args:
      masks: `[M N]` bool.
      losses: `[M T]`; rows with anything non-finite are left out.
      estimator: of the influences.
      target_examples: as in `summarize`.

    Returns:
      `[T]` each; both self-influences NaN where a target is no example, margins as in their
      functions.

    Raises:
      ValueError: as `summarize` does.
    """
    masks, losses = complete_members(masks, losses)
    summary = summarize(
        masks, losses, estimator=estimator, top_k=2, target_examples=target_examples
    )
    return {
        'self-influence': summary.self_influence,
        'standardized self-influence': z_scores(
            summary.self_influence, summary.self_standard_error
        ),
        'margin': summary.margin,
        'floored margin': summary.floored_margin,
        'z margin': summary.z_margin,
        'total influence': summary.mean * masks.shape[1],
        'mean loss': losses.mean(axis=0, dtype=np.float64),
    }
