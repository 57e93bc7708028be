"""The questions that a scan over whole columns of the influence matrix answers.

A scan computes every entry of the difference of means of a block of targets and forgets it again.
Three scans do the same: `device`, by matrix products, for GPUs and TPUs; for CPUs `compiled`, by
sums looked up in C++, and `host`, by products of numpy, where that cannot be used.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import standard_errors
from influence_jax.estimators.uncertainty import randomization_p_values
from influence_jax.types import AnyArray

BINS_A_SIDE = 512
"""Bins of the histogram of z on each side of zero."""
REACH = 8.0
"""|z| at which the outermost bins begin to hold all that is beyond."""
EDGES = np.linspace(-REACH, REACH, 2 * BINS_A_SIDE + 1)
"""Edges of the histogram of z."""

_GATHERED = 2**24  # losses looked up at once


class SummaryRequest(NamedTuple):
    """Questions about each column.

    strongest: K, how many entries of largest and of least value.
    ranks: which entries in ascending order, counted from 0; the quantiles are made of these.
    """

    strongest: int
    ranks: tuple[int, ...]


class Targets(NamedTuple):
    """A block of targets.

    losses: `[M t]` centered and within [-1, 1].
    null_error: `[t]` standard error of an entry without influence, in the unit of `losses`.
    self_index: `[t]` the example that each target is, -1 where it is none.
    floor: `[t]` entries of larger absolute value are listed as candidates; unit of `losses`.
    fixed_examples: `[t F]` examples of which the value is known otherwise, -1 for none.
    fixed_values: `[t F]` their values, which take the place of the difference of means.
    """

    losses: Float[AnyArray, 'M t']
    null_error: Float[AnyArray, ' t']
    self_index: Int[AnyArray, ' t']
    floor: Float[AnyArray, ' t']
    fixed_examples: Int[AnyArray, 't F']
    fixed_values: Float[AnyArray, 't F']


class SummaryResult(NamedTuple):
    """Answers; plain numpy, values in the unit of the losses given.

    top: `[t K]` examples of largest value, largest first.
    bottom: `[t K]` examples of least value, least first.
    moments: `[t 4]` means of the entries' first four powers, divided by `null_error` before.
    ranked: `[t R]` values of the entries of the ranks asked for.
    candidate_targets: `[C]` positions in the block of the entries beyond the floor.
    candidate_examples: `[C]` their examples.
    histogram: `[2 BINS_A_SIDE]` of value / `null_error` of all entries but own, see `EDGES`.
    """

    top: Int[AnyArray, 't K']
    bottom: Int[AnyArray, 't K']
    moments: Float[AnyArray, 't 4']
    ranked: Float[AnyArray, 't R']
    candidate_targets: Int[AnyArray, ' C']
    candidate_examples: Int[AnyArray, ' C']
    histogram: Int[AnyArray, ' E']


@runtime_checkable
class Scan(Protocol):
    """One way of scanning, made for the masks of an ensemble."""

    def __init__(self, masks: Bool[np.ndarray, 'M N']) -> None:
        """Brings the masks into the form in which they are used again and again."""

    def columns(self, targets: Targets, request: SummaryRequest) -> SummaryResult:
        """Scans the columns of a block of targets."""

    def candidate_regressors(
        self,
        losses: Float[np.ndarray, 'M t'],
        self_index: Int[np.ndarray, ' t'],
        count: int,
        *,
        parts: int = 3,
    ) -> Int[np.ndarray, '{parts} t K']:
        """Examples of largest |z| of each target, its own before all others.

        By the members of even number, by those of odd number, and, of three parts, by all.
        """

    def entries(
        self,
        losses: Float[AnyArray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
    ) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
        """Difference of means of single entries and its standard error.

        Computed from the losses themselves, whatever rounding `columns` allows itself.
        """

    def differences(
        self,
        losses: Float[np.ndarray, 'M t'],
        examples: Int[np.ndarray, 't K'],
        half: int,
    ) -> Float[np.ndarray, 't K']:
        """Differences of means of a few entries of each target by half of the members.

        By those of even number (0) or odd number (1); not finite where a mean is of nobody.
        """

    def randomization_p_values(
        self,
        losses: Float[AnyArray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        taken: Float[np.ndarray, ' C'],
        *,
        sure: float,
    ) -> Float[np.ndarray, ' C']:
        """P-values of single entries, see `uncertainty.randomization_p_values`.

        Args:
          losses: of a block of targets.
          targets: positions of the entries.
          examples: likewise.
          taken: what is first subtracted from the losses of the members with the example.
          sure: where the p-value is certainly no larger, an upper bound will do.
        """


def error_of_entries(
    included: Float[np.ndarray, ' N'],
    losses: Float[AnyArray, 'M t'],
    targets: Int[np.ndarray, ' C'],
    examples: Int[np.ndarray, ' C'],
    values: Float[np.ndarray, ' C'],
    within: Float[np.ndarray, '2 C'],
) -> Float[np.ndarray, ' C']:
    """Standard errors of entries from the sums of squares within the members in and out.

    Args:
      included: how many members have each example.
      losses: of the targets, centered.
      targets: positions of the entries.
      examples: likewise.
      values: of the entries.
      within: the sums of squares, of members in and of members out.
    """
    of = standard_errors.shape(np.asarray(losses, np.float64))
    return standard_errors.standard_error(
        values,
        *within,
        included=included[examples],
        members=len(losses),
        of=standard_errors.Shape(of.skewness[targets], of.kurtosis[targets]),
    )


def entries_of_sums(
    included: Float[np.ndarray, ' N'],
    losses: Float[AnyArray, 'M t'],
    targets: Int[np.ndarray, ' C'],
    examples: Int[np.ndarray, ' C'],
    inside: Float[np.ndarray, 'C 2'],
) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
    """Entries as `Scan.entries` returns them, from sums of the losses of members in.

    Args:
      included: how many members have each example.
      losses: of the targets, centered.
      targets: positions of the entries.
      examples: likewise.
      inside: sums of the losses of the members with the example, and of their squares.
    """
    exact = np.asarray(losses, np.float64)
    whole = np.stack([exact.sum(axis=0), np.einsum('mt,mt->t', exact, exact)], axis=1)
    count, outside = included[examples], whole[targets] - inside
    means, within = [], []
    for n, (total, squares) in ((count, inside.T), (len(losses) - count, outside.T)):
        means.append(total / n)
        within.append(np.maximum(squares - total * means[-1], 0))
    values = means[1] - means[0]
    return values, error_of_entries(included, losses, targets, examples, values, np.stack(within))


class ByColumns:
    """What a `Scan` answers in numpy of the masks' columns."""

    def __init__(self, masks: Bool[np.ndarray, 'M N']) -> None:
        self._masks = masks

    def differences(
        self,
        losses: Float[np.ndarray, 'M t'],
        examples: Int[np.ndarray, 't K'],
        half: int,
    ) -> Float[np.ndarray, 't K']:
        """See `Scan`."""
        losses = losses[half::2]
        included = self._masks[half::2].T[examples].astype(np.float32)
        inside = np.einsum('tkm,mt->tk', included, losses)
        return differences_of_sums(inside, losses, included.sum(axis=-1))

    def randomization_p_values(
        self,
        losses: Float[AnyArray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        taken: Float[np.ndarray, ' C'],
        *,
        sure: float,
    ) -> Float[np.ndarray, ' C']:
        """See `Scan`."""
        p = np.ones(len(targets))
        chunk = max(1, _GATHERED // len(self._masks))
        for start in range(0, len(targets), chunk):
            some = slice(start, start + chunk)
            columns = np.ascontiguousarray(self._masks[:, examples[some]].T)
            of = np.array(losses[:, targets[some]].T)
            of -= taken[some, None] * columns
            p[some] = randomization_p_values(columns, of, sure=sure)
        return p


def differences_of_sums(
    inside: Float[np.ndarray, 't K'],
    losses: Float[np.ndarray, 'm t'],
    included: Float[np.ndarray, 't K'],
) -> Float[np.ndarray, 't K']:
    """Mean without - mean with, from sums of the losses with the example and how many these are."""
    with np.errstate(divide='ignore', invalid='ignore'):
        outside = losses.sum(axis=0)[:, None] - inside
        return outside / (len(losses) - included) - inside / included
