"""Members of an ensemble, trained one by one or many at once."""

from influence_jax.training.ensemble import train
from influence_jax.training.execution import Execution, choose
from influence_jax.training.member import Member, Program, train_member
from influence_jax.training.recipe import Recipe

__all__ = ['Execution', 'Member', 'Program', 'Recipe', 'choose', 'train', 'train_member']
