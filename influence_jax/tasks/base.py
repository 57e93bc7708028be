"""From a task and a dataset to what the engine trains."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from influence_jax.data.dataset import Dataset
from influence_jax.store import Shown
from influence_jax.training import Executor, Program, Trained
from influence_jax.trees import named
from influence_jax.types import BasedTask, Batch, Params, Task

_MOST_COLUMNS = 40
"""Of a table that a report shows."""

Refine = Callable[..., Program]
"""(program, masks=, key=, executor=) -> the program, with what follows from the masks."""

Extra = Callable[[Trained], Mapping[str, Float[np.ndarray, 'C T']]]
"""More measurements of members, from their parameters; `[C T]` each."""


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What members train on and are measured on, as the engine takes it.

    Attributes:
        task: the engine's.
        examples: pytree with a leading axis N.
        targets: pytree with a leading axis T; the same object where the targets are the examples.
        base: arrays that all members share, for a `BasedTask`.
        description: what determines the results, of what JSON can hold.
        measure_batch: how many targets are measured at once.
        refine: what of the program follows from the masks; None where nothing does.
        extra: more measurements, made from each member's parameters; None where there are none.
        extra_names: their names.
        shown: what a report shows of the examples.
        texts: what to keep of the members besides, a text for each target by name; for runs of one
            member.
    """

    task: Task | BasedTask
    examples: Batch
    targets: Batch
    base: Params | None = None
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    measure_batch: int = 256
    refine: Refine | None = None
    extra: Extra | None = None
    extra_names: tuple[str, ...] = ()
    shown: Shown | None = None
    texts: Callable[[Trained], Mapping[str, Sequence[str]]] | None = None

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of all that is recorded of each member and target."""
        return (*self.task.measurements, *self.extra_names)


@runtime_checkable
class DatasetTask(Protocol):
    """A task that says which arrays of a dataset it reads."""

    def bind(
        self, dataset: Dataset, targets: Dataset | None = None, *, executor: Executor | None = None
    ) -> Problem:
        """Returns what the engine trains; by default the targets are the examples.

        Raises:
            ValueError: an array that the task reads is not there, or is of another type.
        """


def bind(
    task: Any,
    dataset: Dataset,
    targets: Dataset | None = None,
    *,
    executor: Executor | None = None,
) -> Problem:
    """Returns what the engine trains, of a `DatasetTask` or of any `types.Task`.

    A plain `Task` is given the dataset's arrays as they are.
    """
    if isinstance(task, DatasetTask):
        return task.bind(dataset, targets, executor=executor)
    if not isinstance(task, Task | BasedTask):
        raise ValueError(
            f'{type(task).__name__} is no task: use influence_jax.tasks, or a class with '
            f'measurements, init, train_loss and measure (influence_jax.types.Task)'
        )
    for given in filter(None, (dataset, targets)):
        for name, leaf in named(given.arrays).items():
            if leaf.dtype.kind not in 'biufc':
                raise ValueError(
                    f'the array {name} of dataset {given.name!r} holds text, which no '
                    f'network reads: turn it into numbers, or use a task that does (tasks.CausalLM)'
                )
    rows = dataset.arrays
    kind = type(task)
    return Problem(
        task,
        rows,
        rows if targets is None else targets.arrays,
        description={'task': f'{kind.__module__}.{kind.__qualname__}'},
        shown=shown_of(dataset),
    )


def shown_of(dataset: Dataset, inputs: str | None = None) -> Shown:
    """Returns what a report shows of examples: images, the rows of a table, or names alone.

    Args:
        dataset: of the examples.
        inputs: name of the array that networks are called with; 'image' by default.
    """
    common: dict[str, Any] = {
        'names': dataset.names,
        'labels': dataset.labels,
        'groups': dataset.groups,
        'changes': dataset.changes,
        'class_names': dataset.class_names,
        'provenance': dataset.provenance,
        'notes': dataset.notes,
    }
    arrays = dataset.arrays if isinstance(dataset.arrays, Mapping) else {}
    array = arrays.get(inputs or 'image')
    if not isinstance(array, np.ndarray):
        return Shown(**common)
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] in (1, 3):
        return Shown(images=array, **common)
    if array.ndim == 2 and array.shape[1] <= _MOST_COLUMNS:
        columns = dataset.columns or tuple(f'{inputs} {i}' for i in range(array.shape[1]))
        rows = tuple(tuple(f'{value:.6g}' for value in row) for row in array.tolist())
        return Shown(columns=columns, rows=rows, **common)
    return Shown(**common)
