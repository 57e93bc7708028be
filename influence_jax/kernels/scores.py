"""Standardized scores, moments of their features, and means that follow from them: `scores.cc`.

What is computed, `influence_jax.estimators.prior` says.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Int32

from influence_jax.kernels.calls import (
    DOUBLES,
    FLOATS,
    INT,
    INTS,
    ROWS_OF_FLOATS,
    SHORT_INTS,
    Function,
)
from influence_jax.threads import in_threads

_TARGETS = 16  # of a call

_STANDARDIZED = Function(
    'scores.cc', 'scores_standardized', (INT, INT, ROWS_OF_FLOATS, INT, SHORT_INTS, FLOATS)
)
_OF_FEATURES = (INT, INT, INT, FLOATS, INTS, FLOATS, FLOATS, FLOATS, FLOATS)
_MOMENTS = Function('scores.cc', 'scores_moments', (*_OF_FEATURES, INT, INTS, DOUBLES), (DOUBLES,))
_MEANS = Function('scores.cc', 'scores_means', (*_OF_FEATURES, FLOATS, DOUBLES, DOUBLES, FLOATS))


there = _STANDARDIZED.there


def standardize(
    scores: Float[np.ndarray, 'N t'],
    self_index: Int32[np.ndarray, ' t'],
    found: Float[np.ndarray, 'N t'],
) -> bool:
    """Standardizes scores within each target, own ones left out; whether all are finite.

    Args:
      scores: float32, rows in one piece.
      self_index: the example that each target is, -1 for none.
      found: to be filled.
    """
    examples, targets = scores.shape
    work = _STANDARDIZED.bound(
        examples, targets, scores, scores.strides[0] // scores.itemsize, self_index, found
    )
    return not any(in_threads(work, targets, step=_TARGETS))


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Features of scores, and estimates beside them; arrays are contiguous and float32.

    scores: `[F N t]` standardized.
    knots: of each score.
    sums: `[2 N t]` of the losses of either half of the members, about their mean.
    of_sums: `[2 N]` what makes of these an estimate.
    unit: `[t]` standard deviation of each target's losses.
    """

    scores: Float[np.ndarray, 'F N t']
    knots: Sequence[Float[np.ndarray, ' _']]
    sums: Float[np.ndarray, '2 N t']
    of_sums: Float[np.ndarray, '2 N']
    unit: Float[np.ndarray, ' t']

    def moments(
        self, bounds: Int[np.ndarray, ' ends']
    ) -> tuple[Float[np.ndarray, 't G G'], Float[np.ndarray, 'blocks G G']]:
        """Products of the features and of both halves' estimates with one another.

        About their means within a target; of each target, and of blocks of examples over targets.
        Above the diagonal alone.

        Args:
          bounds: of the blocks.
        """
        targets, size = len(self.unit), sum(len(of) + 1 for of in self.knots) + 2
        of_target = np.empty((targets, size, size))
        work = _MOMENTS.bound(*self._passed, len(bounds) - 1, bounds, of_target)

        def of_some(rows: slice) -> Float[np.ndarray, 'blocks G G']:
            of_block = np.zeros((len(bounds) - 1, size, size))
            work(rows, of_block)
            return of_block

        return of_target, np.sum(in_threads(of_some, targets, step=_TARGETS), axis=0)

    def means(
        self,
        coefficients: Float[np.ndarray, '2 P'],
        *,
        noise: Float[np.ndarray, '2'],
        variance: Float[np.ndarray, '2'],
    ) -> Float[np.ndarray, '2 N t']:
        """Means by what either half taught, each times the target's own slope, in `unit`.

        Args:
          coefficients: of the features.
          noise: see `prior.own_slopes`; float64.
          variance: likewise.
        """
        means = np.empty(self.sums.shape, np.float32)
        work = _MEANS.bound(*self._passed, coefficients, noise, variance, means)
        in_threads(work, len(self.unit), step=_TARGETS)
        return means

    @property
    def _passed(self) -> tuple[np.ndarray | int, ...]:
        count, examples, targets = self.scores.shape
        return (
            *(examples, targets, count, self.scores),
            np.array([len(of) for of in self.knots]),
            np.concatenate([*self.knots, np.empty(0)]).astype(np.float32),
            *(self.sums, self.of_sums, self.unit),
        )
