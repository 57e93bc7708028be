"""What members are trained to do, and what is measured of them."""

from influence_jax.tasks.base import DatasetTask, Problem, bind
from influence_jax.tasks.supervised import Classification, Regression

__all__ = ['Classification', 'DatasetTask', 'Problem', 'Regression', 'bind']
