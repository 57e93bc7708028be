"""From masks and measurements to influence, with error bars."""

from influence_jax.estimators import measurements
from influence_jax.estimators.adjusted import adjusted
from influence_jax.estimators.difference import difference_in_means
from influence_jax.estimators.ensemble import check_both_sides
from influence_jax.estimators.kinds import Estimator, estimate, tiles
from influence_jax.estimators.lasso import lasso, lasso_coefficients
from influence_jax.estimators.margin import floored_margin, margin_of_largest, z_margin
from influence_jax.estimators.pairs import SignificantPairs
from influence_jax.estimators.ridge import ridge
from influence_jax.estimators.summary import Summary, summarize
from influence_jax.estimators.uncertainty import (
    benjamini_hochberg,
    intervals,
    largest_of_noise,
    p_values,
    selected_intervals,
    z_scores,
)

__all__ = [
    'Estimator',
    'SignificantPairs',
    'Summary',
    'adjusted',
    'benjamini_hochberg',
    'check_both_sides',
    'difference_in_means',
    'estimate',
    'floored_margin',
    'intervals',
    'largest_of_noise',
    'lasso',
    'lasso_coefficients',
    'margin_of_largest',
    'measurements',
    'p_values',
    'ridge',
    'selected_intervals',
    'summarize',
    'tiles',
    'z_margin',
    'z_scores',
]
