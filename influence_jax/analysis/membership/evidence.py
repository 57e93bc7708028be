"""What an attack is given and what it returns: every member attacked once, by all others.

Members that repeat a mask are attacked one by one, each without the help of the others: two models
of one mask tell each other's membership.

'Member' stays the word for one trained model, as everywhere here; a record on which it was trained
is *included*, any other *left out*.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.ensemble import examples_of_targets, finite_members, numbered_repeats
from influence_jax.threads import Piece, in_threads
from influence_jax.types import AnyArray, Masks, Measurement

_NAMED_IN_MESSAGES = 5

# The finest difference from a probability of 1 that float32 can tell.
_LEAST_LOSS = float(np.finfo(np.float32).eps) / 2

# How seldom a measurement that knows nothing of the masks may be refused for its direction.
_SURE = 1e-6
_IN_CACHE = 2**17  # values of float64 that a thread works on at once


class Attack(NamedTuple):
    """Scores of every member on every target, and the truth.

    scores: `[M T]` float32; the higher, the surer the attack that the member's subset includes the
        target. Score [m, t] is made without knowing what subset member m was trained on.
    included: `[M T]` bool; whether it does.
    targets: `[T]` which columns of the measurement these are: those that are examples.
    """

    scores: Float[np.ndarray, 'M T']
    included: Bool[np.ndarray, 'M T']
    targets: Int[np.ndarray, ' T']


class Evidence(NamedTuple):
    """What an attack may use: complete members, and targets that are examples.

    values: `[M T]` the measurement.
    included: `[M T]` bool.
    targets: `[T]` columns of the measurement as given.
    subset: `[M]` the same number for members that repeat one mask.
    """

    values: Float[np.ndarray, 'M T']
    included: Bool[np.ndarray, 'M T']
    targets: Int[np.ndarray, ' T']
    subset: Int[np.ndarray, ' M']

    def by_subset(self) -> tuple[Int[np.ndarray, ' M'], Int[np.ndarray, ' G']]:
        """Returns the members, subset after subset, and where each of the G subsets begins."""
        order = np.argsort(self.subset, kind='stable')
        return order, np.flatnonzero(np.diff(self.subset[order], prepend=-1))

    def at(self, columns: Int[np.ndarray, ' t']) -> 'Evidence':
        """Returns that of some of the targets, by their place among these."""
        return Evidence(
            self.values[:, columns], self.included[:, columns], self.targets[columns], self.subset
        )

    def smaller_side(self) -> Int[np.ndarray, ' T']:
        """How many different subsets include each target or leave it out, whichever are fewer."""
        _, first = np.unique(self.subset, return_index=True)
        count = self.included[first].sum(axis=0)
        return np.minimum(count, len(first) - count)


def evidence(
    masks: Masks, measurement: Measurement, target_examples: Int[AnyArray, ' T'] | None
) -> Evidence:
    """Checks the arguments of an attack.

    Raises:
      ValueError: as in `complete_members`, or no target is an example.
    """
    masks, values = finite_members(masks, measurement)
    self_index = examples_of_targets(
        target_examples, examples=masks.shape[1], targets=values.shape[1]
    )
    targets = np.flatnonzero(self_index >= 0)
    if not targets.size:
        raise ValueError(
            'none of the targets is an example, so none has a membership to be inferred: '
            'say with target_examples which example each target is'
        )
    if targets.size < values.shape[1]:
        values = values[:, targets]
    own = self_index[targets]
    every = np.array_equal(own, np.arange(masks.shape[1]))
    included = masks.copy() if every else masks[:, own]  # columns one by one take much longer
    return Evidence(values, included, targets, numbered_repeats(masks))


def by_targets(work: Callable[[slice], Piece], members: int, targets: int) -> list[Piece]:
    """Does the work for all targets, a few at a time: what a thread needs stays in its cache."""
    return in_threads(work, targets, step=max(1, _IN_CACHE // members))


def check_both_sides(given: Evidence, *, least: int) -> None:
    """Refuses targets that too few subsets include, or leave out, to spare the attacked one.

    Raises:
      ValueError: naming how many and the first of them.
    """
    lacking = given.targets[given.smaller_side() < least]
    if lacking.size:
        shown = ', '.join(str(t) for t in lacking[:_NAMED_IN_MESSAGES])
        more = ', ...' if lacking.size > _NAMED_IN_MESSAGES else ''
        subsets, members = given.subset.max() + 1, len(given.subset)
        drawn = f'{members} complete members'
        if subsets < members:
            drawn = f'{subsets} different subsets of the {drawn}'
        raise ValueError(
            f'{lacking.size} of {given.targets.size} targets ({shown}{more}) are included in, or '
            f'left out of, fewer than {least} of the {drawn}: use more members'
        )


def rises_with_inclusion(given: Evidence) -> bool | None:
    """Whether members measure higher on what they include; None where that is not sure.

    By Student's t over the subsets, of the covariance of inclusion and measurement within each
    member, every target in units of its own spread.
    """

    def of_some(targets: slice) -> Float[np.ndarray, '3 M']:
        scaled = given.values[:, targets].astype(np.float64)
        scaled -= scaled.mean(axis=0)
        spread = np.sqrt(np.square(scaled).mean(axis=0))
        scaled /= np.where(spread > 0, spread, 1.0)
        side = given.included[:, targets]
        weight = side - side.mean(axis=0)
        return np.stack([(weight * scaled).sum(axis=1), scaled.sum(axis=1), weight.sum(axis=1)])

    products, sums, included = np.sum(by_targets(of_some, *given.values.shape), axis=0)
    by_subset = np.bincount(given.subset, products - sums * included / given.targets.size)
    error = by_subset.std(ddof=1) / np.sqrt(len(by_subset)) if len(by_subset) > 1 else 0.0
    if not error > 1e-6 * abs(by_subset.mean()):  # a few members that agree by chance, to rounding
        return None
    statistic = by_subset.mean() / error
    if scipy.stats.t.sf(abs(statistic), len(by_subset) - 1) > _SURE:
        return None
    return bool(statistic > 0)


def check_losses(losses: Float[np.ndarray, ' *shape']) -> None:
    """Refuses what is no minus log probability; NaN passes.

    Raises:
      ValueError: a negative loss.
    """
    if np.any(losses < 0):
        raise ValueError(
            f'losses as low as {np.nanmin(losses):g} are no -log p: give the cross-entropy in nats'
        )


def logit_gaps(losses: Measurement) -> Float[np.ndarray, 'M T']:
    """LiRA's statistic where only the loss was recorded: log p - log(1 - p), p = exp(-loss).

    The same as log p_y - log(sum of the other classes' p) for a cross-entropy in nats. Losses below
    6e-8, a probability that float32 does not tell from 1, count as 6e-8. NaN and infinity stay.

    Raises:
      ValueError: a negative loss, which is no minus log probability.
    """
    losses = np.asarray(losses)
    check_losses(losses)
    gaps = np.empty_like(losses)

    def of_some(rows: slice) -> None:
        loss = np.maximum(losses[rows], _LEAST_LOSS, dtype=losses.dtype)
        # log(1 - exp(-loss)), the way that keeps precision at either end.
        with np.errstate(divide='ignore'):
            rest = np.where(loss < np.log(2), np.log(-np.expm1(-loss)), np.log1p(-np.exp(-loss)))
        gaps[rows] = -loss - rest

    in_threads(of_some, len(losses), step=max(1, _IN_CACHE * len(losses) // max(losses.size, 1)))
    return gaps


class Shadows(NamedTuple):
    """The members on one side, including a target or leaving it out, for every target.

    members: `[T]` how many; all are `[G T]` where each of G subsets in turn is left out.
    mean: `[T]` of what was measured of them.
    squares: `[T]` sum of squared deviations from that mean.
    """

    members: Float[np.ndarray, '*G T']
    mean: Float[np.ndarray, '*G T']
    squares: Float[np.ndarray, '*G T']

    @classmethod
    def of(cls, values: Float[np.ndarray, 'M T'], belongs: Bool[np.ndarray, 'M T']) -> 'Shadows':
        """Of all members."""

        def of_some(targets: slice) -> tuple[Float[np.ndarray, ' t'], ...]:
            # Products with 0 and 1: sums of some entries alone are several times slower.
            side = belongs[:, targets].astype(np.float64)
            count = side.sum(axis=0)
            mean = (values[:, targets] * side).sum(axis=0) / count
            side *= np.square(values[:, targets] - mean)
            return count, mean, side.sum(axis=0)

        parts = by_targets(of_some, *values.shape)
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def without_each(
        self,
        values: Float[np.ndarray, 'k T'],
        belongs: Bool[np.ndarray, 'k T'],
        starts: Int[np.ndarray, ' G'],
    ) -> 'Shadows':
        """Returns what is left, `[G T]`, without the members of each of G subsets in turn.

        Args:
          values: of these members, subset after subset.
          belongs: of which targets they are on this side.
          starts: where each subset begins.
        """
        size = np.diff(starts, append=len(values))[:, None]
        center, apart = np.asarray(values, np.float64), np.zeros((1, 1))
        belongs = belongs[starts]
        if len(starts) < len(values):
            center = np.add.reduceat(center, starts, axis=0) / size
            apart = np.square(values - np.repeat(center, size[:, 0], axis=0))
            apart = np.add.reduceat(apart, starts, axis=0) * belongs
        left = self.members - size * belongs
        deviation = (center - self.mean) * belongs
        moved = deviation * size / left
        squares = self.squares - apart - deviation * moved * self.members
        return Shadows(left, self.mean - moved, np.maximum(squares, 0.0))
