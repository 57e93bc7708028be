"""Records with near-duplicates beside unique ones, and the scores that distinguish them.

As in the table of 'Counterfactual Influence as a Distributional Quantity', arXiv 2506.20481.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.extraction import Extraction, Siblings
from influence_jax.analysis.resampling import Interval
from influence_jax.analysis.scores import Score, aurocs, check, influence_scores
from influence_jax.estimators.summary import Summary
from influence_jax.types import AnyArray, PRNGKey


class Spread(NamedTuple):
    """Of a score over the targets of one kind.

    mean: of the finite values; NaN without any.
    standard_deviation: of the same, over n - 1; NaN with fewer than 2.
    median: of all that are defined, infinite ones included.
    targets: how many are defined.
    infinite: how many of these are infinite, and so not in the mean.
    """

    mean: float
    standard_deviation: float
    median: float
    targets: int
    infinite: int


class ScoreComparison(NamedTuple):
    """A score of unique and of near-duplicated targets, and how well it tells them apart.

    name: for people.
    low_marks: whether it is the low values that should mark near-duplicates.
    unique: its values over the unique targets.
    near_duplicated: its values over the others.
    near_duplicates_auroc: how well it finds targets that have near-duplicates.
    extractable_auroc: how well it finds extractable targets; None where nothing was decoded, and
        of BLEU, by which they are defined.
    """

    name: str
    low_marks: bool
    unique: Spread
    near_duplicated: Spread
    near_duplicates_auroc: Interval
    extractable_auroc: Interval | None


class Comparison(NamedTuple):
    """Unique against near-duplicated targets.

    groups: `[T]` the same number for the near-duplicates of one record.
    near_duplicated: `[T]` targets that share a group with another target.
    scores: self-influence, BLEU, margin, and further scores below.
    level: of all intervals.
    extractable: `[T]` targets whose own text is extracted, rather than that of a near-duplicate;
        None where nothing was decoded.
    extractable_bleu: BLEU from which on a target counts as extractable.
    """

    groups: Int[np.ndarray, ' T']
    near_duplicated: Bool[np.ndarray, ' T']
    scores: tuple[ScoreComparison, ...]
    level: float
    extractable: Bool[np.ndarray, ' T'] | None
    extractable_bleu: float


def compare(
    summary: Summary,
    groups: Int[AnyArray, ' T'],
    *,
    key: PRNGKey,
    examples: int | None = None,
    extraction: Extraction | None = None,
    siblings: Siblings | None = None,
    extractable_bleu: float = 0.5,
    more: Sequence[Score] = (),
    resamples: int = 1000,
    level: float = 0.95,
) -> Comparison:
    """Compares targets that have near-duplicates with those that have none.

    Args:
      summary: of the influence matrix.
      groups: `[T]` the same number for the near-duplicates of one record.
      key: draws the resamples, the same for every score.
      examples: N; by default as many as there are targets.
      extraction: `[T]`, of one model; None where nothing was decoded.
      siblings: `[T]`, from `extraction.nearest_siblings` of the same texts; needed beside an
        extraction where targets have near-duplicates.
      extractable_bleu: a target is extractable whose answer matches exactly or reaches this BLEU,
        unless what was decoded is nearer to one of its near-duplicates.
      more: further scores, for the table and as predictors of both.
      resamples: of the bootstrap.
      level: of the intervals.

    Raises:
      ValueError: lengths that do not fit, `extractable_bleu` outside (0, 1], an extraction of
        targets with near-duplicates but no `siblings`, or as in `aurocs`.
    """
    groups = np.asarray(groups)
    targets = len(summary.margin)
    if groups.shape != (targets,) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(
            f'groups must be {targets} integers, one for each target, '
            f'not {groups.dtype} {list(groups.shape)}'
        )
    if not 0 < extractable_bleu <= 1:
        raise ValueError(f'{extractable_bleu=} must lie in (0, 1]')
    near_duplicated = in_a_group(groups)
    of_influence = (*influence_scores(summary, examples=examples or targets), *more)
    scores, extractable = of_influence, None
    if extraction is not None:
        bleu = Score('BLEU', extraction.bleu, low_marks=False)
        check([bleu], targets)
        scores = (of_influence[0], bleu, *of_influence[1:])
        extractable = reaches(extraction, extractable_bleu)
        if near_duplicated.any():
            extractable &= ~_nearer_to_a_sibling(siblings, targets)

    found = functools.partial(aurocs, groups=groups, key=key, resamples=resamples, level=level)
    of_extractable: list[Interval | None] = [None] * len(scores)
    if extractable is not None:
        of_extractable = [*found(of_influence, extractable)]
        of_extractable.insert(1, None)  # BLEU, by which they are defined
    return Comparison(
        groups=groups,
        near_duplicated=near_duplicated,
        scores=tuple(
            ScoreComparison(
                score.name,
                score.low_marks,
                spread(score.values[~near_duplicated]),
                spread(score.values[near_duplicated]),
                marks,
                extracts,
            )
            for score, marks, extracts in zip(
                scores, found(scores, near_duplicated), of_extractable, strict=True
            )
        ),
        level=level,
        extractable=extractable,
        extractable_bleu=extractable_bleu,
    )


def reaches(extraction: Extraction, bleu: float) -> Bool[np.ndarray, ' T']:
    """Returns targets whose answer matches or reaches this BLEU, whatever else is extracted."""
    return extraction.exact_match | (extraction.bleu >= bleu)


def in_a_group(groups: Int[AnyArray, ' T']) -> Bool[np.ndarray, ' T']:
    """Returns which targets share their group with another target."""
    _, group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return sizes[group] > 1


def spread(values: Float[np.ndarray, ' _']) -> Spread:
    """Returns mean, deviation and median of the values that are defined (not NaN)."""
    defined = np.asarray(values, np.float64)[~np.isnan(values)]
    finite = defined[np.isfinite(defined)]
    return Spread(
        mean=float(finite.mean()) if finite.size else float('nan'),
        standard_deviation=float(finite.std(ddof=1)) if finite.size > 1 else float('nan'),
        median=float(np.median(defined)) if defined.size else float('nan'),
        targets=len(defined),
        infinite=len(defined) - len(finite),
    )


def _nearer_to_a_sibling(siblings: Siblings | None, targets: int) -> Bool[np.ndarray, ' T']:
    if siblings is None or len(siblings.nearer) != targets:
        given = 'none' if siblings is None else f'those of {len(siblings.nearer)}'
        raise ValueError(
            f'siblings must be those of {targets} targets, not {given}: give '
            'nearest_siblings(decoded, truths, groups), which tells an extracted target '
            'from an extracted near-duplicate'
        )
    return siblings.nearer
