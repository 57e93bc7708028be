"""Whole columns of differences of means of residuals: sums, then entries in one pass."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from influence_jax.estimators.difference_of_means import estimate
from influence_jax.estimators.estimator import Fit
from influence_jax.estimators.mask_products import MaskProducts
from influence_jax.estimators.scan import SingleEntries, on_accelerators
from influence_jax.estimators.standard_errors import (
    SURELY_NOT_NOISE,
    WIDEST,
    shape_of,
    widening_factors,
)
from influence_jax.estimators.tiling import tile_slices
from influence_jax.kernels import differences as kernel
from influence_jax.types import Influence

_AT_ONCE = 2**18  # entries beyond noise


class ResidualColumns:
    """All entries of differences of means of what regressions leave, block after block."""

    def __init__(
        self, masks: Bool[np.ndarray, 'M N'], single: SingleEntries, products: MaskProducts
    ) -> None:
        self._products, self._single = products, single
        members, included = len(masks), masks.sum(axis=0).astype(np.float64)
        of_examples = {
            'per_in': 1 / included,
            'per_out': 1 / (members - included),
            **widening_factors(included, members=members)._asdict(),
        }
        self._of_examples = {name: row.astype(np.float32) for name, row in of_examples.items()}

    def __call__(self, fit: Fit, scale: Float[np.ndarray, ' t'], *, width: int) -> Influence:
        """Entries of the residual, and in their places those of the regressors, times `scale`.

        Args:
          fit: of a block.
          scale: `[t]`.
          width: how many of its targets are there: others fill it up.
        """
        found = self._in_one_pass(fit.cut(width), scale[:width])
        if found is None:
            found = self._on_devices(fit, scale)
            found = Influence(*(np.array(part[:, :width]) for part in found))
        fit, scale = fit.cut(width), scale[:width]
        targets, places = np.nonzero(fit.examples >= 0)
        at = fit.examples[targets, places], targets
        for whole, of in zip(found, (fit.values, fit.errors), strict=True):
            whole[at] = of[targets, places] * scale[targets]
        return found

    @functools.cached_property
    def _weights(self) -> Float[Array, 'M N']:
        return jnp.asarray(self._products.weights)

    def _on_devices(self, fit: Fit, scale: Float[np.ndarray, ' t']) -> Influence:
        ordered = self._products.ordered(np.asarray(fit.residual))
        values, errors = estimate(self._weights, jnp.asarray(ordered), jnp.asarray(scale))
        return Influence(values, np.asarray(errors) * fit.inflation)

    def _in_one_pass(self, fit: Fit, scale: Float[np.ndarray, ' t']) -> Influence | None:
        if on_accelerators() or not kernel.there():
            return None
        whole = self._single.moments_of_all(fit.residual)
        shape = shape_of(whole)
        error_scale = fit.inflation * scale
        of_targets = {
            'total': whole.count * whole.mean,
            'squares': whole.second + whole.count * whole.mean**2,
            'kurtosis': shape.kurtosis,
            'squared_skewness': shape.skewness**2,
            'scale': scale,
            'error_scale': error_scale,
        }
        values = self._products.sums(np.asarray(fit.residual))
        errors = np.empty_like(values)
        examples, targets = kernel.differences(
            values,
            errors,
            **self._of_examples,
            **{name: np.asarray(row, np.float32) for name, row in of_targets.items()},
            freedom=len(fit.residual) - 2,
            widest=WIDEST,
            surely_not_noise=SURELY_NOT_NOISE,
        )
        # Of these, members with and without the example need not have one variance.
        entries_of = self._single.entries_of(fit.residual, whole)
        for some in tile_slices(len(targets), _AT_ONCE):
            at, of = examples[some], targets[some]
            value, error = entries_of(of, at)
            values[at, of], errors[at, of] = value * scale[of], error * error_scale[of]
        return Influence(values, errors)
