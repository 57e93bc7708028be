"""Difference of means with each target's own inclusion and strongest influencers regressed out.

Most of what a target's loss varies by from member to member is whether it, or its near-duplicates,
were in the subset. Taken out of the losses first, that is no longer noise in everything else.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from influence_jax.estimators import difference
from influence_jax.estimators.ensemble import check_both_sides, examples_of_targets, usable
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_COUNTS = (0, 1, 2, 3, 5, 8)
"""Numbers of regressors among which cross-validation chooses."""

# Accelerators round products of float32 to 10 bits unless told not to.
_einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)


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
    if members < 3 * _COUNTS[-1]:
        raise ValueError(
            f'{members} usable members are too few to regress on up to {_COUNTS[-1]} examples: '
            f'use at least {3 * _COUNTS[-1]}, or difference_in_means'
        )
    own = examples_of_targets(target_examples, examples=examples, targets=ensemble.losses.shape[1])
    return difference.by_tiles(_adjusted, *ensemble, own, tile=tile)


@jax.jit
def _adjusted(
    masks: Float[Array, 'M N'],
    losses: Float[Array, 'M t'],
    scale: Float[Array, 't'],
    own: Int[Array, 't'],
) -> Influence:
    members = len(masks)
    chosen = _strongest(masks, losses, own)
    count = _cross_validated(masks, losses, own)
    used = jnp.arange(chosen.shape[1])[None] < count[:, None]
    columns = _centred_columns(masks, chosen, used)
    coefficients, inverse = _least_squares(columns, losses, used)
    residual = losses - _einsum('tk,tkm->mt', coefficients, columns)

    freedom = jnp.maximum(members - 1 - count, 1)
    meat = _einsum('tkm,mt,tlm->tkl', columns, residual**2, columns)
    covariance = _einsum('tkl,tlm,tmn->tkn', inverse, meat, inverse)
    covariance *= (members / freedom)[:, None, None]
    error = jnp.sqrt(jnp.maximum(jnp.diagonal(covariance, axis1=1, axis2=2), 0))

    rest = difference.estimate(masks, residual, scale)
    rest_error = rest.standard_error * jnp.sqrt((members - 1) / freedom)[None]
    # What is not used keeps the value that it has there.
    at = chosen, jnp.arange(losses.shape[1])[:, None]
    return Influence(
        rest.values.at[at].set(jnp.where(used, -coefficients * scale[:, None], rest.values[at])),
        rest_error.at[at].set(jnp.where(used, error * scale[:, None], rest_error[at])),
    )


def _strongest(
    masks: Float[Array, 'M N'], losses: Float[Array, 'M t'], own: Int[Array, 't']
) -> Int[Array, 't K']:
    """Examples of largest |z|, the target's own before all others."""
    plain = difference.estimate(masks, losses, jnp.ones(losses.shape[1]))
    known = plain.standard_error > 0  # not so where all members, or none, include the example
    z = jnp.where(known, jnp.abs(plain.values) / jnp.where(known, plain.standard_error, 1), 0)
    is_own = jnp.arange(masks.shape[1])[:, None] == own[None]
    most = min(_COUNTS[-1], masks.shape[1])
    return lax.top_k(jnp.where(is_own, jnp.inf, z).T, most)[1]


def _cross_validated(
    masks: Float[Array, 'M N'], losses: Float[Array, 'M t'], own: Int[Array, 't']
) -> Int[Array, 't']:
    """How many regressors predict best the members that had no part in choosing or fitting."""
    counts = jnp.array([count for count in _COUNTS if count <= masks.shape[1]])
    even, odd = slice(0, None, 2), slice(1, None, 2)
    errors = _held_out_errors(masks, losses, own, counts, train=even, test=odd)
    errors += _held_out_errors(masks, losses, own, counts, train=odd, test=even)
    return counts[jnp.argmin(errors, axis=0)]


def _held_out_errors(
    masks: Float[Array, 'M N'],
    losses: Float[Array, 'M t'],
    own: Int[Array, 't'],
    counts: Int[Array, 'c'],
    *,
    train: slice,
    test: slice,
) -> Float[Array, 'c t']:
    level = losses[train].mean(axis=0, keepdims=True)
    chosen = _strongest(masks[train], losses[train] - level, own)
    shift = masks[train].mean(axis=0)

    def error(count: Int[Array, '']) -> Float[Array, 't']:
        used = jnp.broadcast_to(jnp.arange(chosen.shape[1])[None] < count, chosen.shape)
        columns = _centred_columns(masks[train], chosen, used)
        coefficients, _ = _least_squares(columns, losses[train] - level, used)
        held_out = (masks[test].T[chosen] - shift[chosen][..., None]) * used[..., None]
        predicted = level + _einsum('tk,tkm->mt', coefficients, held_out)
        return jnp.square(losses[test] - predicted).sum(axis=0)

    return lax.map(error, counts)


def _centred_columns(
    masks: Float[Array, 'M N'], chosen: Int[Array, 't K'], used: Bool[Array, 't K']
) -> Float[Array, 't K M']:
    columns = masks.T[chosen]
    return (columns - columns.mean(axis=-1, keepdims=True)) * used[..., None]


def _least_squares(
    columns: Float[Array, 't K M'], losses: Float[Array, 'M t'], used: Bool[Array, 't K']
) -> tuple[Float[Array, 't K'], Float[Array, 't K K']]:
    """Coefficients, 0 where not used, and the inverse of the columns' products."""
    products = _einsum('tkm,tlm->tkl', columns, columns)
    # Columns that are not used are 0: a 1 on the diagonal keeps them apart from the others. The
    # small rest shares an effect evenly between columns that are equal, as within a group.
    ridge = jnp.where(used, 1e-5 * columns.shape[-1], 1.0)
    inverse = jnp.linalg.inv(products + ridge[:, None] * jnp.eye(columns.shape[1])[None])
    right = _einsum('tkm,mt->tk', columns, losses)
    return _einsum('tkl,tl->tk', inverse, right), inverse
