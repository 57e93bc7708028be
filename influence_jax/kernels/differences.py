"""Differences of means and their errors, of all entries, from sums of losses: `differences.cc`."""

import numpy as np
from jaxtyping import Float, Int

from influence_jax.kernels.calls import DOUBLE, FLOATS, INT, INTS, Function
from influence_jax.threads import in_threads

_ENTRIES = 2**16  # of a call

_DIFFERENCES = Function(
    'differences.cc', 'differences', (INT, *[FLOATS] * 12, INT, DOUBLE, DOUBLE), (INTS,)
)


there = _DIFFERENCES.there


def differences(
    values: Float[np.ndarray, 'N t'],
    errors: Float[np.ndarray, 'N t'],
    *,
    per_in: Float[np.ndarray, ' N'],
    per_out: Float[np.ndarray, ' N'],
    by_kurtosis: Float[np.ndarray, ' N'],
    by_skewness: Float[np.ndarray, ' N'],
    total: Float[np.ndarray, ' t'],
    squares: Float[np.ndarray, ' t'],
    kurtosis: Float[np.ndarray, ' t'],
    squared_skewness: Float[np.ndarray, ' t'],
    scale: Float[np.ndarray, ' t'],
    error_scale: Float[np.ndarray, ' t'],
    freedom: int,
    widest: float,
    surely_not_noise: float,
) -> tuple[Int[np.ndarray, ' C'], Int[np.ndarray, ' C']]:
    """Makes differences of means, and standard errors, of sums.

    Arrays are contiguous and float32.

    Args:
      values: the sums of the losses of members with an example; replaced.
      errors: to be filled; of members with and without an example as one group of variance.
      per_in: one over how many members have the example.
      per_out: one over how many have it not.
      by_kurtosis: of the errors' widening, by the kurtosis of the losses.
      by_skewness: likewise, by their squared skewness.
      total: of the losses of all members.
      squares: of the squares of these.
      kurtosis: of the losses.
      squared_skewness: of the losses.
      scale: what differences are multiplied by.
      error_scale: what errors are multiplied by.
      freedom: degrees of freedom.
      widest: the largest widening.
      surely_not_noise: see below.

    Returns:
      Examples and targets of the entries that are more errors from 0, scales left out.
    """
    examples, targets = values.shape
    read = _DIFFERENCES.bound(
        targets,
        values,
        errors,
        per_in,
        per_out,
        by_kurtosis,
        by_skewness,
        total,
        squares,
        kurtosis,
        squared_skewness,
        scale,
        error_scale,
        freedom,
        widest,
        surely_not_noise,
    )

    def of_some(rows: slice) -> Int[np.ndarray, ' C']:
        listed = np.empty((rows.stop - rows.start) * targets, np.int64)
        return listed[: read(rows, listed)].copy()

    found = in_threads(of_some, examples, step=max(1, _ENTRIES // targets))
    example, target = np.divmod(np.concatenate(found), targets)
    return example, target
