"""How many models: what an ensemble of this size shows reliably, and when it is large enough."""

from influence_jax.analysis.convergence.agreement import (
    Convergence,
    Reliability,
    least_half,
    spearman_brown,
    split_half,
)
from influence_jax.analysis.convergence.standard_errors import (
    Precision,
    StandardErrorCurve,
    members_needed,
    precision,
    standard_error_curve,
)
from influence_jax.analysis.convergence.stopping import Check, SequentialStopping

__all__ = [
    'Check',
    'Convergence',
    'Precision',
    'Reliability',
    'SequentialStopping',
    'StandardErrorCurve',
    'least_half',
    'members_needed',
    'precision',
    'spearman_brown',
    'split_half',
    'standard_error_curve',
]
