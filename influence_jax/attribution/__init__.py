"""Cheaper scores of what the ensemble measures, from the parameters of one or a few members.

A method is called with models and records and returns `estimators.Columns`: scores `[N T]` of the
sign of influence (positive where including the example lowers the measurement), read block by
block. `summarize`, `report` and all that takes columns take them.
"""

from influence_jax.attribution.gradients import Gradients
from influence_jax.attribution.kfac import KFAC, Fisher, Spectrum
from influence_jax.attribution.layers import Layer, Network
from influence_jax.attribution.method import Attribution, Records
from influence_jax.attribution.model import Model
from influence_jax.attribution.runs import read_run

__all__ = [
    'KFAC',
    'Attribution',
    'Fisher',
    'Gradients',
    'Layer',
    'Model',
    'Network',
    'Records',
    'Spectrum',
    'read_run',
]
