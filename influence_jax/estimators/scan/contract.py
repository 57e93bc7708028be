"""The questions that a scan over whole columns of the influence matrix answers.

A scan computes every entry of the difference of means of a block of targets and forgets it again.
Three scans do the same: `device`, by matrix products, for GPUs and TPUs; for CPUs `compiled`, by
sums looked up in C++, and `host`, by products of numpy, where that cannot be used.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators.moments import Moments
from influence_jax.types import AnyArray

Entries = Callable[
    [Int[np.ndarray, ' C'], Int[np.ndarray, ' C']],
    tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']],
]
"""From positions in the block and examples to values and standard errors."""

BINS_A_SIDE = 512
"""Bins of the histogram of z on each side of zero."""
REACH = 8.0
"""|z| at which the outermost bins begin to hold all that is beyond."""
EDGES = np.linspace(-REACH, REACH, 2 * BINS_A_SIDE + 1)
"""Edges of the histogram of z."""


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
class SingleEntries(Protocol):
    """Questions about a few entries of each target, of the masks of an ensemble."""

    def moments(self, losses: Float[AnyArray, 'M t'], examples: Int[np.ndarray, ' t']) -> Moments:
        """See `moments_by_group`."""

    def moments_of_all(self, losses: Float[AnyArray, 'M t']) -> Moments:
        """Moments `[t]` of the losses of all members as one group."""

    def entries_of(self, losses: Float[AnyArray, 'M t'], whole: Moments) -> Entries:
        """Difference of means of single entries and its standard error.

        Computed from the losses themselves, whatever rounding `Scan.columns` allows itself.

        Args:
          losses: of a block of targets, centered.
          whole: `moments_of_all` of these.

        Returns:
          What reads entries as they are asked for.
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


@runtime_checkable
class Scan(Protocol):
    """One way of scanning, made for the masks of an ensemble.

    Attributes:
      blocks_at_once: how many blocks of targets are best scanned side by side; what a scan does of
        one may use all cores already.
    """

    blocks_at_once: int

    @property
    def single(self) -> SingleEntries:
        """What is asked of single entries."""

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
