"""Influence as a posterior: the ensemble's estimate, shrunk towards what cheap scores expect.

Almost all entries of a column are far below the noise of a few hundred members, and a few are far
above it. `shrunk` learns from all entries together how large they are and takes away what is
noise; `assisted` learns from them besides what scores of a cheaper method are worth.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import odds, prior
from influence_jax.estimators.columns import Columns
from influence_jax.estimators.difference_of_means import without_self
from influence_jax.estimators.ensemble import Problem, problem
from influence_jax.estimators.estimator import Estimator, Tiles, estimator
from influence_jax.estimators.regression_adjusted import Fitting, adjusted, completed
from influence_jax.estimators.tiling import TILE, padded, standardized_tiles
from influence_jax.estimators.uncertainty import z_of_p
from influence_jax.threads import in_threads
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_Matrix: TypeAlias = Columns | Float[AnyArray, '_ _']
Scores: TypeAlias = _Matrix | Mapping[str, _Matrix]
"""Of one method, or of several by name; positive where including the example lowers the loss."""

_LEARNING_TARGETS = 2048
_SAMPLED_TARGETS = 64
_ENTRIES = 2**16  # of a thread, in its cache
_COUNTED = 16  # times as many, as counts take memory


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
    return (
        (columns, model.posterior(block, level=level))
        for columns, block in model.blocks(np.arange(of.losses.shape[1]))
    )


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
    return (
        (columns, model.influence(block))
        for columns, block in model.blocks(np.arange(of.losses.shape[1]))
    )


@dataclasses.dataclass(frozen=True)
class _Block:
    """Targets with what is known of their entries, in units of `scale`.

    scale: `[t]`.
    unit: `[t]` standard deviation of losses, own effect taken out.
    is_other: `[N t]` entries that are not a target's own.
    means: `[N t]`.
    deviations: from the means, by the ensemble.
    left: `[M t]` losses without what the means explain and without the own example's effect.
    z: `[N t]` deviations in standard errors, as normal as they would be of many members.
    error: `[N t]` the standard error that goes with `z`.
    """

    scale: Float[np.ndarray, ' t']
    unit: Float[np.ndarray, ' t']
    is_other: Bool[np.ndarray, 'N t']
    means: Float[np.ndarray, 'N t']
    deviations: Influence
    left: Float[np.ndarray, 'M t']
    z: Float[np.ndarray, 'N t']
    error: Float[np.ndarray, 'N t']

    def relative(self, rows: slice = slice(None)) -> Float[np.ndarray, 'n t']:
        """Means of some examples in units of `unit`."""
        return self.means[rows] / np.where(self.unit > 0, self.unit, 1)


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
        self._of, self._scores, self._tile = of, scores, tile
        self._fit = Fitting(*of)
        self._weights = jnp.asarray(of.masks, jnp.float32)
        learning = prior.spaced(targets, _LEARNING_TARGETS)
        self._means = self._learn_means(learning) if scores else None
        self._odds = self._learn_odds(learning)
        self._table = self._odds.tabulated()

    def _learn_means(
        self, learning: Int[np.ndarray, ' t']
    ) -> tuple[prior.Means, prior.Means] | None:
        sampled = learning[prior.spaced(len(learning), _SAMPLED_TARGETS)]
        knots = prior.knots_of(self._standardized(sampled))
        parts = []
        for some, centered, _ in standardized_tiles(self._of.losses[:, learning], tile=self._tile):
            targets = learning[some]
            left, unit = self._left(centered[:, : len(targets)], targets)
            estimates = np.asarray(prior.halves_of(self._weights, left)) / np.where(
                unit > 0, unit, np.inf
            )
            parts.append(prior.moments(self._standardized(targets), knots, estimates))
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
        sampled = learning[prior.spaced(len(learning), _SAMPLED_TARGETS)]
        known = np.concatenate(
            [block.relative()[block.is_other] for _, block in self.blocks(sampled)]
        )
        histogram = odds.Histogram(known)
        for _, block in self.blocks(learning):
            of_halves = np.asarray(prior.halves_of(self._weights, block.left))
            of_some = functools.partial(_counts, histogram, block, of_halves)
            for counts in in_threads(
                of_some, len(block.z), step=_COUNTED * _rows(block.z.shape[1])
            ):
                histogram.add(counts)
        return histogram.odds()

    def _standardized(self, targets: Int[np.ndarray, ' t']) -> Float[np.ndarray, 'F N t']:
        found = []
        for name, columns in self._scores.items():
            values = np.asarray(columns.column(targets).values)
            if not np.isfinite(values).all():
                example, place = np.argwhere(~np.isfinite(values))[0]
                raise ValueError(
                    f'scores {name!r} of example {example} for target {targets[place]} are '
                    f'{values[example, place]}: leave out what is not finite'
                )
            found.append(values)
        several = np.stack(found) if len(found) > 1 else found[0][None]
        return prior.standardized(several, self._is_other(targets))

    def _is_other(self, targets: Int[np.ndarray, ' t']) -> Bool[np.ndarray, 'N t']:
        return np.arange(self._of.masks.shape[1])[:, None] != self._of.self_index[targets][None]

    def _left(
        self, losses: Float[np.ndarray, 'M t'], targets: Int[np.ndarray, ' t']
    ) -> tuple[Float[np.ndarray, 'M t'], Float[np.ndarray, ' t']]:
        """Losses without the own example's effect, and their standard deviation."""
        left = without_self(self._of.masks, losses, self._of.self_index[targets])
        return left, left.std(axis=0)

    def blocks(self, targets: Int[np.ndarray, ' t']) -> Iterator[tuple[slice, _Block]]:
        """Yields positions among the targets, and what is known of these."""
        for some, centered, scale in standardized_tiles(
            self._of.losses[:, targets], tile=self._tile
        ):
            of = targets[some]
            yield some, self._block(centered, scale, of)

    def _block(
        self,
        losses: Float[np.ndarray, 'M width'],
        scale: Float[np.ndarray, ' width'],
        targets: Int[np.ndarray, ' t'],
    ) -> _Block:
        masks, width = self._of.masks, len(targets)
        left, unit = self._left(losses[:, :width], targets)
        means = np.zeros((masks.shape[1], width), np.float32)
        losses = np.array(losses)
        if self._means is not None:
            scores = self._standardized(targets)
            estimates = np.asarray(prior.halves_of(self._weights, left))
            for taught, other, estimate, half in zip(
                self._means, prior.HALVES[::-1], estimates, prior.HALVES, strict=True
            ):
                expected = taught(scores) * unit
                expected *= prior.own_slopes(
                    expected / np.where(unit > 0, unit, 1),
                    estimate / np.where(unit > 0, unit, np.inf),
                    noise=4 / len(masks[half]),
                    variance=taught.slope_variance,
                )
                offset = masks[other].astype(np.float32) @ expected
                losses[other, :width] += offset - offset.mean(axis=0)
                means += expected / 2
            left, _ = self._left(losses[:, :width], targets)
        index = padded(self._of.self_index[targets], len(scale), fill=-1)
        fitted = self._fit(losses, index, targets, scale)
        found = completed(self._weights, np.ones(len(scale), np.float32), fitted)
        deviations = Influence(*(np.asarray(part)[:, :width] for part in found))
        z, error = np.empty((2, *means.shape), np.float32)

        def of_some(rows: slice) -> None:
            value, errors = (np.asarray(part)[rows] for part in deviations)
            with np.errstate(divide='ignore', invalid='ignore'):
                plain = np.nan_to_num(value / errors, posinf=0, neginf=0)
                z[rows] = prior.normal_z(plain, freedom=len(masks) - 2)
                error[rows] = np.where(np.abs(z[rows]) > 1e-3, value / z[rows], errors)

        in_threads(of_some, len(means), step=_rows(width))
        return _Block(
            scale[:width],
            unit,
            self._is_other(targets),
            means,
            deviations,
            left,
            z,
            error,
        )

    def influence(self, block: _Block) -> Influence:
        """Posterior mean and standard deviation; own entries by the ensemble alone."""
        values, errors = np.empty((2, *block.z.shape), np.float32)

        def of_some(rows: slice) -> None:
            mean, deviation = self._table.moments(block.relative(rows), block.z[rows])
            error, is_other = block.error[rows], block.is_other[rows]
            own = (np.asarray(part)[rows] for part in block.deviations)
            found = block.means[rows] + error * mean, error * deviation
            for whole, others, of_own in zip((values, errors), found, own, strict=True):
                whole[rows] = np.where(is_other, others, of_own) * block.scale

        in_threads(of_some, len(values), step=_rows(values.shape[1]))
        return Influence(values, errors)

    def posterior(self, block: _Block, *, level: float) -> Posterior:
        """The same with intervals."""
        values, errors = map(np.asarray, self.influence(block))
        reach = z_of_p(1 - level, members=len(self._of.masks))
        ends = []
        for sign, at in ((-1, (1 - level) / 2), (1, (1 + level) / 2)):
            deviation = block.error * self._odds.quantile(block.relative(), block.z, at)
            others = (block.means + deviation) * block.scale
            own = values + sign * reach * errors
            ends.append(np.where(block.is_other, others, own).astype(np.float32))
        return Posterior(values, errors, ends[0], ends[1])


def _counts(
    histogram: odds.Histogram,
    block: _Block,
    of_halves: Float[np.ndarray, '2 N t'],
    rows: slice,
) -> odds.Counts:
    """Counts some examples' entries, whose deviations by either half of the members are given."""
    at = block.is_other[rows] & (block.unit > 0)
    error = block.error[rows][at]
    return histogram.counts(
        block.relative(rows)[at], block.z[rows][at], of_halves[:, rows][:, at] / error
    )


def _rows(targets: int) -> int:
    """How many examples a thread works on at once, of so many targets."""
    return max(1, _ENTRIES // targets)


def _as_columns(name: str, scores: _Matrix) -> Columns:
    return scores if isinstance(scores, Columns) else Columns.of_matrix(scores, name=name)
