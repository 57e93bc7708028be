"""Models and records of a finished run, as attribution takes them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from influence_jax import tasks
from influence_jax.attribution.method import Records
from influence_jax.attribution.model import Model
from influence_jax.data.dataset import Dataset
from influence_jax.training import WarmStart
from influence_jax.types import BasedTask, Task

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
    engine_task = _engine_task(problem)
    models = []
    for member in members:
        if member in run.diverged:
            raise ValueError(f'{member=} has diverged: choose others')
        mask = np.asarray(run.masks[member])
        models.append(Model(engine_task, run.params(member), blocks, mask))
    return models, Records(problem.examples, problem.examples)


def _engine_task(problem: tasks.Problem) -> Task:
    """What measures single records, a base given to what needs one."""
    task = problem.task
    if isinstance(task, WarmStart):  # what members started from plays no part once they are trained
        return task.task
    if problem.base is not None:
        return cast(BasedTask, task).on(problem.base)
    return cast(Task, task)
