"""What scores find: near-duplicates, wrong labels, and the influences that an ensemble finds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import resampling
from influence_jax.analysis.convergence.agreement import correlation, spearman_brown
from influence_jax.analysis.near_duplicate_comparison import in_a_group
from influence_jax.analysis.ranking import average_precision, precision_at_k
from influence_jax.analysis.resampling import Interval, host_generator
from influence_jax.analysis.scores import Score, aurocs
from influence_jax.estimators import Columns, Method, Summary
from influence_jax.resources import Cost
from influence_jax.types import PRNGKey

_SAMPLED_TARGETS = 256
_RESAMPLES = 200
INSPECTED = (0.1, 0.2)


class NearDuplicateScores(NamedTuple):
    """How well a method finds targets that have near-duplicates among the examples.

    auroc: of low Top-1 Influence Margins.
    average_precision: of the same.
    twin_first: of the targets that have one, the share whose strongest other example is a
        near-duplicate.
    """

    auroc: Interval
    average_precision: Interval
    twin_first: float


def near_duplicate_scores(
    summary: Summary,
    groups: Int[np.ndarray, ' N'],
    self_index: Int[np.ndarray, ' T'],
    *,
    key: PRNGKey,
) -> NearDuplicateScores | None:
    """Scores margins and strongest examples; None where no target, or every one, has a twin.

    Targets that are no examples, or whose margin is not defined, are left out.

    Args:
        summary: of the method's columns.
        groups: `[N]` the same number for near-duplicates of one another.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        key: of the bootstrap, over groups.
    """
    known = np.flatnonzero((self_index >= 0) & ~np.isnan(summary.margin))
    group = groups[self_index[known]]
    twins = in_a_group(groups)[self_index[known]]
    if twins.all() or not twins.any():
        return None
    margins = -summary.margin[known].astype(np.float64)
    (auroc,) = aurocs([Score('margin', margins, low_marks=False)], twins, groups=group, key=key)
    draws = [
        average_precision(margins, twins, weights=weights) if weights[twins].any() else np.nan
        for some in resampling.observed_and_drawn(key, groups=group, resamples=_RESAMPLES)
        for weights in some
    ]
    precision = resampling.interval(draws[0], np.array(draws[1:]), 0.95)
    strongest = groups[summary.strongest_other[known]]
    return NearDuplicateScores(auroc, precision, float((strongest == group)[twins].mean()))


class MislabelScores(NamedTuple):
    """How well a score of examples, such as self-influence, finds those of a wrong label.

    auroc: of high scores.
    found: share of the wrong labels among the 10 % and 20 % of highest scores.
    """

    auroc: Interval
    found: tuple[float, ...]


class Detection(NamedTuple):
    """How well a detector of wrong labels does.

    method: of the detector.
    scores: of what it finds.
    cost: of computing it.
    """

    method: Method
    scores: MislabelScores
    cost: Cost


def mislabel_scores(
    suspicion: Float[np.ndarray, ' T'],
    mislabelled: Bool[np.ndarray, ' T'],
    *,
    key: PRNGKey,
    inspected: Sequence[float] = INSPECTED,
) -> MislabelScores | None:
    """Scores a detector of wrong labels; None where no label, or every one, is wrong.

    Args:
        suspicion: self-influence, margin, loss ..., higher for what looks wrong. NaN where the
            target is no example; these are left out.
        mislabelled: which targets have a wrong label.
        key: of the bootstrap.
        inspected: shares of the examples that are looked at, highest score first.
    """
    known = ~np.isnan(suspicion)
    values, wrong = suspicion[known], mislabelled[known]
    if wrong.all() or not wrong.any():
        return None
    score = Score('suspicion', values, low_marks=False)
    (auroc,) = aurocs([score], wrong, groups=np.arange(len(values)), key=key)
    found = []
    for share in inspected:
        k = max(1, round(share * len(values)))
        found.append(precision_at_k(values, wrong, k) * k / int(wrong.sum()))
    return MislabelScores(auroc, tuple(found))


class EnsembleAgreement(NamedTuple):
    """How well scores agree with the ensemble's influences, self-influence left out.

    spearman: correlation of ranks over the entries.
    reliability: the correlation that the ensemble's own entries would have with those of another
        ensemble of its size.
    """

    spearman: float
    reliability: float

    @property
    def over_reliability(self) -> float:
        """The correlation with what the ensemble estimates, were it free of noise; NaN without."""
        return self.spearman / self.reliability**0.5 if self.reliability > 0 else float('nan')


class Sanity(NamedTuple):
    """Rank correlation of scores with those of models that know nothing: should be near 0.

    random_weights: of initial parameters.
    random_labels: of a model trained on permuted labels; None where there is none.
    """

    random_weights: float
    random_labels: float | None


def sampled_targets(targets: int, *, key: PRNGKey) -> Int[np.ndarray, ' t']:
    """Draws at most 256 targets, whose entries stand for all."""
    chosen = host_generator(key).permutation(targets)[:_SAMPLED_TARGETS]
    return np.sort(chosen)


def entries_agreement(
    first: Columns,
    second: Columns,
    self_index: Int[np.ndarray, ' T'],
    targets: Int[np.ndarray, ' t'],
) -> float:
    """Spearman's correlation of two methods' entries of these targets, self-influence left out."""
    other = np.arange(first.examples)[:, None] != self_index[targets]
    values = (np.asarray(columns.column(targets).values)[other] for columns in (first, second))
    return correlation(*values, ranks=True)


def ensemble_agreement(
    columns: Columns,
    ensemble: Columns,
    halves: tuple[Columns, Columns],
    self_index: Int[np.ndarray, ' T'],
    *,
    key: PRNGKey,
) -> EnsembleAgreement:
    """Compares scores with an ensemble's influences, and these with themselves.

    Args:
        columns: scores that do not come from members of the ensemble.
        ensemble: its influences.
        halves: the same of two halves of its members.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        key: draws the targets that are compared.
    """
    targets = sampled_targets(columns.targets, key=key)
    reliability = spearman_brown(entries_agreement(*halves, self_index, targets))
    return EnsembleAgreement(entries_agreement(columns, ensemble, self_index, targets), reliability)
