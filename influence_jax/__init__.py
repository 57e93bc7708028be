"""Influence distributions of training data, measured on ensembles trained on random subsets.

The subpackages, in the order in which data flows through them: `subsets`, `data`, `models`,
`training` and `tasks`, `store`, `estimators`, `attribution`, `analysis`, `judging`, `report`,
`tokens`, `explorer`; `interchange` for ensembles of others, `planning` for machines to come.
Everything is imported on first use, so that reading a run costs no import of what only training
needs.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = '0.1.0'

if TYPE_CHECKING:
    from influence_jax.data.dataset import Dataset as Dataset
    from influence_jax.ensemble import Checkpointing as Checkpointing
    from influence_jax.ensemble import train_ensemble as train_ensemble
    from influence_jax.ensemble import train_full_data_model as train_full_data_model
    from influence_jax.ensemble import use_cores as use_cores
    from influence_jax.progress import TerminalProgress as TerminalProgress
    from influence_jax.run import Run as Run
    from influence_jax.run import open_run as open_run
    from influence_jax.subsets import ByGroup as ByGroup
    from influence_jax.subsets import Design as Design
    from influence_jax.training.compute_dtype import ComputeDtype as ComputeDtype
    from influence_jax.training.recipe import Recipe as Recipe
    from influence_jax.types import Influence as Influence
    from influence_jax.types import Variables as Variables

_SUBPACKAGES = (
    'analysis',
    'attribution',
    'data',
    'ensemble',
    'estimators',
    'explorer',
    'interchange',
    'judging',
    'kernels',
    'models',
    'planning',
    'report',
    'store',
    'subsets',
    'tasks',
    'tensors',
    'tokens',
    'training',
    'types',
)
_NAMES = {
    'ByGroup': 'subsets',
    'Checkpointing': 'ensemble',
    'ComputeDtype': 'training.compute_dtype',
    'Dataset': 'data.dataset',
    'Design': 'subsets',
    'Influence': 'types',
    'Recipe': 'training.recipe',
    'Run': 'run',
    'TerminalProgress': 'progress',
    'Variables': 'types',
    'open_run': 'run',
    'train_ensemble': 'ensemble',
    'train_full_data_model': 'ensemble',
    'use_cores': 'ensemble',
}


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f'{__name__}.{name}')
    if name in _NAMES:
        return getattr(importlib.import_module(f'{__name__}.{_NAMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES, *_NAMES])
