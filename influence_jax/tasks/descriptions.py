"""Built-in tasks from and to what a run directory can hold, so that a run knows its own task.

A description names functions and networks of this package alone: nothing else is ever called.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from influence_jax.data.text import tokenizer
from influence_jax.models import DenoiserConfig, MLPConfig, ResNetConfig
from influence_jax.models.gpt_neo import GPTNeoConfig, hugging_face
from influence_jax.models.lora import LoRA
from influence_jax.tasks.causal_lm import CausalLM, fingerprint
from influence_jax.tasks.diffusion import Diffusion
from influence_jax.tasks.images import as_numbers, centered, random_crop_and_flip, standardized
from influence_jax.tasks.supervised import Classification, Regression, Supervised
from influence_jax.types import Params

_OF_NETWORKS: dict[str, type[Supervised | Diffusion]] = {
    of.__name__: of for of in (Classification, Regression, Diffusion)
}
_NETWORKS: dict[str, type[DenoiserConfig | MLPConfig | ResNetConfig]] = {
    of.__name__: of for of in (DenoiserConfig, MLPConfig, ResNetConfig)
}
_FUNCTIONS: dict[str, Callable] = {
    of.__name__: of for of in (as_numbers, centered, standardized, random_crop_and_flip)
}
_NAMED = ('prepare', 'augment')
"""Settings that are functions."""

_TOKENIZER = 'tokenizer'


def describe(task: Any) -> dict[str, Any] | None:
    """Returns a description of a task, as JSON has it; None where a part of it is not built in."""
    if type(task) is CausalLM:
        return _describe_language_task(task)
    if type(task) not in _OF_NETWORKS.values():
        return None
    made, settings = task.make_module, _settings(task)
    functions = {name: _name(settings[name]) for name in _NAMED if name in settings}
    network = type(made).__name__
    if type(made) is not _NETWORKS.get(network) or '' in functions.values():
        return None
    return {
        'task': type(task).__name__,
        'network': {'name': network, **dataclasses.asdict(made)},
        **settings,
        **functions,
    }


def units_of(configuration: Mapping[str, Any]) -> Mapping[str, str]:
    """Returns the units of what a run measured, by its configuration; none where it is not known.

    A network of the user's own has no description, but its task has a name.
    """
    kind = _OF_NETWORKS.get(str(configuration.get('task')))
    return {} if kind is None else kind.units


def _settings(task: Supervised | Diffusion) -> dict[str, Any]:
    """All but the network."""
    names = [field.name for field in dataclasses.fields(task)]
    return {name: getattr(task, name) for name in names if name != 'make_module'}


def texts_of(task: Any) -> dict[str, str]:
    """Returns what a run keeps beside the description of a task, by name: its tokenizer."""
    return {_TOKENIZER: task.tokenizer.backend.to_str()} if type(task) is CausalLM else {}


def recreate(
    description: Mapping[str, Any],
    *,
    read_text: Callable[[str], str],
    base: Params | str | Path | None = None,
) -> Supervised | Diffusion | CausalLM:
    """Makes the task of a description again.

    Args:
        description: from `describe`.
        read_text: reads one of `texts_of` by its name.
        base: parameters that members of a `CausalLM` started from, or the folder or hub name of
            their checkpoint; ignored where they began afresh.

    Raises:
        ValueError: it is not a description by this version, or the base is absent or another.
    """
    try:
        if description['task'] != CausalLM.__name__:
            return _network_task(description)
        task, checksum = _language_task(description, read_text(_TOKENIZER))
        lora = description['lora'] and LoRA(
            **{**description['lora'], 'matrices': tuple(description['lora']['matrices'])}
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f'the task of the manifest cannot be made again ({type(error).__name__}: {error}): '
            f'build it by your own code'
        ) from error
    if checksum is None:
        return task
    return dataclasses.replace(task, params=_checked_base(base, checksum), lora=lora)


def _network_task(description: Mapping[str, Any]) -> Supervised | Diffusion:
    network = dict(description['network'])
    make: Any = _NETWORKS[network.pop('name')]
    # JSON has lists where the configurations have tuples.
    sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in network.items()}
    kind = _OF_NETWORKS[description['task']]
    names = [field.name for field in dataclasses.fields(kind) if field.name != 'make_module']
    settings = {name: description[name] for name in names}
    functions = {
        name: _FUNCTIONS[settings[name]] for name in _NAMED if settings.get(name) is not None
    }
    return kind(make(**sizes), **{**settings, **functions})


def _describe_language_task(task: CausalLM) -> dict[str, Any]:
    config = task.config
    return {
        'task': CausalLM.__name__,
        'network': config.to_hugging_face(),
        'compute_dtype': config.compute_dtype.name,
        'remat': config.remat,
        'tokenizer': {'end': task.tokenizer.end, 'sha256': task.tokenizer.fingerprint},
        'base': None if task.params is None else task.checksum,
        'base_identity': task.params_identity,
        'lora': None if task.lora is None else dataclasses.asdict(task.lora),
        'max_length': task.max_length,
        'extract': task.extract,
    }


def _language_task(description: Mapping[str, Any], text: str) -> tuple[CausalLM, str | None]:
    """The task without its base, and the checksum of that."""
    config = GPTNeoConfig.from_hugging_face(
        description['network'],
        compute_dtype=description['compute_dtype'],
        remat=description['remat'],
    )
    recorded = description['tokenizer']
    read = tokenizer.parse(text, end=recorded['end'])
    if read.fingerprint != recorded['sha256']:
        raise ValueError('the tokenizer beside it is another')
    task = CausalLM(
        config,
        read,
        params_identity=description['base_identity'],
        max_length=description['max_length'],
        extract=description['extract'],
    )
    return task, description['base']


def _checked_base(base: Params | str | Path | None, checksum: str) -> Params:
    if base is None:
        raise ValueError(
            f'members started from parameters of the SHA-256 {checksum}..., which the run does not '
            f'keep: give them, or the folder or hub name of their checkpoint, as base='
        )
    if isinstance(base, str | Path):
        base = hugging_face.load(base)[1]
    if (found := fingerprint(base)) != checksum:
        raise ValueError(
            f'base has the SHA-256 {found}..., but members started from parameters of '
            f'{checksum}...: give those'
        )
    return base


def _name(function: Callable | None) -> str | None:
    """Under which name a function is known here; '' where it is not, None where there is none."""
    if function is None:
        return None
    name = getattr(function, '__name__', '')
    return name if _FUNCTIONS.get(name) is function else ''
