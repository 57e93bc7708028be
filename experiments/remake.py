"""The dataset and the task of a finished run, made again from the command that it keeps."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from experiments import (
    cifar10_resnet,
    image_diffusion,
    image_ensemble,
    language_ensemble,
    language_model,
    nq_gpt_neo,
    tabular,
)
from experiments.flags import define_all, read_all
from influence_jax import tasks
from influence_jax.data import Dataset
from influence_jax.run import Run

_LAUNCHES: Mapping[str, tuple[Callable[[Any], tuple[Dataset, Any]], Any]] = {
    'experiments.image_resnet': (image_ensemble.prepare, image_ensemble.ImageExperiment()),
    'experiments.cifar10_resnet': (image_ensemble.prepare, cifar10_resnet.PAPER),
    'experiments.image_diffusion': (
        image_diffusion.prepare,
        image_diffusion.DiffusionExperiment(),
    ),
    'experiments.language_model': (language_ensemble.prepare, language_model.DEFAULTS),
    'experiments.nq_gpt_neo': (language_ensemble.prepare, nq_gpt_neo.PAPER),
    'experiments.tabular': (tabular.prepare, tabular.TabularExperiment()),
}
"""What prepares the dataset and the task of each launch, and its defaults."""


def dataset_and_task(run: Run, *, data_dir: str | None = None) -> tuple[Dataset, Any]:
    """Makes both again, and has the run remember them.

    Args:
        run: of one of the launches here.
        data_dir: folder of the data, where it is no longer the one of the command.

    Raises:
        ValueError: the run is of other code, or what its command makes now is something else.
    """
    words = shlex.split(run.manifest.command)
    name, given = ' '.join(words[2:3]), words[3:]
    if words[:2] != ['python', '-m'] or name not in _LAUNCHES:
        raise ValueError(
            f'{run.directory} was made by code of its own, not by a launch: judge its models from '
            f'Python, by influence_jax.analysis.judge'
        )
    if any(word.lstrip('-').startswith(('flagfile', 'undefok')) for word in given):
        raise ValueError(f'{run.directory} was made with a file of flags: give them one by one')
    prepare, defaults = _LAUNCHES[name]
    values = flags.FlagValues()
    define_all(defaults, values)
    if data_dir is not None:
        given = [*given, f'--data_dir={data_dir}']
    try:
        values([name, *given], known_only=True)
    except flags.Error as error:
        raise ValueError(f'the command of {run.directory} cannot be read: {error}') from error
    experiment = read_all(type(defaults), values)
    # Bases that members started from are kept beside the run, wherever it is now.
    machine = dataclasses.replace(experiment.machine, output_dir=str(run.directory))
    dataset, task = prepare(dataclasses.replace(experiment, machine=machine))
    if run.manifest.has_digests:  # those of earlier versions are computed differently
        run.remember(task, dataset)
    elif dataset.ids != run.example_ids:
        raise ValueError(f'{run.directory} has other examples than its command makes now')
    if run.manifest.task is not None and _plain(tasks.describe(task)) != run.manifest.task:
        raise ValueError(f'{run.directory} has another task than its command makes now')
    return dataset, task


def _plain(value: Any) -> Any:
    """As JSON has it: lists for tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
