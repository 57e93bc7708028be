"""Models and records of a finished run, as attribution takes them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np

from influence_jax import tasks
from influence_jax.attribution.method import Records
from influence_jax.attribution.model import Model, Training
from influence_jax.data.dataset import Dataset
from influence_jax.tasks.base import Problem
from influence_jax.training import EnsembleKeys, Program, Recipe, WarmStart, sequential
from influence_jax.types import BasedTask, PRNGKey, Task

if TYPE_CHECKING:
    from influence_jax.run import Run


def read_run(
    run: 'Run',
    dataset: Dataset,
    members: Sequence[int] = (0,),
    *,
    base: Any = None,
    blocks: tuple[str, ...] = (),
) -> tuple[list[Model], Records]:
    """Reads trained members and the records that they were trained on; targets are the examples.

    Args:
        run: trained with `keep_params=True`.
        dataset: that it was trained on.
        members: whose parameters are read.
        base: as of `Run.task`, for a language model that began with a checkpoint.
        blocks: see `Model`.

    Raises:
        FileNotFoundError: the run kept no parameters.
        ValueError: the dataset is another one, the task cannot be made again (see `Run.task`), or a
            member is not there or has diverged.
    """
    task = run.task(base=base)
    run.remember(task, dataset)
    problem = tasks.bind(task, dataset)
    task_of_records = engine_task(problem)
    program, key = _program(run, problem)
    program = program.on(problem.base)
    models = []
    for member in members:
        if member in run.diverged:
            raise ValueError(f'{member=} has diverged: choose others')
        training = Training(program, jax.random.fold_in(key, member))
        mask = np.asarray(run.masks[member])
        models.append(Model(task_of_records, run.params(member), blocks, mask, training))
    return models, Records(problem.examples, problem.examples)


def _program(run: 'Run', problem: Problem) -> tuple[Program, PRNGKey]:
    """How the members of a run were trained, and from which key."""
    configuration, keys = run.manifest.configuration, EnsembleKeys.of(run.manifest.seeds['seed'])
    whole = configuration.get('full_data', False)
    program = Recipe.of_manifest(configuration['recipe']).program(
        problem.task,
        run.masks,
        1.0 if whole else configuration['inclusion_prob'],
        measure_batch=problem.measure_batch,
    )
    key = keys.full_data_model if whole else keys.members
    if problem.refine is not None:
        program = problem.refine(program, masks=run.masks, key=key, executor=sequential(1))
    return program, key


def engine_task(problem: Problem) -> Task:
    """Returns what measures single records, a base given to what needs one."""
    task = problem.task
    if isinstance(task, WarmStart):  # what members started from plays no part once they are trained
        return task.task
    if problem.base is not None:
        return cast(BasedTask, task).on(problem.base)
    return cast(Task, task)
