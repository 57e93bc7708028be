"""Posteriors of entries, and counts from which they are learnt: `posterior.cc`.

What is computed, `influence_jax.estimators.odds` and `.prior` say.
"""

import dataclasses

import numpy as np
from jaxtyping import Complex64, Float, Int32

from influence_jax.kernels.calls import (
    DOUBLE,
    DOUBLES,
    FLOATS,
    INT,
    INTS,
    SHORT_INTS,
    Function,
    Work,
)

_ENTRIES = (INT, *[FLOATS] * 5, SHORT_INTS, INT, FLOATS, INT)
_VALUES = Function(
    'posterior.cc', 'posterior_values', (*_ENTRIES, FLOATS, INT, INT, FLOATS, FLOATS)
)
_COUNTS = Function(
    'posterior.cc',
    'posterior_counts',
    (*_ENTRIES, INT, FLOATS, FLOATS, DOUBLE, INT),
    (INTS, DOUBLES, DOUBLES),
)


there = _VALUES.there


@dataclasses.dataclass(frozen=True, eq=False)
class Entries:
    """Entries of a block of targets; arrays are contiguous, float32 but for `self_index`.

    values: `[N t]` deviations from the means, by the ensemble.
    errors: `[N t]` their standard errors.
    means: `[N t]`; None where all are 0.
    unit: `[t]` of the means, between whose bins the edges are; 0 for a constant target.
    scale: `[t]` what makes of all these the unit of the losses.
    self_index: `[t]` the example that each target is, -1 for none.
    freedom: degrees of freedom of Student's t.
    edges: `[E]` of means, between bins.
    """

    values: Float[np.ndarray, 'N t']
    errors: Float[np.ndarray, 'N t']
    means: Float[np.ndarray, 'N t'] | None
    unit: Float[np.ndarray, ' t']
    scale: Float[np.ndarray, ' t']
    self_index: Int32[np.ndarray, ' t']
    freedom: int
    edges: Float[np.ndarray, ' E']

    def posterior(
        self,
        table: Complex64[np.ndarray, 'bins S'],
        values: Float[np.ndarray, 'N t'],
        errors: Float[np.ndarray, 'N t'],
        *,
        steps_a_unit: int,
    ) -> Work:
        """Reads posterior means and deviations of some examples off a table.

        In the unit of the losses; own entries are the ensemble's.

        Args:
          table: see `odds.OddsTable`.
          values: to be filled.
          errors: likewise.
          steps_a_unit: of the table, of log(1 + |z|).
        """
        steps = table.shape[1]
        return _VALUES.bound(
            *self._passed, table.view(np.float32), steps, steps_a_unit, values, errors
        )

    def counts(
        self,
        sums: Float[np.ndarray, '2 N t'],
        of_sums: Float[np.ndarray, '2 N'],
        *,
        end: float,
        cells: int,
    ) -> Work:
        """Counts entries of some examples as `odds.Histogram.counts` does.

        Each call brings along what is added to: counts `[bins cells]`, int64, and sums of the
        products of both halves' estimates, and of their squares, `[bins]`, float64.

        Args:
          sums: of either half's losses, of members with the example, about their mean.
          of_sums: what makes of these the half's estimate.
          end: the largest z of the cells.
          cells: how many there are.
        """
        return _COUNTS.bound(*self._passed, sums.shape[1], sums, of_sums, end, cells)

    @property
    def _passed(self) -> tuple[np.ndarray | int | None, ...]:
        return (
            self.values.shape[1],
            self.values,
            self.errors,
            self.means,
            self.unit,
            self.scale,
            self.self_index,
            self.freedom,
            self.edges,
            len(self.edges),
        )
