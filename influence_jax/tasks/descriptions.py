"""Built-in tasks from and to what a manifest can hold, so that a run knows its own task.

A description names functions and networks of this package alone: nothing else is ever called.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from influence_jax.models import MLPConfig, ResNetConfig
from influence_jax.tasks.images import random_crop_and_flip, standardized
from influence_jax.tasks.supervised import Classification, Regression, Supervised, as_numbers

_TASKS: dict[str, type[Supervised]] = {of.__name__: of for of in (Classification, Regression)}
_NETWORKS: dict[str, type] = {of.__name__: of for of in (ResNetConfig, MLPConfig)}
_FUNCTIONS: dict[str, Callable] = {
    of.__name__: of for of in (as_numbers, standardized, random_crop_and_flip)
}


def describe(task: Supervised) -> dict[str, Any] | None:
    """Returns a description of the task; None where a part of it is not this package's."""
    network = type(task.make_module).__name__
    prepare, augment = (_name(of) for of in (task.prepare, task.augment))
    if type(task.make_module) is not _NETWORKS.get(network) or '' in (prepare, augment):
        return None
    assert dataclasses.is_dataclass(task.make_module)
    return {
        'task': type(task).__name__,
        'network': {'name': network, **dataclasses.asdict(task.make_module)},
        'inputs': task.inputs,
        'label': task.label,
        'prepare': prepare,
        'augment': augment,
    }


def recreate(description: Mapping[str, Any]) -> Supervised:
    """Makes the task of a description again.

    Raises:
        ValueError: it is not a description by this version.
    """
    try:
        network = dict(description['network'])
        make = _NETWORKS[network.pop('name')]
        # JSON has lists where the configurations have tuples.
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in network.items()}
        return _TASKS[description['task']](
            make(**sizes),
            inputs=description['inputs'],
            label=description['label'],
            prepare=_FUNCTIONS[description['prepare']],
            augment=description['augment'] and _FUNCTIONS[description['augment']],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'the task of the manifest cannot be made again ({type(error).__name__}: {error}): '
            f'build it by your own code'
        ) from error


def _name(function: Callable | None) -> str | None:
    """Under which name a function is known here; '' where it is not, None where there is none."""
    if function is None:
        return None
    name = getattr(function, '__name__', '')
    return name if _FUNCTIONS.get(name) is function else ''
