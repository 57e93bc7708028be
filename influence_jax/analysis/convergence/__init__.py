"""How many models: what an ensemble of this size says reliably, and what a larger one would."""

from influence_jax.analysis.convergence.agreement import (
    Convergence,
    Reliability,
    least_half,
    split_half,
)
from influence_jax.analysis.convergence.correlation import spearman_brown
from influence_jax.analysis.convergence.precision import (
    Precision,
    StandardErrorCurve,
    members_needed,
    precision,
    standard_error_curve,
)

__all__ = [
    'Convergence',
    'Precision',
    'Reliability',
    'StandardErrorCurve',
    'least_half',
    'members_needed',
    'precision',
    'spearman_brown',
    'split_half',
    'standard_error_curve',
]
