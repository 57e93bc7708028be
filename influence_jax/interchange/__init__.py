"""In and out: ensembles that others have trained, and results for other programs."""

from influence_jax.interchange.arrays import Matrix, read_matrix
from influence_jax.interchange.feldman_zhang import read_feldman_zhang
from influence_jax.interchange.imported import Imported, measured_of_logits, read_ensemble
from influence_jax.interchange.lira import read_lira
from influence_jax.interchange.masks import as_masks
from influence_jax.interchange.stored import Format, export
from influence_jax.interchange.tensor_files import TensorFiles
from influence_jax.interchange.torch_file import torch_arrays

__all__ = [
    'Format',
    'Imported',
    'Matrix',
    'TensorFiles',
    'as_masks',
    'export',
    'measured_of_logits',
    'read_ensemble',
    'read_feldman_zhang',
    'read_lira',
    'read_matrix',
    'torch_arrays',
]
