"""Influence by the LASSO of losses on masks: a sparse linear datamodel, and its debiased values."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from influence_jax.estimators.difference_of_means import estimate
from influence_jax.estimators.estimator import Tiles, estimator
from influence_jax.estimators.mask_columns import by_example, regression
from influence_jax.estimators.self_influence import self_errors, with_self_errors
from influence_jax.estimators.tiling import TILE, by_tiles, whole
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_THRESHOLDS = (16.0, 11.0, 8.0, 6.0, 5.0, 4.3, 3.8, 3.3, 2.8, 2.4)
"""Penalties of the path as z-scores: correlations with the residual below them stay zero."""

_MOST_STEPS = 200
_TOLERANCE = 0.01
"""Steps end when no coefficient moves by more than this part of its standard error."""

# By default accelerators round products of float32 to 10 bits.
_matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


class _Path(NamedTuple):
    """Where the path is, and the best that it has met.

    coefficients: `[N t]` of columns of length 1.
    score: `[t]` least generalized cross-validation score.
    best: `[N t]` the coefficients of that score.
    """

    coefficients: Float[Array, 'N t']
    score: Float[Array, ' t']
    best: Float[Array, 'N t']


class _Descent(NamedTuple):
    """State of the accelerated proximal gradient: step, iterate, the point ahead, momentum."""

    step: Int[Array, '']
    at: Float[Array, 'N t']
    ahead: Float[Array, 'N t']
    momentum: Float[Array, ' t']
    moved: Float[Array, '']


@estimator(
    name='lasso',
    title='LASSO datamodel',
    description=(
        'minus the coefficient of the example in a sparse linear model of the loss on the target, '
        'fitted to all examples at once with a penalty on absolute values, whose shrinkage is '
        'taken back'
    ),
    least_members=24,
)
def lasso(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    tile: int = TILE,
) -> Tiles:
    """Influence of every example on every target: the debiased LASSO.

    The centered losses of a target are regressed on all centered mask columns with an L1 penalty
    (the datamodels of Ilyas et al. 2022), that of its own example unpenalized. A LASSO's
    coefficients b are shrunken and most are exactly zero; the debiased ones (van de Geer et al.
    2014; Javanmard and Montanari 2014) are values = -b + difference of means of the residual /
    (1 - k / (M - 1)). Independent masks need no estimate of their inverse covariance: it is
    diagonal and known. The division, k being the number of coefficients that are not zero, undoes
    what the fit took up of the effects of all others (degrees-of-freedom adjustment of Bellec and
    Zhang 2022), without which values are shrunken by that part. Standard errors are those of the
    residual's difference of means, over the same factor; those of self-influence are widened
    (`self_influence.self_errors`).

    So the quantity, its sign and its unit are those of `difference_in_means`, which is what comes
    out where no coefficient is kept. The penalty is chosen for each target on a path of ten by
    generalized cross-validation, squared residual / (M - 1 - k)^2: up to a factor the squared
    standard error of the values.

    Args:
      masks: as in `difference_in_means`.
      losses: as in `difference_in_means`.
      target_examples: `[T]` position of the example that each target is, -1 where it is none.
        By default target t is example t if T == N, and otherwise no target is an example.
      tile: how many targets are estimated at once.

    Returns:
      As `difference_in_means`. Examples that always go together, as in a group, are one column:
      each has the influence of all of them, which the masks cannot tell apart.

    Raises:
      ValueError: as in `difference_in_means`.
    """
    of = regression(masks, losses, target_examples, tile=tile)
    blocks = by_tiles(_debiased, of.masks, of.losses, of.self_index, tile=tile)
    of_own = self_errors(of.masks, of.losses, of.self_index)
    return by_example(with_self_errors(blocks, of.self_index, of_own), of.column)


def lasso_coefficients(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    tile: int = TILE,
) -> Float[np.ndarray, 'N T']:
    """The datamodels themselves: minus the LASSO's coefficients, most of them exactly zero.

    To predict losses of a mask: mean loss - (mask - mean mask) @ coefficients. Being shrunken they
    are no estimates of influence: see `lasso`, which has the same arguments and errors.

    Returns:
      float32 `[N T]`, positive where including the example lowers the loss. Examples that always
      go together share the coefficient of their column evenly.
    """
    of = regression(masks, losses, target_examples, tile=tile)
    blocks = by_tiles(_sparse, of.masks, of.losses, of.self_index, tile=tile)
    examples, targets = len(of.column), of.losses.shape[1]
    found = whole(by_example(blocks, of.column), examples=examples, targets=targets)
    return found.values / np.bincount(of.column)[of.column].astype(np.float32)[:, None]


def _debiased(
    masks: Float[Array, 'M N'],
    losses: Float[AnyArray, 'M t'],
    scale: Float[AnyArray, ' t'],
    self_index: Int[AnyArray, ' t'],
) -> Influence:
    coefficients = _fitted(masks, losses, self_index)
    centered = masks - masks.mean(axis=0, keepdims=True)
    rest = estimate(masks, losses - _matmul(centered, coefficients), scale)
    kept = _share_kept(coefficients, len(masks))[None, :]
    return Influence(rest.values / kept - coefficients * scale[None, :], rest.standard_error / kept)


def _sparse(
    masks: Float[Array, 'M N'],
    losses: Float[AnyArray, 'M t'],
    scale: Float[AnyArray, ' t'],
    self_index: Int[AnyArray, ' t'],
) -> Influence:
    values = -_fitted(masks, losses, self_index) * jnp.asarray(scale)[None, :]
    return Influence(values, jnp.zeros_like(values))


def _share_kept(coefficients: Float[Array, 'N t'], members: int) -> Float[Array, ' t']:
    """1 - k / (M - 1): what a fit with k coefficients leaves of the effects outside of it."""
    return 1 - (coefficients != 0).sum(axis=0) / (members - 1)


@jax.jit
def _fitted(
    masks: Float[Array, 'M N'], losses: Float[Array, 'M t'], self_index: Int[Array, ' t']
) -> Float[Array, 'N t']:
    """Coefficients of 0/1 columns at each target's best penalty of the path, or only the own."""
    members, examples = masks.shape
    columns = masks - masks.mean(axis=0, keepdims=True)
    lengths = jnp.sqrt(jnp.square(columns).sum(axis=0))[:, None]
    columns /= lengths.T
    is_own = jnp.arange(examples)[:, None] == self_index[None, :]

    alone = jnp.where(is_own, _matmul(columns.T, losses), 0)
    residual = losses - _matmul(columns, alone)
    # In columns of length 1, the standard error of a coefficient. Losses lie in [-1, 1]: where the
    # own inclusion explains all but rounding errors, these are not to be fitted.
    unit = jnp.maximum(jnp.sqrt(jnp.square(residual).sum(axis=0) / members), 1e-5)

    def score(coefficients: Array) -> Array:
        left = jnp.square(losses - _matmul(columns, coefficients)).sum(axis=0)
        kept = _share_kept(coefficients, members)
        return jnp.where(kept > 0.5, left / jnp.maximum(kept, 0.5) ** 2, jnp.inf)

    steepest = _largest_eigenvalue(columns)

    def next_penalty(path: _Path, threshold: Array) -> tuple[_Path, None]:
        penalty = jnp.where(is_own, 0, (threshold * unit)[None, :])
        found = _descend(columns, losses, penalty, path.coefficients, unit, steepest)
        of_found = score(found)
        better = of_found < path.score
        best = jnp.where(better[None, :], found, path.best)
        return _Path(found, jnp.where(better, of_found, path.score), best), None

    start = _Path(alone, score(alone), alone)
    path, _ = lax.scan(next_penalty, start, jnp.array(_THRESHOLDS))
    return path.best / lengths


def _descend(
    columns: Float[Array, 'M N'],
    losses: Float[Array, 'M t'],
    penalty: Float[Array, 'N t'],
    start: Float[Array, 'N t'],
    unit: Float[Array, ' t'],
    steepest: Float[Array, ''],
) -> Float[Array, 'N t']:
    """FISTA (Beck and Teboulle 2009), its momentum dropped for a target whenever it misleads.

    The restart is O'Donoghue and Candes' (2015), from the gradient.
    """

    def step(state: _Descent) -> _Descent:
        gradient = _matmul(columns.T, _matmul(columns, state.ahead) - losses)
        downhill = state.ahead - gradient / steepest
        found = jnp.sign(downhill) * jnp.maximum(jnp.abs(downhill) - penalty / steepest, 0)
        change = found - state.at
        misled = ((state.ahead - found) * change).sum(axis=0) > 0
        before = jnp.where(misled, 1.0, state.momentum)
        momentum = (1 + jnp.sqrt(1 + 4 * before**2)) / 2
        ahead = found + ((before - 1) / momentum)[None, :] * change
        moved = jnp.max(jnp.abs(change) - _TOLERANCE * unit[None, :])
        return _Descent(state.step + 1, found, ahead, momentum, moved)

    def goes_on(state: _Descent) -> Array:
        return (state.step < _MOST_STEPS) & (state.moved > 0)

    first = _Descent(jnp.array(0), start, start, jnp.ones(losses.shape[1]), jnp.array(jnp.inf))
    return lax.while_loop(goes_on, step, first).at


def _largest_eigenvalue(columns: Float[Array, 'M N']) -> Float[Array, '']:
    """Of the columns' products; by the power method, a little above to be safe."""

    def multiply(vector: Array, _: None) -> tuple[Array, Array]:
        product = _matmul(columns, _matmul(columns.T, vector))
        length = jnp.linalg.norm(product)
        return product / length, length

    # No column, so no eigenvector either, is orthogonal to so odd a start by construction.
    start = jnp.sin(1.0 + jnp.arange(len(columns)) ** 2)
    _, lengths = lax.scan(multiply, start / jnp.linalg.norm(start), None, length=50)
    return 1.05 * lengths[-1]
