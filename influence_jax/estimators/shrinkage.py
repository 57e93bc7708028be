"""Influence as a posterior: the ensemble's estimate, shrunk towards what cheap scores expect.

Almost all entries of a column are far below the noise of a few hundred members, and a few are far
above it. `shrunk` learns from all entries together how large they are and takes away what is
noise; `assisted` learns from them besides what scores of a cheaper method are worth.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import odds, prior
from influence_jax.estimators.columns import Columns
from influence_jax.estimators.difference_of_means import without_self
from influence_jax.estimators.ensemble import Problem, problem
from influence_jax.estimators.estimator import Estimator, Tiles, estimator
from influence_jax.estimators.mask_products import HALVES, MaskProducts
from influence_jax.estimators.regression_adjusted import Fitting, adjusted
from influence_jax.estimators.residual_columns import ResidualColumns
from influence_jax.estimators.scan.compiled import CompiledEntries
from influence_jax.estimators.tiling import (
    TILE,
    padded,
    padded_columns,
    standardized_block,
    tile_slices,
)
from influence_jax.estimators.uncertainty import z_of_p
from influence_jax.kernels import posterior as kernel
from influence_jax.threads import Piece, in_threads, side_by_side
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_Matrix: TypeAlias = Columns | Float[AnyArray, '_ _']
Scores: TypeAlias = _Matrix | Mapping[str, _Matrix]
"""Of one method, or of several by name; positive where including the example lowers the loss."""

_LEARNING_TARGETS = 2048
_SAMPLED_TARGETS = 64
_ENTRIES = 2**16  # of a thread, in its cache
_COUNTED = 16  # times as many, as counts take memory
_HELD = 2**25  # entries of the blocks that are worked on side by side


class Posterior(NamedTuple):
    """What is believed of a block of influences, float32, in the unit of the losses.

    values: `[N t]` posterior mean.
    standard_error: `[N t]` posterior standard deviation.
    low: `[N t]` lower end of the credible interval.
    high: `[N t]` upper end.
    """

    values: Float[np.ndarray, 'N t']
    standard_error: Float[np.ndarray, 'N t']
    low: Float[np.ndarray, 'N t']
    high: Float[np.ndarray, 'N t']


@estimator(
    name='shrunk',
    title='shrunken difference of means',
    description=(
        'the mean of what is believed of it, given its adjusted difference of means and how large '
        'all entries are'
    ),
    least_members=adjusted.least_members,
    pooled=True,
)
def shrunk(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    tile: int = TILE,
) -> Tiles:
    """Influence of every example on every target, as an empirical-Bayes posterior.

    Values are posterior means, standard errors posterior standard deviations; for intervals see
    `credible_intervals`. The data are those of `adjusted`. The prior is a spike about zero and
    slabs of many widths, in standard errors of the entry, whose weights are learnt from all
    off-diagonal entries (`estimators.odds`). Self-influence, which is well estimated, is that of
    `adjusted`.

    Biased towards zero by design: right on average over entries of the same estimate, not for each
    entry over ensembles. So neither `z_scores` nor `intervals` of it are tests.

    Args:
      masks: as in `difference_in_means`.
      losses: as in `difference_in_means`.
      target_examples: `[T]` position of the example that each target is, -1 where it is none.
        By default target t is example t if T == N, and otherwise no target is an example.
      tile: how many targets are estimated at once.

    Raises:
      ValueError: as in `adjusted`.
    """
    return _influence_tiles(masks, losses, {}, target_examples=target_examples, tile=tile)


def assisted(
    masks: Masks,
    losses: Measurement,
    scores: Scores,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    tile: int = TILE,
) -> Influence:
    """Influence of every example on every target, with cheap scores beside the ensemble.

    The posterior of `shrunk` about means that follow from the scores instead of about zero. Means
    are learnt from the ensemble: a regression of its estimates on the scores, standardized within
    each target and piecewise linear, with a slope of each target's own, shrunk towards that of
    all. What the means explain of the losses is taken out of them before anything else is
    estimated, by the half of the members that had no part in learning them. How likely an entry
    is to be far from its mean is learnt apart for entries of small and of large mean. Scores that
    predict nothing of the other half give means of zero, and so the values of `shrunk`.

    Args:
      masks: as in `difference_in_means`.
      losses: as in `difference_in_means`; at least 24 complete members.
      scores: `[N T]`, `Columns`, or several of them by name, in any unit; positive where including
        the example lowers the loss, as influence is. Own entries are not looked at.
      target_examples: as in `difference_in_means`.
      tile: how many targets are estimated at once.

    Returns:
      Influence of float32 numpy arrays `[N T]`, in the unit of `losses`.

    Raises:
      ValueError: as in `adjusted`; no scores, scores of another shape, or not finite.
    """
    return with_scores(scores)(masks, losses, target_examples=target_examples, tile=tile)


def with_scores(scores: Scores) -> Estimator:
    """`assisted` by these scores as an `Estimator`, for `summarize`, reports and runs.

    Raises:
      ValueError: no scores; when it is called, as in `assisted`.
    """
    by_name = scores if isinstance(scores, Mapping) else {'scores': scores}
    if not by_name:
        raise ValueError('scores are empty: give [N T] of at least one method, or use shrunk')
    named = {name: _as_columns(name, of) for name, of in by_name.items()}
    titles = ', '.join(of.method.title for of in named.values())
    return Estimator(
        'assisted',
        'assisted difference of means',
        'the mean of what is believed of it, given its adjusted difference of means and its '
        f'scores ({titles})',
        shrunk.least_members,
        functools.partial(_influence_tiles, scores=named),
        pooled=True,
    )


def credible_intervals(
    masks: Masks,
    losses: Measurement,
    scores: Scores | None = None,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    level: float = 0.95,
    tile: int = TILE,
) -> Iterator[tuple[slice, Posterior]]:
    """Yields posteriors by blocks of targets, with the interval that holds `level` of each.

    Args:
      masks: as in `assisted`.
      losses: as in `assisted`.
      scores: as in `assisted`; None as in `shrunk`.
      target_examples: as in `assisted`.
      level: in (0, 1).
      tile: how many targets at once.

    Raises:
      ValueError: as in `assisted`, or `level` outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f'{level=} must lie strictly between 0 and 1')
    by_name = {} if scores is None else scores
    if not isinstance(by_name, Mapping):
        by_name = {'scores': by_name}
    named = {name: _as_columns(name, of) for name, of in by_name.items()}
    of = problem(masks, losses, target_examples, tile=tile)
    model = _Model(of, named, tile=tile)
    return model.blocks(functools.partial(model.posterior, level=level))


def _influence_tiles(
    masks: Masks,
    losses: Measurement,
    scores: Mapping[str, Columns],
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    tile: int = TILE,
) -> Tiles:
    of = problem(masks, losses, target_examples, tile=tile)
    model = _Model(of, scores, tile=tile)
    return model.blocks(model.influence)


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
    """Targets with what is known of their entries, in units of `scale`.

    scale: `[t]`.
    unit: `[t]` standard deviation of losses, own effect taken out.
    self_index: `[t]` as in `Problem`.
    means: `[N t]`; None where all are 0.
    deviations: `[N t]` from the means, by the ensemble.
    left: `[M t]` losses without what the means explain and without the own example's effect.
    """

    scale: Float[np.ndarray, ' t']
    unit: Float[np.ndarray, ' t']
    self_index: Int[np.ndarray, ' t']
    means: Float[np.ndarray, 'N t'] | None
    deviations: Influence
    left: Float[np.ndarray, 'M t']

    def is_other(self, rows: slice) -> Bool[np.ndarray, 'n t']:
        """Which entries of some examples are not a target's own."""
        return np.arange(rows.start, rows.stop)[:, None] != self.self_index

    def means_of(self, rows: slice) -> Float[np.ndarray, 'n t']:
        """Of some examples."""
        shape = rows.stop - rows.start, len(self.unit)
        return np.zeros(shape, np.float32) if self.means is None else self.means[rows]

    def relative(self, rows: slice) -> Float[np.ndarray, 'n t']:
        """Means of some examples in units of `unit`."""
        return self.means_of(rows) / _divisor(self.unit)

    def z(self, rows: slice) -> tuple[Float[np.ndarray, 'n t'], Float[np.ndarray, 'n t']]:
        """Deviations of some examples in standard errors, and the error that goes with that.

        As normal as they would be of many members.
        """
        value, errors = (np.asarray(part)[rows] for part in self.deviations)
        with np.errstate(divide='ignore', invalid='ignore'):
            plain = np.nan_to_num(value / errors, posinf=0, neginf=0)
            z = prior.normal_z(plain, freedom=len(self.left) - 2).astype(np.float32)
            return z, np.where(np.abs(z) > 1e-3, value / z, errors)

    def entries(self, edges: Float[np.ndarray, ' E']) -> kernel.Entries:
        """All entries for the kernels."""
        return kernel.Entries(
            np.ascontiguousarray(self.deviations.values),
            np.ascontiguousarray(self.deviations.standard_error),
            self.means,
            self.unit,
            self.scale,
            self.self_index.astype(np.int32),
            len(self.left) - 2,
            edges.astype(np.float32),
        )


class _Model:
    """The prior learnt from an ensemble and scores, and posteriors by it.

    Raises:
      ValueError: scores of another shape, or not finite; fewer than 24 members.
    """

    def __init__(self, of: Problem, scores: Mapping[str, Columns], *, tile: int) -> None:
        examples, targets = of.masks.shape[1], of.losses.shape[1]
        for name, one in scores.items():
            if (one.examples, one.targets) != (examples, targets):
                raise ValueError(
                    f'scores {name!r} are [{one.examples} {one.targets}] and the run has '
                    f'[examples targets] = [{examples} {targets}]: give scores of the same '
                    f'examples and targets, in their order'
                )
        self._of, self._scores, self._tile = of, scores, min(tile, targets)
        # Of one block at a time: a method of attribution fills the memory that it was given.
        self._reading = threading.Lock()
        self._fit = Fitting(*of)
        single = self._fit.scan.single
        packed = single.packed if isinstance(single, CompiledEntries) else None
        self._products = MaskProducts(of.masks, packed)
        self._columns_of = ResidualColumns(of.masks, single, self._products)
        learning = prior.spaced(targets, _LEARNING_TARGETS)
        self._means = self._learn_means(learning) if scores else None
        self._odds = self._learn_odds(learning)
        self._table = self._odds.tabulated()

    def blocks(
        self, work: Callable[[_Block], Piece], targets: Int[np.ndarray, ' t'] | None = None
    ) -> Iterator[tuple[slice, Piece]]:
        """Yields which of the targets, by default of all, and what is made of block after block."""
        targets = np.arange(self._of.losses.shape[1]) if targets is None else targets
        return self._tiles(lambda some: work(self._block(some)), targets)

    def _tiles(
        self, work: Callable[[Int[np.ndarray, ' t']], Piece], targets: Int[np.ndarray, ' T']
    ) -> Iterator[tuple[slice, Piece]]:
        def of_some(some: slice) -> tuple[slice, Piece]:
            return some, work(targets[some])

        held = len(self._of.masks[0]) * self._tile
        most = min(self._fit.scan.blocks_at_once, max(1, _HELD // held))
        return side_by_side(of_some, tile_slices(len(targets), self._tile), most=most)

    def _learn_means(
        self, learning: Int[np.ndarray, ' t']
    ) -> tuple[prior.Means, prior.Means] | None:
        sampled = learning[prior.spaced(len(learning), _SAMPLED_TARGETS)]
        knots = prior.knots_of(self._standardized(sampled))

        def of_some(targets: Int[np.ndarray, ' t']) -> tuple[prior.Moments, prior.Moments]:
            centered, _ = standardized_block(self._of.losses[:, targets], width=len(targets))
            left, unit = self._left(centered, targets)
            estimates = self._products.by_halves(left)
            return prior.moments(self._standardized(targets), knots, estimates, unit)

        parts = [part for _, part in self._tiles(of_some, learning)]
        by_target = prior.Moments(
            np.concatenate([of.squares for of, _ in parts]),
            np.concatenate([of.products for of, _ in parts], axis=1),
        )
        by_examples = prior.Moments(
            np.sum([of.squares for _, of in parts], axis=0),
            np.sum([of.products for _, of in parts], axis=0),
        )
        means = prior.learn_means(by_target, by_examples, knots)
        return means if means[0].any else None

    def _learn_odds(self, learning: Int[np.ndarray, ' t']) -> odds.Odds:
        known = np.zeros(1)
        if self._means is not None:
            sampled = learning[prior.spaced(len(learning), _SAMPLED_TARGETS)]
            known = np.concatenate([of for _, of in self._tiles(self._relative_means, sampled)])
        histogram = odds.Histogram(known)
        for _, counts in self.blocks(functools.partial(self._counts, histogram), learning):
            histogram.add(counts)
        return histogram.odds()

    def _counts(self, histogram: odds.Histogram, block: _Block) -> odds.Counts:
        """Counts the entries of a block."""
        halves, examples = self._products.by_halves(block.left), self._of.masks.shape[1]
        if kernel.there():
            return histogram.counts_of_entries(block.entries(histogram.edges), halves)

        def of_some(rows: slice) -> odds.Counts:
            at = block.is_other(rows) & (block.unit > 0)
            z, error = (part[at] for part in block.z(rows))
            return histogram.counts(block.relative(rows)[at], z, halves.values(rows)[:, at] / error)

        step = _COUNTED * _rows(len(block.unit))
        return odds.Counts.of_all(in_threads(of_some, examples, step=step))

    def _standardized(self, targets: Int[np.ndarray, ' t']) -> Float[np.ndarray, 'F N t']:
        shape = len(self._scores), self._of.masks.shape[1], len(targets)
        found, index = np.empty(shape, np.float32), self._of.self_index[targets]
        for of_one, (name, columns) in zip(found, self._scores.items(), strict=True):
            with self._reading:
                values = np.asarray(columns.column(targets).values)
            if not prior.standardize(values, index, of_one):
                example, place = np.argwhere(~np.isfinite(values))[0]
                raise ValueError(
                    f'scores {name!r} of example {example} for target {targets[place]} are '
                    f'{values[example, place]}: leave out what is not finite'
                )
        return found

    def _left(
        self, losses: Float[np.ndarray, 'M t'], targets: Int[np.ndarray, ' t']
    ) -> tuple[Float[np.ndarray, 'M t'], Float[np.ndarray, ' t']]:
        """Losses without the own example's effect, and their standard deviation."""
        left = without_self(self._of.masks, losses, self._of.self_index[targets])
        return left, left.std(axis=0)

    def _expected(
        self,
        left: Float[np.ndarray, 'M t'],
        unit: Float[np.ndarray, ' t'],
        targets: Int[np.ndarray, ' t'],
    ) -> Float[np.ndarray, '2 N t'] | None:
        """Means of all entries by what either half taught; None where that is nothing."""
        if self._means is None:
            return None
        return prior.means(
            self._means,
            self._standardized(targets),
            self._products.by_halves(left),
            unit,
            members=len(self._of.masks),
        )

    def _relative_means(self, targets: Int[np.ndarray, ' t']) -> Float[np.ndarray, ' _']:
        """Means of all but own entries, in standard deviations of the losses."""
        centered, _ = standardized_block(self._of.losses[:, targets], width=len(targets))
        left, unit = self._left(centered, targets)
        expected = self._expected(left, unit, targets)
        assert expected is not None
        is_other = np.arange(len(expected[0]))[:, None] != self._of.self_index[targets]
        return (expected.sum(axis=0) / 2 / _divisor(unit))[is_other]

    def _block(self, targets: Int[np.ndarray, ' t']) -> _Block:
        """What is known of these targets."""
        width, index = len(targets), self._of.self_index[targets]
        losses, scale = standardized_block(self._of.losses[:, targets], width=self._tile)
        left, unit = self._left(losses[:, :width], targets)
        expected, means = self._expected(left, unit, targets), None
        if expected is not None:
            for half, of_half in enumerate(expected):
                offset = self._products.of_half(1 - half, of_half)
                losses[HALVES[1 - half], :width] += offset - offset.mean(axis=0)
            means = expected.sum(axis=0) / 2
            left, _ = self._left(losses[:, :width], targets)
        of_tile = padded(index, self._tile, fill=-1)
        candidates = self._fit.candidate_regressors(padded_columns(left, self._tile), of_tile)
        fitted = self._fit.regressions(losses, candidates, of_tile, targets, scale)
        deviations = self._columns_of(fitted, np.ones(len(scale), np.float32), width=width)
        return _Block(scale[:width], unit, index, means, deviations, left)

    def influence(self, block: _Block) -> Influence:
        """Posterior mean and standard deviation; own entries by the ensemble alone."""
        values, errors = np.empty((2, len(self._of.masks[0]), len(block.unit)), np.float32)

        def of_some(rows: slice) -> None:
            z, error = block.z(rows)
            mean, deviation = self._table.moments(block.relative(rows), z)
            own = (np.asarray(part)[rows] for part in block.deviations)
            found = block.means_of(rows) + error * mean, error * deviation
            for whole, others, of_own in zip((values, errors), found, own, strict=True):
                whole[rows] = np.where(block.is_other(rows), others, of_own) * block.scale

        work: Callable[[slice], object] = of_some
        if kernel.there():
            work = self._table.of_entries(block.entries(self._table.edges), values, errors)
        in_threads(work, len(values), step=_rows(values.shape[1]))
        return Influence(values, errors)

    def posterior(self, block: _Block, *, level: float) -> Posterior:
        """The same with intervals."""
        values, errors = map(np.asarray, self.influence(block))
        reach = z_of_p(1 - level, members=len(self._of.masks))
        ends = np.empty((2, *values.shape), np.float32)

        def of_some(rows: slice) -> None:
            z, error = block.z(rows)
            for end, sign in zip(ends, (-1, 1), strict=True):
                deviation = error * self._odds.quantile(
                    block.relative(rows), z, (1 + sign * level) / 2
                )
                others = (block.means_of(rows) + deviation) * block.scale
                own = values[rows] + sign * reach * errors[rows]
                end[rows] = np.where(block.is_other(rows), others, own)

        in_threads(of_some, len(values), step=_rows(values.shape[1]))
        return Posterior(values, errors, *ends)


def _divisor(unit: Float[np.ndarray, ' t']) -> Float[np.ndarray, ' t']:
    """Standard deviations, 1 where they are 0."""
    return np.where(unit > 0, unit, np.float32(1))


def _rows(targets: int) -> int:
    """How many examples a thread works on at once, of so many targets."""
    return max(1, _ENTRIES // targets)


def _as_columns(name: str, scores: _Matrix) -> Columns:
    return scores if isinstance(scores, Columns) else Columns.of_matrix(scores, name=name)
