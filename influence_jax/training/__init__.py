"""Members of an ensemble, trained one by one or many at once."""

from influence_jax.training.automatic import Automatic, autotune
from influence_jax.training.compute_dtype import ComputeDtype
from influence_jax.training.engine import Trained, largest_batch, train
from influence_jax.training.executor import Executor, sequential, sharded, vmapped
from influence_jax.training.member import Member, Program, WarmStart, train_member
from influence_jax.training.mesh import MeshShape
from influence_jax.training.recipe import EnsembleKeys, Recipe

__all__ = [
    'Automatic',
    'ComputeDtype',
    'EnsembleKeys',
    'Executor',
    'Member',
    'MeshShape',
    'Program',
    'Recipe',
    'Trained',
    'WarmStart',
    'autotune',
    'largest_batch',
    'sequential',
    'sharded',
    'train',
    'train_member',
    'vmapped',
]
