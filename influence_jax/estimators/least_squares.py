"""Least squares of many targets at once, each on a few mask columns of its own.

On accelerators one compiled program, targets spread over the devices. On a CPU in C++, and where
that cannot be used the same as the program in numpy, which spares a process that asks for a few
columns the seconds and the memory of compiling.
"""

import functools
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Bool, Float, Int, UInt8

from influence_jax.estimators.scan import on_accelerators
from influence_jax.estimators.standard_errors import (
    Reliability,
    reliability,
    reliability_of_powers,
)
from influence_jax.kernels import regressions as kernel
from influence_jax.threads import in_threads
from influence_jax.types import AnyArray

COUNTS = (0, 1, 2, 3, 5, 8)
"""Numbers of regressors among which cross-validation chooses."""

_COLLINEAR = 2.0
"""How many times the variance of a coefficient must be that of its column alone (its variance
inflation factor) for the columns to be called collinear."""

_AXIS = 'target'
_IN_CACHE = 2**18  # entries of columns that a thread works on at once


class Fitted(NamedTuple):
    """Regressions of t targets; K regressors a target, not all used.

    residual: `[t M]` of the losses.
    examples: `[t K]` the regressors; -1 where none is used.
    values: `[t K]` minus their coefficients.
    inflation: `[t]` of errors of what is no regressor, for the degrees of freedom that are spent.
    reliability: `[t K]` each, of the values.
    """

    residual: Float[AnyArray, 't M']
    examples: Int[AnyArray, 't K']
    values: Float[AnyArray, 't K']
    inflation: Float[AnyArray, ' t']
    reliability: Reliability


def fit_regressors(
    losses: Float[np.ndarray, 'M t'],
    candidates: Int[np.ndarray, '3 t K'],
    columns: UInt8[np.ndarray, '3 t K b'],
    has_self: Bool[np.ndarray, ' t'],
    least_z: np.float32,
) -> Fitted:
    """Fits the losses of each target by as many of its candidates as predict held-out members best.

    Args:
      losses: centered, within [-1, 1].
      candidates: examples chosen by members of even number, of odd number, and by all.
      columns: their mask columns, as `PackedColumns.bits` has them.
      has_self: whether the first candidate is the target's own example, which always is used.
      least_z: below which a candidate is no regressor, see `adjusted`.

    Returns:
      Plain numpy arrays.
    """
    if on_accelerators():
        included = np.unpackbits(columns, axis=-1, count=len(losses)).view(bool)
        return _on_devices(losses, candidates, included, has_self, least_z)
    if kernel.there():
        return _in_one_pass(losses, candidates[2], columns, has_self, float(least_z))

    def of_some(targets: slice) -> Fitted:
        return _fit(
            losses[:, targets],
            candidates[:, targets],
            np.unpackbits(columns[:, targets], axis=-1, count=len(losses)).view(bool),
            has_self[targets],
            least_z,
            xp=np,
        )

    of_target = candidates.shape[2] * len(losses)
    pieces = in_threads(of_some, len(has_self), step=max(1, _IN_CACHE // of_target))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)


def _in_one_pass(
    losses: Float[np.ndarray, 'M t'],
    chosen: Int[np.ndarray, 't K'],
    columns: UInt8[np.ndarray, '3 t K b'],
    has_self: Bool[np.ndarray, ' t'],
    least_z: float,
) -> Fitted:
    members = len(losses)
    counts = np.array([count for count in COUNTS if count <= chosen.shape[1]])
    found = kernel.regressions(losses, columns, counts, has_self, least_z=least_z)
    largest, *sums = np.moveaxis(found.powers, -1, 0)
    of = reliability_of_powers(*sums, members=members)
    of = of._replace(variance=of.variance * largest**2)
    return _fitted(
        found.residual,
        np.where(found.used, chosen, -1),
        -found.coefficients,
        Reliability(*(np.asarray(part, np.float32) for part in of)),
        squares=found.squares,
        inverse=found.inverse,
        xp=np,
    )


def _on_devices(
    losses: Float[np.ndarray, 'M t'],
    candidates: Int[np.ndarray, '3 t K'],
    included: Bool[np.ndarray, '3 t K M'],
    has_self: Bool[np.ndarray, ' t'],
    least_z: np.float32,
) -> Fitted:
    targets, fit = len(has_self), _compiled()
    filling = (0, -targets % jax.local_device_count())
    found = fit(
        np.pad(losses, [(0, 0), filling]),
        np.pad(candidates, [(0, 0), filling, (0, 0)]).astype(np.int32),
        np.pad(included, [(0, 0), filling, (0, 0), (0, 0)]),
        np.pad(has_self, filling),
        least_z,
    )
    return jax.tree.map(lambda part: np.asarray(part)[:targets], found)


@functools.cache
def _compiled() -> jax.stages.Wrapped:
    of_members: Any = P(None, _AXIS)
    of_targets: Any = P(_AXIS)
    sharded = jax.shard_map(
        functools.partial(_fit, xp=jnp),
        mesh=Mesh(np.array(jax.local_devices()), (_AXIS,)),
        in_specs=(of_members, of_members, of_members, of_targets, P()),
        out_specs=of_targets,
    )
    # By default accelerators round products of float32 to 10 bits.
    return jax.jit(jax.default_matmul_precision('highest')(sharded))


def _fit(
    losses: Float[AnyArray, 'M t'],
    candidates: Int[AnyArray, '3 t K'],
    included: Bool[AnyArray, '3 t K M'],
    has_self: Bool[AnyArray, ' t'],
    least_z: Any,
    *,
    xp: ModuleType,
) -> Fitted:
    """As `fit_regressors`; `xp` is the module of the arrays, numpy or jax.numpy."""
    members, (chosen, columns) = len(losses), (candidates[2], included[2].astype(xp.float32))
    even, odd = slice(0, None, 2), slice(1, None, 2)
    counts = xp.array([count for count in COUNTS if count <= chosen.shape[1]])
    wrong = sum(
        _held_out_errors(included[half].astype(xp.float32), losses, counts, *parts, xp=xp)
        for half, parts in enumerate(((even, odd), (odd, even)))
    )
    # The own example is always among the regressors: its error is to be that of one.
    wrong = xp.where((counts == 0)[:, None] & has_self[None], xp.inf, wrong)
    count = counts[xp.argmin(wrong, axis=0)]

    columns = columns - columns.mean(axis=-1, keepdims=True)
    used = xp.arange(chosen.shape[1])[None] < count[:, None]
    used = used & _beyond_noise(columns, losses, has_self, least_z, xp=xp)
    columns = columns * used[..., None]
    products, right = _products(columns, losses)
    coefficients, inverse = _least_squares(products, right, used, members, xp=xp)
    residual = losses.T - (coefficients[:, None] @ columns)[:, 0]

    weights = inverse @ columns
    leverage = (weights * columns).sum(axis=1) + 1 / members
    corrected = residual / xp.sqrt(xp.maximum(1 - leverage, 1 / members))
    return _fitted(
        residual,
        xp.where(used, chosen, -1),
        -coefficients,
        reliability(weights * corrected[:, None], members=members, axis=2, xp=xp),
        squares=xp.diagonal(products, axis1=1, axis2=2),
        inverse=xp.diagonal(inverse, axis1=1, axis2=2),
        xp=xp,
    )


def _fitted(
    residual: Float[AnyArray, 't M'],
    examples: Int[AnyArray, 't K'],
    values: Float[AnyArray, 't K'],
    of: Reliability,
    *,
    squares: Float[AnyArray, 't K'],
    inverse: Float[AnyArray, 't K'],
    xp: ModuleType,
) -> Fitted:
    """Regressions whose errors are no less than those of least squares where it matters.

    Where other regressors nearly explain a column, what is left of it rests on a few members, which
    the fit follows.

    Args:
      residual: see `Fitted`.
      examples: likewise.
      values: likewise.
      of: of the members' parts in the values alone.
      squares: of each column.
      inverse: on the diagonal of the inverse of the columns' products.
      xp: module of the arrays.
    """
    members = residual.shape[1]
    freedom = xp.maximum(members - 1 - (examples >= 0).sum(axis=1), 1).astype(xp.float32)
    by_residual = (residual**2).sum(axis=1) / freedom
    collinear = inverse > _COLLINEAR / xp.maximum(squares, 1)
    variance = xp.maximum(of.variance, by_residual[:, None] * inverse)
    return Fitted(
        residual,
        examples,
        values,
        xp.sqrt((members - 1) / freedom),
        of._replace(variance=xp.where(collinear, variance, of.variance)),
    )


def _beyond_noise(
    columns: Float[AnyArray, 't K M'],
    losses: Float[AnyArray, 'M t'],
    has_self: Bool[AnyArray, ' t'],
    least_z: Any,
    *,
    xp: ModuleType,
) -> Bool[AnyArray, 't K']:
    """Own columns, and those whose difference of means, the own effect left out, is beyond."""
    squares = xp.maximum((columns**2).sum(axis=2), 1e-6)
    of_self = columns[:, 0] * has_self[:, None]
    effect = (of_self * losses.T).sum(axis=1) / squares[:, 0]
    left = losses - effect[None] * of_self.T
    explained = _right(columns, left) ** 2 / squares
    rest = xp.maximum((left**2).sum(axis=0)[:, None] - explained, 0)
    beyond = explained * (len(losses) - 3) > least_z**2 * rest
    is_self = (xp.arange(columns.shape[1]) == 0)[None] & has_self[:, None]
    return beyond | is_self


def _held_out_errors(
    columns: Float[AnyArray, 't K M'],
    losses: Float[AnyArray, 'M t'],
    counts: Int[AnyArray, ' c'],
    train: slice,
    test: slice,
    *,
    xp: ModuleType,
) -> Float[AnyArray, 'c t']:
    """Squared errors of predicting members that had no part in choosing or fitting.

    Less the squares of what is predicted, which no regressor changes.
    """
    columns = columns - columns[..., train].mean(axis=-1, keepdims=True)
    losses = losses - losses[train].mean(axis=0, keepdims=True)
    products, right = _products(columns[..., train], losses[train])
    test_products, test_right = _products(columns[..., test], losses[test])
    used = (xp.arange(columns.shape[1])[None] < counts[:, None])[:, None]
    fitted, _ = _least_squares(products[None], right[None], used, len(losses[train]), xp=xp)
    predicted = (test_products[None] @ fitted[..., None])[..., 0]
    return (fitted * (predicted - 2 * test_right[None])).sum(axis=-1)


def _products(
    columns: Float[AnyArray, 't K m'], losses: Float[AnyArray, 'm t']
) -> tuple[Float[AnyArray, 't K K'], Float[AnyArray, 't K']]:
    return columns @ columns.swapaxes(1, 2), _right(columns, losses)


def _right(
    columns: Float[AnyArray, 't K m'], losses: Float[AnyArray, 'm t']
) -> Float[AnyArray, 't K']:
    return (columns @ losses.T[..., None])[..., 0]


def _least_squares(
    products: Float[AnyArray, '*one t K K'],
    right: Float[AnyArray, '*one t K'],
    used: Bool[AnyArray, '*c s K'],
    members: int,
    *,
    xp: ModuleType,
) -> tuple[Float[AnyArray, '*c t K'], Float[AnyArray, '*c t K K']]:
    """Coefficients, 0 where not used, and the inverse of the columns' products."""
    both = used[..., :, None] & used[..., None, :]
    # A 1 on the diagonal keeps what is not used apart from the rest. The small ridge is for
    # columns of which others are a sum: equal ones are not used together.
    ridge = xp.where(used, xp.float32(1e-5 * members), xp.float32(1.0))
    identity = xp.eye(used.shape[-1], dtype=xp.float32)
    diagonal = ridge[..., None] * identity.reshape((1,) * (used.ndim - 1) + identity.shape)
    inverse = xp.linalg.inv(xp.where(both, products, 0) + diagonal)
    return (inverse @ xp.where(used, right, 0)[..., None])[..., 0], inverse
