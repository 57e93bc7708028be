"""What members are trained to do, and what is measured of them."""

from influence_jax.tasks.base import DatasetTask, Problem, bind
from influence_jax.tasks.causal_lm import CausalLM
from influence_jax.tasks.descriptions import describe, recreate, texts_of, units_of
from influence_jax.tasks.diffusion import Diffusion
from influence_jax.tasks.pretraining import pretrained
from influence_jax.tasks.supervised import Classification, Regression

__all__ = [
    'CausalLM',
    'Classification',
    'DatasetTask',
    'Diffusion',
    'Problem',
    'Regression',
    'bind',
    'describe',
    'pretrained',
    'recreate',
    'texts_of',
    'units_of',
]
