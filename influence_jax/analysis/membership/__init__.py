"""Membership inference from the same tensors: attacks, their rates, the records at risk."""

from influence_jax.analysis.membership.attacks import Setting, Variance, lira, rmia
from influence_jax.analysis.membership.audit_results import (
    AttackResults,
    MembershipResults,
    TruePositiveRate,
)
from influence_jax.analysis.membership.auditing import LEAST_SUBSETS, audit
from influence_jax.analysis.membership.evidence import Attack, logit_gaps
from influence_jax.analysis.membership.prediction import (
    Prediction,
    predictors,
    predicts_vulnerability,
)
from influence_jax.analysis.membership.rates import (
    Performance,
    Points,
    Resample,
    Roc,
    area,
    balanced_accuracy,
    performance,
    points,
    roc,
    true_positive_rates,
)
from influence_jax.analysis.membership.record_rates import Vulnerability, vulnerability
from influence_jax.analysis.membership.reliability import PredictorComparison, compare_predictors
from influence_jax.analysis.resampling import Interval

__all__ = [
    'LEAST_SUBSETS',
    'Attack',
    'AttackResults',
    'Interval',
    'MembershipResults',
    'Performance',
    'Points',
    'Prediction',
    'PredictorComparison',
    'Resample',
    'Roc',
    'Setting',
    'TruePositiveRate',
    'Variance',
    'Vulnerability',
    'area',
    'audit',
    'balanced_accuracy',
    'compare_predictors',
    'lira',
    'logit_gaps',
    'performance',
    'points',
    'predictors',
    'predicts_vulnerability',
    'rmia',
    'roc',
    'true_positive_rates',
    'vulnerability',
]
