"""Ways to estimate influence that `estimator_tries` compares; none of them part of the library."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from influence_jax.estimators import Estimator, difference_in_means
from influence_jax.estimators.regression_adjusted import Fitting

Try = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From masks and losses to values and standard errors; target t is example t."""


class Strong(NamedTuple):
    """Least squares on a few mask columns a target.

    residual: `[M T]`.
    examples: `[T K]` the columns.
    values: `[T K]` their influences, 0 where a column is not used.
    regressors: `[T]` how many were fitted, products included.
    """

    residual: np.ndarray
    examples: np.ndarray
    values: np.ndarray
    regressors: np.ndarray


def as_try(estimator: Estimator) -> Try:
    """The estimator, with arrays that may be changed."""

    def attempt(masks: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, errors = estimator(masks, losses)
        return np.array(values), np.array(errors)

    return attempt


_plain = as_try(difference_in_means)


def without(
    fit: Callable[[np.ndarray, np.ndarray], Strong],
    *,
    divided: bool = False,
    rest: Try = _plain,
) -> Try:
    """The rest after a fit; `divided` by the share that so many regressors leave of it."""

    def attempt(masks: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residual, examples, fitted, regressors = fit(masks, losses)
        kept = 1 - regressors / (len(masks) - 1)
        values, errors = rest(masks, residual)
        errors = errors / np.sqrt(kept)
        values = values / kept if divided else values
        np.add.at(values, (examples, np.arange(len(examples))[:, None]), fitted)
        return values, errors

    return attempt


def strong(
    masks: np.ndarray,
    losses: np.ndarray,
    examples: np.ndarray,
    used: np.ndarray | None = None,
    *,
    order: int = 0,
) -> Strong:
    """`order` 1 adds products of the first column with the others, 2 those of any two."""
    used = np.ones(examples.shape, bool) if used is None else used
    design = columns_of(masks, examples, used, masks.mean(axis=0), order)
    design -= design.mean(axis=-1, keepdims=True)
    coefficients = least_squares(design, losses - losses.mean(axis=0))
    return Strong(
        losses - losses.mean(axis=0) - np.einsum('tk,tkm->mt', coefficients, design),
        examples,
        -coefficients[:, : examples.shape[1]],
        design.any(axis=-1).sum(axis=1),
    )


def columns_of(
    masks: np.ndarray, examples: np.ndarray, used: np.ndarray, rates: np.ndarray, order: int
) -> np.ndarray:
    columns = (masks.T[examples] - rates[examples][..., None]) * used[..., None]
    count = examples.shape[1]
    pairs = [(i, j) for j in range(count) for i in range(j) if order == 2 or (order and i == 0)]
    products = [columns[:, i] * columns[:, j] for i, j in pairs]
    return np.stack([*columns.transpose(1, 0, 2), *products], axis=1).astype(np.float32)


def least_squares(design: np.ndarray, losses: np.ndarray) -> np.ndarray:
    products = np.einsum('tkm,tlm->tkl', design, design, optimize=True)
    right = np.einsum('tkm,mt->tk', design, losses, optimize=True)
    diagonal = np.einsum('tkk->tk', products)
    ridge = np.where(diagonal > 0, 1e-5 * design.shape[-1], 1)
    products += ridge[:, :, None] * np.eye(design.shape[1], dtype=np.float32)
    return np.linalg.solve(products, right[..., None])[..., 0]


def strongest(masks: np.ndarray, losses: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Examples `[T K]` of largest |z|, the target's own first, and these."""
    values, errors = _plain(masks, losses)
    z = np.abs(values / errors).T
    np.fill_diagonal(z, np.inf)
    examples = np.argsort(-z, axis=1)[:, :count]
    return examples, np.take_along_axis(z, examples, axis=1)


def fixed(
    masks: np.ndarray, losses: np.ndarray, count: int, least_z: float, *, order: int = 0
) -> Strong:
    examples, z = strongest(masks, losses, count)
    return strong(masks, losses, examples, np.asarray(z > least_z), order=order)


def cross_validated(masks: np.ndarray, losses: np.ndarray) -> Strong:
    targets, scale = np.arange(losses.shape[1]), np.abs(losses).max(axis=0)
    centred = ((losses - losses.mean(axis=0)) / scale).astype(np.float32)
    fit = Fitting(masks, losses, targets)
    chosen = np.asarray(fit(centred, targets, slice(0, len(targets)), scale).examples)
    return strong(masks, losses, np.maximum(chosen, 0), chosen >= 0, order=1)


def cross_fitted(
    masks: np.ndarray, losses: np.ndarray, *, folds: int, order: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each fold's residual is of a fit to the other folds, which chose its regressors."""
    residual = np.empty_like(losses)
    fitted = np.zeros((masks.shape[1], losses.shape[1]), np.float32)
    for fold in range(folds):
        test = np.arange(len(masks)) % folds == fold
        rates, level = masks[~test].mean(axis=0), losses[~test].mean(axis=0)
        examples, z = strongest(masks[~test], losses[~test], 6)
        train, held_out = (
            columns_of(masks[some], examples, z > 4, rates, order) for some in (~test, test)
        )
        coefficients = least_squares(train, losses[~test] - level)
        residual[test] = losses[test] - level - np.einsum('tk,tkm->mt', coefficients, held_out)
        main_effects = coefficients[:, :6] * (test.mean())
        np.add.at(fitted, (examples, np.arange(len(examples))[:, None]), main_effects)
    values, errors = _plain(masks, residual)
    return values - fitted, errors


def latent(masks: np.ndarray, losses: np.ndarray, count: int, *, only_out: bool) -> Strong:
    """Principal components of the residuals of other targets are regressed out as well."""
    fit = fixed(masks, losses, 6, 4, order=1)
    residual = fit.residual.copy()
    targets = np.arange(residual.shape[1])
    for fold in (0, 1):
        mine, others = targets[targets % 2 == fold], fit.residual[:, targets % 2 != fold]
        factors = np.linalg.svd(others / others.std(axis=0), full_matrices=False)[0][:, :count]
        where = ~masks[:, mine] if only_out else np.ones((len(masks), len(mine)), bool)
        design = np.einsum('mk,mt->tkm', factors * len(masks) ** 0.5, where).astype(np.float32)
        design -= design.mean(axis=-1, keepdims=True)
        coefficients = least_squares(design, residual[:, mine])
        residual[:, mine] -= np.einsum('tk,tkm->mt', coefficients, design)
    return fit._replace(residual=residual, regressors=fit.regressors + count)


def mask_factors(
    masks: np.ndarray, losses: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reduced rank: the few weightings of all examples that explain most of other targets."""
    fit = fixed(masks, losses, 6, 4, order=1)
    residual, columns = fit.residual.copy(), masks - masks.mean(axis=0, dtype=np.float32)
    fitted = np.zeros((masks.shape[1], losses.shape[1]), np.float32)
    targets = np.arange(residual.shape[1])
    for fold in (0, 1):
        mine, others = targets[targets % 2 == fold], fit.residual[:, targets % 2 != fold]
        weights = np.linalg.svd(columns.T @ (others / others.std(axis=0)), full_matrices=False)[0]
        weights = weights[:, :count]
        factors = columns @ weights
        coefficients = np.linalg.lstsq(factors, residual[:, mine], rcond=None)[0]
        residual[:, mine] -= factors @ coefficients
        fitted[:, mine] = weights @ coefficients
    values, errors = without(lambda *_: fit._replace(residual=residual))(masks, losses)
    return values - fitted, errors


def strata(
    masks: np.ndarray, losses: np.ndarray, *, inverse: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Influence within members that lack, and that have, the target: another quantity if weighted.

    With `inverse` variances as weights, nearly only members that have the target count.
    """
    parts = []
    for group in (~masks, masks):
        inside = masks.T.astype(np.float32) @ group
        outside = group.sum(axis=0) - inside
        centred = group * (losses - (group * losses).sum(axis=0) / group.sum(axis=0))
        sums, squares = (masks.T.astype(np.float32) @ x for x in (centred, centred**2))
        totals, all_squares = centred.sum(axis=0), np.square(centred).sum(axis=0)
        with np.errstate(divide='ignore', invalid='ignore'):
            mean_in, mean_out = sums / inside, (totals - sums) / outside
            variance = (squares / inside - mean_in**2) / (inside - 1)
            variance += ((all_squares - squares) / outside - mean_out**2) / (outside - 1)
        parts.append((mean_out - mean_in, variance))
    (values_out, variance_out), (values_in, variance_in) = parts
    own = np.eye(masks.shape[1], dtype=bool)
    mean_out, mean_in = (np.where(own, 0, v).mean(axis=0) for v in (variance_out, variance_in))
    weight = mean_in / (mean_in + mean_out) if inverse else 0.5
    values = weight * values_out + (1 - weight) * values_in
    errors = np.sqrt(weight**2 * variance_out + (1 - weight) ** 2 * variance_in)
    return np.where(own, 0, values), np.where(own, 1, errors)
