"""Members of an ensemble, trained one by one or many at once."""

from influence_jax.training.ensemble import train
from influence_jax.training.execution import Execution, choose
from influence_jax.training.load import largest_batch
from influence_jax.training.member import Member, Program, train_member
from influence_jax.training.recipe import Recipe
from influence_jax.training.warm_start import WarmStart

__all__ = [
    'Execution',
    'Member',
    'Program',
    'Recipe',
    'WarmStart',
    'choose',
    'largest_batch',
    'train',
    'train_member',
]
