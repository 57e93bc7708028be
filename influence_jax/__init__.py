"""Influence distributions of training data, measured on ensembles trained on random subsets.

The rooms, in the order in which data flows through them: `subsets`, `data`, `models`,
`training`, `store`, `estimators`, `analysis`, `report`. They are imported on first use, so
that reading a run costs no import of what only training needs.
"""

import importlib
from types import ModuleType

__version__ = '0.1.0'

_ROOMS = (
    'analysis',
    'data',
    'estimators',
    'models',
    'report',
    'store',
    'subsets',
    'training',
    'types',
)


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
