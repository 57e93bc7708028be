"""What models give back against how long they train: unique and near-duplicated records.

    python -m benchmarks.extraction_sweep --dataset=nq_open --data_dir=DIR [--lengths=5,10,20]

Flags are those of experiments.language_model. For each number of epochs a few models are trained
on all records; the table says what they know of them and what they complete correctly.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from absl import flags

from experiments import language_data, language_ensemble, launch
from experiments.flags import define_all, read_all
from experiments.language_ensemble import LanguageExperiment
from experiments.language_model import DEFAULTS
from experiments.settings import MachineSettings
from influence_jax import training
from influence_jax.data import Dataset
from influence_jax.tasks import CausalLM
from influence_jax.training import Recipe

_LENGTHS = flags.DEFINE_list('lengths', ['4', '6', '8', '10', '15', '20', '30'], 'epochs to try')
_MODELS = flags.DEFINE_integer('models', 2, 'models of each length')
_NAMES = ('answer_loss', 'bleu', 'exact_match')


def main() -> None:
    experiment = read_all(LanguageExperiment)
    launch.use_devices(experiment.machine.streams)
    seed = experiment.ensemble.seed
    records = language_data.prepare(experiment.text, experiment.model, seed=seed)
    task = language_data.task_of(
        experiment.model,
        records,
        experiment.recipe,
        default_dir=Path(experiment.machine.output_dir).with_name(language_ensemble.BASES),
        max_length=experiment.text.max_length,
        extract=True,
        seed=seed,
    )
    duplicated = records.dataset.has_near_duplicate
    kinds = f'{"unique":>10}{"near-dup.":>10}'
    print(f'{"":8}{"answer loss":>20}{"BLEU":>20}{"":>8}{"exact match":>20}')
    print(f'{"epochs":8}{kinds}{kinds}{"ratio":>8}{kinds}')
    for epochs in map(float, _LENGTHS.value):
        recipe = dataclasses.replace(experiment.recipe, epochs=epochs)
        found = measured(task, records.dataset, recipe, seed=seed)
        line = f'{epochs:<8g}'
        for name in _NAMES:
            mean = found[name].mean(axis=0)
            unique, near = mean[~duplicated].mean(), mean[duplicated].mean()
            line += f'{unique:10.3f}{near:10.3f}'
            if name == 'bleu':
                line += f'{near / unique:8.2f}' if unique else f'{"":>8}'
        print(line, flush=True)


def measured(
    task: CausalLM, dataset: Dataset, recipe: Recipe, *, seed: int
) -> dict[str, np.ndarray]:
    """Returns measurements `[models T]` of models that are trained on all records."""
    problem, key = task.bind(dataset), jax.random.key(seed)
    masks = np.ones((_MODELS.value, len(dataset)), bool)
    steps = recipe.steps(len(dataset))
    program = training.Program(
        task=problem.task,
        optimizer=recipe.optimizer(steps),
        steps=steps,
        batch_size=recipe.batch_size,
        measure_batch=problem.measure_batch,
        smallest_subset=len(dataset),
    )
    executor = training.sequential(min(len(masks), jax.local_device_count()), in_turn=1)
    assert problem.refine is not None and problem.extra is not None
    chunks = training.train(
        problem.refine(program, masks=masks, key=key, executor=executor),
        key=key,
        masks=masks,
        members=range(len(masks)),
        examples=problem.examples,
        targets=problem.targets,
        executor=executor,
        base=problem.base,
        keep_params=True,
    )
    parts = [{**chunk.result.measurements, **problem.extra(chunk)} for chunk in chunks]
    return {name: np.concatenate([part[name] for part in parts]) for name in _NAMES}


if __name__ == '__main__':
    define_all(
        dataclasses.replace(DEFAULTS, machine=MachineSettings(output_dir='runs/extraction_sweep'))
    )
    launch.run(main)
