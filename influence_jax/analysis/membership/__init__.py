"""Membership inference from the same tensors: attacks, their rates, the records at risk."""

from influence_jax.analysis.membership.attack import Attack, logit_gaps
from influence_jax.analysis.membership.lira import Setting, Variance, lira
from influence_jax.analysis.membership.performance import Performance, Resample, performance
from influence_jax.analysis.membership.prediction import Prediction, predicts_vulnerability
from influence_jax.analysis.membership.predictors import predictors
from influence_jax.analysis.membership.reliability import (
    PredictorComparison,
    compare_predictors,
)
from influence_jax.analysis.membership.rmia import rmia
from influence_jax.analysis.membership.roc import (
    Roc,
    area,
    balanced_accuracy,
    roc,
    true_positive_rates,
)
from influence_jax.analysis.membership.vulnerability import Vulnerability, vulnerability
from influence_jax.analysis.resampling import Interval

__all__ = [
    'Attack',
    'Interval',
    'Performance',
    'Prediction',
    'PredictorComparison',
    'Resample',
    'Roc',
    'Setting',
    'Variance',
    'Vulnerability',
    'area',
    'balanced_accuracy',
    'compare_predictors',
    'lira',
    'logit_gaps',
    'performance',
    'predictors',
    'predicts_vulnerability',
    'rmia',
    'roc',
    'true_positive_rates',
    'vulnerability',
]
