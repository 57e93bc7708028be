"""Least squares of many targets, each on a few mask columns of its own: `regressions.cc`.

What is computed, `influence_jax.estimators.least_squares` says.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from influence_jax.kernels.calls import BYTES, DOUBLE, FLOATS, INT, INTS, Function
from influence_jax.threads import in_threads

_TARGETS = 32  # of a call
_MOST = 8  # columns, as regressions.cc has it

_REGRESSIONS = Function(
    'regressions.cc',
    'regressions',
    (INT, INT, FLOATS, INT, INT, BYTES, INT, INTS, INTS, DOUBLE, FLOATS, INTS, *[FLOATS] * 4),
)


there = _REGRESSIONS.there


@dataclasses.dataclass(frozen=True, eq=False)
class Regressions:
    """Regressions of t targets, on K columns or fewer; 0 where a column is not used.

    residual: `[t M]` of the losses.
    used: `[t K]` 1 for regressors.
    coefficients: `[t K]`.
    inverse: `[t K]` on the diagonal of the inverse of the regressors' products.
    squares: `[t K]` on the diagonal of these products.
    powers: `[t K 4]` of each member's part in a coefficient, its residual (as HC2 has it) times its
        weight: the largest, and sums of the second to fourth powers, divided by it before.
    """

    residual: Float[np.ndarray, 't M']
    used: Int[np.ndarray, 't K']
    coefficients: Float[np.ndarray, 't K']
    inverse: Float[np.ndarray, 't K']
    squares: Float[np.ndarray, 't K']
    powers: Float[np.ndarray, 't K 4']


def regressions(
    losses: Float[np.ndarray, 'M t'],
    columns: UInt8[np.ndarray, '3 t K b'],
    counts: Int[np.ndarray, ' c'],
    has_self: Bool[np.ndarray, ' t'],
    *,
    least_z: float,
) -> Regressions:
    """Fits each target's losses by as many columns as predict held-out members best.

    Args:
      losses: taken as float32, best in Fortran's order.
      columns: mask columns, eight members a byte, the first in the highest bit; chosen by members
        of even number, of odd number, and by all.
      counts: how many columns may be used, ascending; K of 8 at most.
      has_self: whether the first column is always used.
      least_z: others that are nearer to 0 are not.

    Raises:
      ValueError: more than 8 columns a target.
    """
    members, targets = losses.shape
    if columns.shape[2] > _MOST:
        raise ValueError(f'{columns.shape[2]} columns a target are more than {_MOST}')
    if 8 * columns.shape[3] < members:
        raise ValueError(f'columns of {columns.shape[3]} bytes are too short for {members} members')
    shape = targets, columns.shape[2]
    coefficients, inverse, squares = np.empty((3, *shape), np.float32)
    found = Regressions(
        np.empty((targets, members), np.float32),
        np.empty(shape, np.int64),
        coefficients,
        inverse,
        squares,
        np.empty((*shape, 4), np.float32),
    )
    work = _REGRESSIONS.bound(
        targets,
        members,
        np.ascontiguousarray(losses.T, np.float32),
        *columns.shape[2:],
        np.ascontiguousarray(columns),
        len(counts),
        counts,
        has_self.astype(np.int64),
        least_z,
        found.residual,
        found.used,
        found.coefficients,
        found.inverse,
        found.squares,
        found.powers,
    )
    in_threads(work, targets, step=_TARGETS)
    return found
