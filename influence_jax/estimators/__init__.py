"""From masks and measurements to influence, with error bars."""

from influence_jax.estimators import measurements
from influence_jax.estimators.columns import Columns
from influence_jax.estimators.difference_of_means import difference_in_means
from influence_jax.estimators.ensemble import check_both_sides
from influence_jax.estimators.estimator import Estimator, EstimatorLike, Method, as_estimator
from influence_jax.estimators.lasso_regression import lasso, lasso_coefficients
from influence_jax.estimators.margin import (
    floored_margin,
    joint_margin,
    margin_of_largest,
    z_margin,
)
from influence_jax.estimators.pairs import LEAST_ON_A_SIDE, SignificantPairs, cross_fitted_values
from influence_jax.estimators.regression_adjusted import adjusted
from influence_jax.estimators.ridge_regression import ridge
from influence_jax.estimators.self_influence import RELIABLE
from influence_jax.estimators.shrinkage import (
    Posterior,
    Scores,
    assisted,
    credible_intervals,
    shrunk,
    with_scores,
)
from influence_jax.estimators.summary import Summary, summarize
from influence_jax.estimators.uncertainty import (
    benjamini_hochberg,
    intervals,
    largest_of_noise,
    p_values,
    selected_intervals,
    z_scores,
)

BUILT_IN: tuple[Estimator, ...] = (difference_in_means, adjusted, ridge, lasso, shrunk)
"""The estimators of this package; the one place that lists them."""


def by_name(name: str) -> Estimator:
    """The estimator of `BUILT_IN` that has this name, in upper or lower case: for flags.

    Raises:
      ValueError: there is none, listing those that there are.
    """
    for one in BUILT_IN:
        if one.name == name.lower():
            return one
    raise ValueError(f'no estimator {name!r}: use one of {", ".join(one.name for one in BUILT_IN)}')


__all__ = [
    'BUILT_IN',
    'LEAST_ON_A_SIDE',
    'RELIABLE',
    'Columns',
    'Estimator',
    'EstimatorLike',
    'Method',
    'Posterior',
    'Scores',
    'SignificantPairs',
    'Summary',
    'adjusted',
    'as_estimator',
    'assisted',
    'benjamini_hochberg',
    'by_name',
    'check_both_sides',
    'credible_intervals',
    'cross_fitted_values',
    'difference_in_means',
    'floored_margin',
    'intervals',
    'joint_margin',
    'largest_of_noise',
    'lasso',
    'lasso_coefficients',
    'margin_of_largest',
    'measurements',
    'p_values',
    'ridge',
    'selected_intervals',
    'shrunk',
    'summarize',
    'with_scores',
    'z_margin',
    'z_scores',
]
