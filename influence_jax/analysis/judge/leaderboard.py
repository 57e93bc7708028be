"""A line for every method, all judged by the same held-out members."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

from influence_jax.analysis.judge.ceiling import Ceilings, ceilings
from influence_jax.analysis.judge.detection import (
    Detection,
    EnsembleAgreement,
    MislabelScores,
    NearDuplicateScores,
    Sanity,
    ensemble_agreement,
    mislabel_scores,
    near_duplicate_scores,
)
from influence_jax.analysis.judge.ensemble_size import (
    SMALLEST,
    EnsembleCurve,
    Worth,
    ensemble_curve,
    estimate,
)
from influence_jax.analysis.judge.held_out import LEAST_MASKS, HeldOut, Split, held_out_members
from influence_jax.analysis.judge.interventions import LeaveOut
from influence_jax.analysis.judge.prediction import (
    Agreement,
    Estimate,
    Resamples,
    predictions,
    rank_agreement,
)
from influence_jax.estimators import Columns, Estimator, Method, Summary, summarize
from influence_jax.estimators.ensemble import average_repeats
from influence_jax.resources import Cost
from influence_jax.types import Masks, Measurement, PRNGKey

_FOLDS = 5


class Row(NamedTuple):
    """A method's line.

    method: what it is.
    lds: linear datamodelling score on members that left the target out.
    lds_all: the same on all held-out members, which is mostly self-influence.
    over_any: `lds` over the ceiling of any function of the mask; None where it is not known.
    over_linear: over that of linear ones.
    worth: how many members it is worth.
    ensemble: agreement with the ensemble's influences; None of estimates from the same members.
    near_duplicates: None where none are known.
    mislabels: by self-influence; None where no label is known to be wrong.
    mislabels_by_margin: by high Top-1 Influence Margins; likewise.
    cost: of computing the scores.
    sanity: None where it was not asked for.
    """

    method: Method
    lds: Agreement
    lds_all: Agreement
    over_any: Estimate | None = None
    over_linear: Estimate | None = None
    worth: Worth | None = None
    ensemble: EnsembleAgreement | None = None
    near_duplicates: NearDuplicateScores | None = None
    mislabels: MislabelScores | None = None
    mislabels_by_margin: MislabelScores | None = None
    cost: Cost | None = None
    sanity: Sanity | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """Judges columns by held-out members; called like a function.

    Attributes:
        split: of members.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        groups: `[N]` the same number for near-duplicates; None where nothing is known.
        mislabelled: `[N]` which examples have a wrong label; None where that is not known.
        key: of everything that is drawn.
        resamples: of the bootstrap.
    """

    split: Split
    self_index: Int[np.ndarray, ' T']
    key: PRNGKey
    groups: Int[np.ndarray, ' N'] | None = None
    mislabelled: Bool[np.ndarray, ' N'] | None = None
    resamples: int = 400

    def __call__(self, columns: Columns) -> Row:
        """Judges scores.

        Raises:
            ValueError: scores of other examples or targets than the held-out members'.
        """
        lds, lds_all = _both(columns, self.split.held_out, self.self_index, self.drawn)
        ceiling = self.ceilings
        from_members = isinstance(columns.method, Estimator)
        return Row(
            columns.method,
            lds,
            lds_all,
            lds.mean.over(ceiling.any) if ceiling else None,
            lds.mean.over(ceiling.linear) if ceiling else None,
            self.curve.worth(lds.mean) if self.curve else None,
            None if from_members or self._ensemble is None else self._agreement(columns),
            *self._found(columns),
        )

    @functools.cached_property
    def drawn(self) -> Resamples:
        """Resamples of held-out masks and targets, for all methods."""
        groups = _of_targets(self.groups, self.self_index)
        masks = len(self.split.held_out.masks)
        return Resamples.draw(self.key, masks=masks, groups=groups, resamples=self.resamples)

    @functools.cached_property
    def ceilings(self) -> Ceilings | None:
        """On members that left the target out; None where held-out masks have no repeats."""
        return self._ceilings(self.self_index)

    @functools.cached_property
    def ceilings_all(self) -> Ceilings | None:
        """On all held-out members."""
        return self._ceilings(np.full_like(self.self_index, -1))

    def _ceilings(self, self_index: Int[np.ndarray, ' T']) -> Ceilings | None:
        masks, losses, held_out = self.split
        if held_out.repeats < 2:
            return None
        key = jax.random.fold_in(self.key, 1)
        return ceilings(held_out, masks, losses, self_index, resamples=self.drawn, key=key)

    @functools.cached_property
    def curve(self) -> EnsembleCurve | None:
        """Scores of ensembles by their size; None of fewer than 16 members."""
        if len(average_repeats(self.split.masks, self.split.losses)[0]) < SMALLEST:
            return None
        return ensemble_curve(self.split, self.self_index, self.drawn)

    @functools.cached_property
    def _ensemble(self) -> tuple[Columns, Columns, Columns] | None:
        """The ensemble's influences, and those of its halves; None of too few members."""
        masks, losses = average_repeats(self.split.masks, self.split.losses)
        if len(masks) < 2 * SMALLEST:
            return None
        whole, first, second = (
            estimate(masks[some], losses[some], self.self_index)
            for some in (slice(None), slice(0, None, 2), slice(1, None, 2))
        )
        return whole, first, second

    def _agreement(self, columns: Columns) -> EnsembleAgreement:
        assert self._ensemble is not None
        ensemble, *halves = self._ensemble
        key = jax.random.fold_in(self.key, 2)
        return ensemble_agreement(
            columns, ensemble, (halves[0], halves[1]), self.self_index, key=key
        )

    def _found(
        self, columns: Columns
    ) -> tuple[NearDuplicateScores | None, MislabelScores | None, MislabelScores | None]:
        """How well near-duplicates and wrong labels are found, the latter in two ways."""
        is_example = self.self_index >= 0
        if (self.groups is None and self.mislabelled is None) or not is_example.any():
            return None, None, None
        summary: Summary = summarize(columns, target_examples=self.self_index, top_k=2)
        key, twins = jax.random.fold_in(self.key, 3), None
        if self.groups is not None:
            twins = near_duplicate_scores(summary, self.groups, self.self_index, key=key)
        if self.mislabelled is None:
            return twins, None, None
        mislabelled = self.mislabelled[self.self_index] & is_example
        by_self, by_margin = (
            mislabel_scores(score, mislabelled, key=key)
            for score in (summary.self_influence, summary.margin)
        )
        return twins, by_self, by_margin


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """What was judged, by what, and what came of it.

    Attributes:
        title: in a few words.
        rows: a line a method.
        ceilings: on members that left the target out; None where they are not known.
        ceilings_all: on all held-out members.
        left_out: why methods were not judged, by name.
        facts: of the run and the held-out members, by name.
        notes: sentences for the reader.
        leave_outs: of retraining without the strongest examples, a target each.
        detections: of wrong labels, a detector each.
        unit: of the measurement.
    """

    title: str
    rows: tuple[Row, ...]
    ceilings: Ceilings | None = None
    ceilings_all: Ceilings | None = None
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    leave_outs: tuple[LeaveOut, ...] = ()
    detections: tuple[Detection, ...] = ()
    unit: str = 'nats'

    @property
    def ranked(self) -> list[Row]:
        """Rows, best linear datamodelling score first."""

        def score(row: Row) -> float:
            value = row.lds.mean.value
            return -math.inf if math.isnan(value) else value

        return sorted(self.rows, key=score, reverse=True)


def cross_validated(
    estimator: Estimator,
    masks: Masks,
    losses: Measurement,
    self_index: Int[np.ndarray, ' T'],
    *,
    key: PRNGKey,
    resamples: int = 400,
) -> Row:
    """Judges an estimator by the very members that it estimates from, each mask held out in turn.

    In up to five folds of at least 8 masks; correlations are over the masks of a fold, and averaged
    over folds.

    Args:
        estimator: which.
        masks: `[M N]`.
        losses: `[M T]`; rows with anything that is not finite are left out.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        key: of the folds and the bootstrap: the same for every estimator.
        resamples: of the bootstrap.

    Raises:
        ValueError: fewer than 16 different masks, or too few members for the estimator.
    """
    every = held_out_members(masks, losses)
    count = len(every.masks)
    folds = min(_FOLDS, count // LEAST_MASKS)
    if folds < 2:
        raise ValueError(
            f'{count} different masks are too few for two folds: give at least {2 * LEAST_MASKS}'
        )
    drawn = Resamples.draw(
        key, masks=count, groups=_of_targets(None, self_index), resamples=resamples
    )
    order = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel()).permutation(count)
    found = []
    for fold in np.array_split(order, folds):
        rest = np.setdiff1d(order, fold)
        if len(rest) < estimator.least_members:
            raise ValueError(
                f'{estimator.name} needs {estimator.least_members} members, but {len(rest)} are '
                f'left of {count} when a fold is held out'
            )
        columns = estimate(every.masks[rest], every.mean[rest], self_index, estimator=estimator)
        held_out = HeldOut(every.masks[fold], every.measured[fold])
        found.append(_both(columns, held_out, self_index, drawn.of_masks(fold)))
    lds, lds_all = zip(*found, strict=True)
    return Row(estimator, _mean(lds), _mean(lds_all))


def _both(
    columns: Columns,
    held_out: HeldOut,
    self_index: Int[np.ndarray, ' T'],
    drawn: Resamples,
) -> tuple[Agreement, Agreement]:
    """Scores on the members that left the target out, and on all."""
    predicted, measured = predictions(columns, held_out.masks), held_out.mean
    if predicted.shape != measured.shape:
        raise ValueError(
            f'scores are of {columns.targets} targets, members measured {measured.shape[1]}: give '
            f'both of the same run'
        )
    left_out = held_out.without(self_index)
    every = np.ones_like(left_out)
    one, other = (
        rank_agreement(predicted, measured, counted, drawn) for counted in (left_out, every)
    )
    return one, other


def _mean(folds: tuple[Agreement, ...]) -> Agreement:
    draws = np.mean([fold.mean.draws for fold in folds], axis=0)
    per_target = np.mean([fold.per_target for fold in folds], axis=0)
    constant = max(fold.constant for fold in folds)
    return Agreement(Estimate(draws), per_target, constant, int(np.isfinite(per_target).sum()))


def _of_targets(
    groups: Int[np.ndarray, ' N'] | None, self_index: Int[np.ndarray, ' T']
) -> Int[np.ndarray, ' T']:
    """The group of each target; one of its own where none is known."""
    if groups is None:
        return np.arange(len(self_index))
    alone = groups.max() + 1 + np.arange(len(self_index))
    return np.where(self_index >= 0, groups[self_index], alone)
