"""Influence by ridge regression of losses on masks: a dense linear datamodel."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from influence_jax.estimators.estimator import Tiles, estimator
from influence_jax.estimators.mask_columns import by_example, regression
from influence_jax.estimators.self_influence import self_errors, with_self_errors
from influence_jax.estimators.standard_errors import SURELY_NOT_NOISE
from influence_jax.estimators.tiling import TILE, by_tiles
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_PENALTIES = np.geomspace(1e-2, 1e4, 37)
"""Tried by cross-validation, in units of the mean eigenvalue of the masks' products."""

# By default accelerators round products of float32 to 10 bits.
_matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


class _Smoother(NamedTuple):
    """What of the regression does not depend on the losses.

    coefficients: `[N M]` H = X' (X X' + penalty)^-1, X the centered masks: H y the coefficients.
    resolution: `[N]` the diagonal of H X: which part of an example's effect its coefficient shows.
    penalty: `[]`.
    """

    coefficients: Float[Array, 'N M']
    resolution: Float[Array, ' N']
    penalty: Float[Array, '']


class _Spectrum(NamedTuple):
    """Of the centered masks' products, without what is zero: H = left (values + penalty)^-1 right'.

    left: `[N R]`.
    right: `[M R]`.
    values: `[R]` eigenvalues.
    """

    left: Float[np.ndarray, 'N R']
    right: Float[np.ndarray, 'M R']
    values: Float[np.ndarray, ' R']


@estimator(
    name='ridge',
    title='ridge datamodel',
    description=(
        'minus the coefficient of the example in a linear model of the loss on the target, fitted '
        'to all examples at once with a penalty on squares, its own shrinkage divided out'
    ),
    least_members=24,
)
def ridge(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    tile: int = TILE,
    penalty: float | None = None,
) -> Tiles:
    """Influence of every example on every target by ridge regression on all masks at once.

    The centered losses of a target are regressed on all centered mask columns; that of its own
    example is not penalized. Ridge coefficients are shrunken, each by its own known factor, the
    diagonal of the resolution matrix R = H X where H y are the coefficients: values[i, t] =
    -coefficient / R[i, i]. These are the generalized least squares estimates of one example's
    effect at a time, the effects of all others (save the own) being taken for random. As masks
    are drawn independently of one another they estimate what `difference_in_means` does, not
    shrunken; an infinite penalty gives exactly that. Sign and unit are the same.

    Standard errors: values[i, t] = -x' r / x' q, where the residual r of the regression without
    example i, and q, know nothing of the mask column x of i. So the squared error is the mean of
    x^2 times the sum of r^2 over members / (x' q)^2, whatever the distribution of r (our
    reconstruction, from the randomness of the masks); for entries beyond noise, and own ones, the
    sum of x^2 r^2 takes the place of that product where it is larger. The example's own effect is
    taken out of r first. Errors of self-influence are widened (`self_influence.self_errors`).

    Ridge suits many weak effects; for few strong ones see `adjusted` and `lasso`.

    Args:
      masks: as in `difference_in_means`.
      losses: as in `difference_in_means`.
      target_examples: `[T]` position of the example that each target is, -1 where it is none.
        By default target t is example t if T == N, and otherwise no target is an example.
      penalty: positive, added to the eigenvalues of the products of centered 0/1 columns (their
        mean is about M / 4 if M <= N); one for all targets. By default the one of least
        generalized cross-validation score, summed over targets each relative to its variance
        once its own inclusion is taken out. For independent masks that score is, up to a factor,
        the squared standard error of the values.
      tile: how many targets are estimated at once.

    Returns:
      As `difference_in_means`. Examples that always go together, as in a group, are one column:
      each has the influence of all of them, which the masks cannot tell apart.

    Raises:
      ValueError: as in `difference_in_means`, or a penalty that is not positive and finite.
    """
    if penalty is not None and not (penalty > 0 and math.isfinite(penalty)):
        raise ValueError(f'{penalty=} must be positive and finite: give none to have it chosen')
    of = regression(masks, losses, target_examples, tile=tile)
    of_tile = partial(_estimate, _smoother(of.masks, of.losses, of.self_index, penalty))
    blocks = by_tiles(of_tile, of.masks, of.losses, of.self_index, tile=tile)
    of_own = self_errors(of.masks, of.losses, of.self_index)
    return by_example(with_self_errors(blocks, of.self_index, of_own), of.column)


def _smoother(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    self_index: Int[np.ndarray, ' T'],
    penalty: float | None,
) -> _Smoother:
    columns = masks - masks.mean(axis=0, keepdims=True)
    spectrum = _spectrum(columns)
    if penalty is None:
        penalty = _cross_validated(spectrum, columns, losses, self_index)
    left = spectrum.left / (spectrum.values + penalty)
    coefficients = left @ spectrum.right.T
    resolution = np.einsum('nm,mn->n', coefficients, columns)
    as_float32 = (jnp.asarray(part, jnp.float32) for part in (coefficients, resolution, penalty))
    return _Smoother(*as_float32)


def _spectrum(columns: Float[np.ndarray, 'M N']) -> _Spectrum:
    """In float64 on the host, once for all targets; of the smaller of the two product matrices."""
    members, examples = columns.shape
    dual = members <= examples
    values, vectors = np.linalg.eigh(columns @ columns.T if dual else columns.T @ columns)
    # Centering leaves the dual one eigenvalue of zero; equal or dependent columns leave more.
    kept = values > 1e-10 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    if dual:
        return _Spectrum(columns.T @ vectors, vectors, values)
    return _Spectrum(vectors, columns @ vectors, values)


def _cross_validated(
    spectrum: _Spectrum,
    columns: Float[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    self_index: Int[np.ndarray, ' T'],
) -> float:
    """Generalized cross-validation (Golub, Heath and Wahba 1979) in the basis of eigenvectors."""
    penalties = _PENALTIES * np.square(columns).sum() / len(spectrum.values)
    orthonormal = spectrum.right / np.linalg.norm(spectrum.right, axis=0, keepdims=True)
    left_over = penalties[:, None] / (spectrum.values + penalties[:, None])
    beyond = len(columns) - 1 - len(spectrum.values)  # dimensions that no column reaches
    total = np.zeros(len(penalties))
    for start in range(0, losses.shape[1], TILE):
        block = slice(start, start + TILE)
        centered = losses[:, block] - losses[:, block].mean(axis=0, dtype=np.float64, keepdims=True)
        own_column = columns[:, self_index[block]] * (self_index[block] >= 0)
        squares = np.square(own_column).sum(axis=0)
        effect = (own_column * centered).sum(axis=0) / np.where(squares > 0, squares, 1)
        centered -= own_column * effect
        variance = np.square(centered).sum(axis=0)
        centered /= np.sqrt(np.where(variance > 0, variance, 1))
        along = np.square(orthonormal.T @ centered).sum(axis=1)
        total += np.square(left_over) @ along + max(np.square(centered).sum() - along.sum(), 0)
    return float(penalties[np.argmin(total / (left_over.sum(axis=1) + beyond) ** 2)])


@jax.jit
def _estimate(
    smoother: _Smoother,
    masks: Float[Array, 'M N'],
    losses: Float[Array, 'M t'],
    scale: Float[Array, ' t'],
    self_index: Int[Array, ' t'],
) -> Influence:
    # In the names of the docstring of `ridge`; W = (X X' + penalty)^-1, so that H = X' W and
    # penalty W y is the residual.
    h, resolution, penalty = smoother
    x = masks - masks.mean(axis=0, keepdims=True)
    is_example = (self_index >= 0).astype(x.dtype)[None, :]
    own_x, own_w = x[:, self_index] * is_example, h[self_index].T * is_example
    own_resolution = resolution[self_index]

    # Unpenalized, the own column is taken out of losses and resolution. First, since losses that
    # it explains fully would else leave differences of rounding errors.
    own_effect = (own_w * losses).sum(axis=0) / own_resolution
    losses = losses - own_x * own_effect[None, :]
    coefficients = _matmul(h, losses)
    residual = losses - _matmul(x, coefficients)
    resolved = resolution[:, None] - _matmul(h, own_x) ** 2 / own_resolution[None, :]

    is_own = jnp.arange(len(h))[:, None] == self_index[None, :]
    resolved = jnp.where(is_own, own_resolution[None, :], resolved)
    effects = jnp.where(is_own, own_effect[None, :], coefficients / resolved)

    # Sums over members of x^2 (residual - penalty W x effect)^2, the latter without the own
    # column's small part in it; the own effect is out of the residual already.
    squares = x.T**2
    removed = jnp.where(is_own, 0, penalty * effects)
    spread = _matmul(squares, residual**2) - 2 * removed * _matmul(squares * h, residual)
    spread += removed**2 * (squares * h**2).sum(axis=1)[:, None]
    # As x knows nothing of r, their squares are independent too: the sum of all r^2 says more than
    # that of a few members, unless the entry is surely not noise (`estimators.standard_errors`).
    total = (residual**2).sum(axis=0)[None] - 2 * removed * _matmul(h, residual)
    total += removed**2 * (h**2).sum(axis=1)[:, None]
    pooled = squares.sum(axis=1)[:, None] * total / len(x)
    unit = (1 - resolved) / (penalty * resolved) * jnp.sqrt(len(x) / (len(x) - 2))
    unlike = effects**2 > SURELY_NOT_NOISE**2 * pooled * unit**2
    either = jnp.where(unlike, jnp.maximum(pooled, spread), pooled)
    error = jnp.sqrt(jnp.maximum(jnp.where(is_own, spread, either), 0)) * unit
    return Influence(-effects * scale[None, :], error * scale[None, :])
