"""Difference of means with each target's own inclusion and strongest influencers regressed out.

Most of what a target's loss varies by from member to member is whether it, or its near-duplicates,
were in the subset. Taken out of the losses first, that is no longer noise in everything else.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from influence_jax.estimators import difference
from influence_jax.estimators.ensemble import check_both_sides, examples_of_targets, usable
from influence_jax.estimators.scan import Scan, scan_for
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_COUNTS = (0, 1, 2, 3, 5, 8)
"""Numbers of regressors among which cross-validation chooses."""

FEWEST_MEMBERS = 3 * _COUNTS[-1]

_AXIS = 'target'

# Accelerators round products of float32 to 10 bits unless told not to.
_einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def adjusted(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, 'T'] | None = None,
) -> Influence:
    """Influence of every example on every target, with less noise than `difference_in_means`.

    The losses of a target are regressed (least squares) on the mask columns of its own example
    and of its strongest influencers. Their values are minus the fitted coefficients, with
    heteroscedasticity-consistent errors (HC1); those of all other examples are the difference of
    means of the residual. How many influencers, up to 8, is chosen for each target by two-fold
    cross-validation in which each half of the members selects its own.

    Both estimates converge to the same quantity as the members grow; sign and unit are those of
    `difference_in_means`.

    Args:
      masks: as in `difference_in_means`.
      losses: as in `difference_in_means`.
      target_examples: `[T]` position of the example that each target is, -1 where it is none.
        By default target t is example t if T == N, and otherwise no target is an example.

    Raises:
      ValueError: as in `difference_in_means`, or fewer than 24 usable members.
    """
    blocks = tiles(masks, losses, target_examples=target_examples)
    return difference.whole(blocks, examples=np.shape(masks)[1], targets=np.shape(losses)[1])


def tiles(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, 'T'] | None = None,
    tile: int = difference.TILE,
) -> Iterator[tuple[slice, Influence]]:
    """Yields `adjusted` by blocks of targets, as `difference.tiles` does."""
    if tile < 1:
        raise ValueError(f'{tile=} must be at least 1')
    ensemble = usable(masks, losses)
    check_both_sides(ensemble.masks)
    members, examples = ensemble.masks.shape
    check_members(members)
    targets = ensemble.losses.shape[1]
    own = examples_of_targets(target_examples, examples=examples, targets=targets)
    scan = scan_for(ensemble.masks, targets=targets)
    fit = Fitting(ensemble.masks, scan)

    def blocks() -> Iterator[tuple[slice, Influence]]:
        weights = jnp.asarray(ensemble.masks, jnp.float32)
        for columns, losses, scale in difference.standardized_tiles(ensemble.losses, tile=tile):
            of_block = difference.padded(own[columns], len(scale), fill=-1)
            block = _completed(weights, scale, fit(losses, of_block))
            yield columns, difference.cut(block, columns)

    return blocks()


def check_members(members: int) -> None:
    """Refuses, with a ValueError, fewer members than the regressions need."""
    if members < FEWEST_MEMBERS:
        raise ValueError(
            f'{members} usable members are too few to regress on up to {_COUNTS[-1]} examples: '
            f'use at least {FEWEST_MEMBERS}, or difference_in_means'
        )


class Fit(NamedTuple):
    """Regressions of a block of targets, in the unit of the losses given.

    residual: `[M t]` what of the losses the regressors leave.
    examples: `[t K]` the regressors, -1 where fewer are used.
    values: `[t K]` their influences.
    errors: `[t K]` the standard errors of these.
    inflation: `[t]` by which errors of the residual's differences of means grow, since the
        regressors took up degrees of freedom.
    """

    residual: Float[AnyArray, 'M t']
    examples: Int[AnyArray, 't K']
    values: Float[AnyArray, 't K']
    errors: Float[AnyArray, 't K']
    inflation: Float[AnyArray, 't']


class Fitting:
    """Fits block after block of targets of one ensemble, spread over this process's devices."""

    def __init__(self, masks: Bool[np.ndarray, 'M N'], scan: Scan) -> None:
        self._scan = scan
        self._by_example = jnp.asarray(masks.T)
        self._most = min(_COUNTS[-1], masks.shape[1])

    def __call__(self, losses: Float[np.ndarray, 'M t'], own: Int[np.ndarray, 't']) -> Fit:
        """Fits losses that are centred and within [-1, 1]; `own` as in `examples_of_targets`."""
        suspects = self._scan.suspects(losses, own, self._most)
        fit, devices = _fit_on_all_devices()
        filling = (0, -losses.shape[1] % devices)
        found = fit(
            self._by_example,
            np.pad(losses, [(0, 0), filling]),
            np.pad(suspects, [(0, 0), filling, (0, 0)]).astype(np.int32),
        )
        residual, *others = (np.asarray(part) for part in found)
        given = losses.shape[1]
        return Fit(residual[:, :given], *(part[:given] for part in others))


@functools.cache
def _fit_on_all_devices() -> tuple[jax.stages.Wrapped, int]:
    devices = jax.local_devices()
    mesh = Mesh(np.array(devices), (_AXIS,))
    of_members: Any = P(None, _AXIS)
    of_targets: Any = P(_AXIS)
    sharded = jax.shard_map(
        _fit,
        mesh=mesh,
        in_specs=(P(), of_members, of_members),
        out_specs=Fit(of_members, of_targets, of_targets, of_targets, of_targets),
    )
    return jax.jit(sharded), len(devices)


def _fit(
    by_example: Bool[Array, 'N M'], losses: Float[Array, 'M t'], suspects: Int[Array, '3 t K']
) -> Fit:
    members = len(losses)
    of_even, of_odd, chosen = suspects
    even, odd = slice(0, None, 2), slice(1, None, 2)
    counts = jnp.array([count for count in _COUNTS if count <= chosen.shape[1]])
    wrong = _held_out_errors(by_example, losses, of_even, counts, train=even, test=odd)
    wrong += _held_out_errors(by_example, losses, of_odd, counts, train=odd, test=even)
    count = counts[jnp.argmin(wrong, axis=0)]

    used = jnp.arange(chosen.shape[1])[None] < count[:, None]
    columns = by_example[chosen].astype(jnp.float32)
    columns = (columns - columns.mean(axis=-1, keepdims=True)) * used[..., None]
    products, right = _products(columns, losses)
    coefficients, inverse = _least_squares(products, right, used, members)
    residual = losses - _einsum('tk,tkm->mt', coefficients, columns)

    freedom = jnp.maximum(members - 1 - count, 1)
    meat = _einsum('tkm,mt,tlm->tkl', columns, residual**2, columns)
    covariance = _einsum('tkl,tlm,tmn->tkn', inverse, meat, inverse)
    covariance *= (members / freedom)[:, None, None]
    return Fit(
        residual,
        jnp.where(used, chosen, -1),
        -coefficients,
        jnp.sqrt(jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 0)),
        jnp.sqrt((members - 1) / freedom),
    )


def _held_out_errors(
    by_example: Bool[Array, 'N M'],
    losses: Float[Array, 'M t'],
    chosen: Int[Array, 't K'],
    counts: Int[Array, 'c'],
    *,
    train: slice,
    test: slice,
) -> Float[Array, 'c t']:
    """Squared errors of predicting members that had no part in choosing or fitting.

    Less the squares of what is predicted, which no regressor changes.
    """
    columns = by_example[chosen].astype(jnp.float32)
    columns -= columns[..., train].mean(axis=-1, keepdims=True)
    losses = losses - losses[train].mean(axis=0, keepdims=True)
    products, right = _products(columns[..., train], losses[train])
    test_products, test_right = _products(columns[..., test], losses[test])

    def error(count: Int[Array, '']) -> Float[Array, 't']:
        used = jnp.broadcast_to(jnp.arange(chosen.shape[1])[None] < count, chosen.shape)
        fitted, _ = _least_squares(products, right, used, len(losses[train]))
        squares = _einsum('tk,tkl,tl->t', fitted, test_products, fitted)
        return squares - 2 * _einsum('tk,tk->t', fitted, test_right)

    return lax.map(error, counts)


def _products(
    columns: Float[Array, 't K m'], losses: Float[Array, 'm t']
) -> tuple[Float[Array, 't K K'], Float[Array, 't K']]:
    return _einsum('tkm,tlm->tkl', columns, columns), _einsum('tkm,mt->tk', columns, losses)


def _least_squares(
    products: Float[Array, 't K K'],
    right: Float[Array, 't K'],
    used: Bool[Array, 't K'],
    members: int,
) -> tuple[Float[Array, 't K'], Float[Array, 't K K']]:
    """Coefficients, 0 where not used, and the inverse of the columns' products."""
    both = used[:, :, None] & used[:, None, :]
    # A 1 on the diagonal keeps what is not used apart from the rest. The small ridge shares an
    # effect evenly between columns that are equal, as within a group.
    ridge = jnp.where(used, 1e-5 * members, 1.0)
    diagonal = ridge[:, None] * jnp.eye(used.shape[1])[None]
    inverse = jnp.linalg.inv(jnp.where(both, products, 0) + diagonal)
    return _einsum('tkl,tl->tk', inverse, jnp.where(used, right, 0)), inverse


def _completed(
    masks: Float[Array, 'M N'],
    scale: Float[np.ndarray, 't'],
    fit: Fit,
) -> Influence:
    """All entries: of the residual, and in their places those of the regressors."""
    rest = difference.estimate(masks, jnp.asarray(fit.residual), jnp.asarray(scale))
    targets, places = np.nonzero(fit.examples >= 0)
    at = fit.examples[targets, places], targets
    values = np.array(rest.values)
    errors = np.asarray(rest.standard_error) * fit.inflation
    values[at] = fit.values[targets, places] * scale[targets]
    errors[at] = fit.errors[targets, places] * scale[targets]
    return Influence(values, errors)
