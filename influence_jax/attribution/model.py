"""A trained member as attribution reads it: what is measured of single records, by parameters."""

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jaxtyping import Array, Bool, Float, Key

from influence_jax.attribution.layers import Network
from influence_jax.training import Program
from influence_jax.trees import map_named, module_of, named
from influence_jax.types import (
    Batch,
    Margin,
    MarginTask,
    OutputTask,
    Params,
    SamplingTask,
    Task,
    UnitTask,
    Variables,
)


class Training(NamedTuple):
    """How a member was trained, so that it can be trained again.

    program: the task, its base given, and the steps.
    key: of the member.
    """

    program: Program
    key: Key[Array, '']


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """The task and the parameters of a trained member.

    Gradients are those of what the task *measures*: Dropout is off and BatchNorm goes by its
    statistics, so that a record's gradient depends on no other record.

    Attributes:
        task: as the engine has it (`tasks.bind(...).task`), its base given.
        variables: trained parameters, or `Variables` with state; shapes where only the cost is
            wanted.
        blocks: patterns (`re.search`) of the paths of the parameters that gradients are taken by;
            all by default.
        mask: on which examples it was trained; all by default.
        training: how, for methods that go through it.
    """

    task: Task
    variables: Params | Variables
    blocks: tuple[str, ...] = ()
    mask: Bool[np.ndarray, ' N'] | None = None
    training: Training | None = None

    def __post_init__(self) -> None:
        for pattern in self.blocks:
            if not any(re.search(pattern, path) for path in named(self.params)):
                paths = list(named(self.params))
                near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0) or paths[:3]
                raise ValueError(
                    f'blocks={pattern!r} matches none of {len(paths)} parameters; the nearest are '
                    f'{", ".join(near)}'
                )

    @property
    def params(self) -> Params:
        """What was trained."""
        return self.variables.params if isinstance(self.variables, Variables) else self.variables

    def at(self, variables: Params | Variables) -> 'Model':
        """The same member with other variables, such as those at a step of its training."""
        return dataclasses.replace(self, variables=variables)

    @functools.cached_property
    def chosen(self) -> dict[str, Any]:
        """The parameters that gradients are taken by, by path."""
        patterns = self.blocks or ('',)
        return {
            path: leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)
            for path, leaf in named(self.params).items()
            if any(re.search(pattern, path) for pattern in patterns)
        }

    @property
    def modules(self) -> list[tuple[str, int]]:
        """The module of each chosen parameter and its size, in the order of `flat` gradients."""
        return [(module_of(path), leaf.size) for path, leaf in named(self.chosen).items()]

    @property
    def size(self) -> int:
        """P, how many parameters are chosen."""
        return sum(leaf.size for leaf in self.chosen.values())

    def measure(
        self, chosen: Mapping[str, Array], record: Any, measurement: str
    ) -> Float[Array, '']:
        """What is measured of one record (a row of a batch), with these chosen parameters."""
        return self.losses(chosen, _as_batch(record), measurement)[0]

    def losses(
        self, chosen: Mapping[str, Array], batch: Batch, measurement: str
    ) -> Float[Array, ' B']:
        """What is measured of each record of a batch."""
        return self.task.measure(self._with(chosen), jax.tree.map(jnp.asarray, batch))[measurement]

    def unit(self, measurement: str) -> str:
        """Of a measurement; empty where it has none. A loss is in nats unless the task says."""
        units = self.task.units if isinstance(self.task, UnitTask) else {'loss': 'nats'}
        return units.get(measurement, '')

    def margin(self, chosen: Mapping[str, Array], record: Any) -> Margin:
        """Log-odds of one record's label, and the probability of all others.

        Raises:
            ValueError: the task has no margin.
        """
        if not isinstance(self.task, MarginTask):
            raise ValueError(
                f'{type(self.task).__name__} has no log-odds of a label: it measures '
                f'{", ".join(self.task.measurements)}; give it margin '
                f'(influence_jax.types.MarginTask), or use another method'
            )
        found = self.task.margin(self._with(chosen), _as_batch(record))
        return Margin(found.log_odds[0], found.error[0])

    def outputs(self, chosen: Mapping[str, Array], batch: Batch) -> Float[Array, 'B ...']:
        """The network's outputs of a batch.

        Raises:
            ValueError: the task does not tell its outputs from its loss.
        """
        return self._output_task().outputs(self._with(chosen), jax.tree.map(jnp.asarray, batch))

    def output_losses(self, outputs: Float[Array, 'B ...'], batch: Batch) -> Float[Array, ' B']:
        """The measured loss of each record, by the outputs; raises as `outputs`."""
        return self._output_task().output_losses(outputs, jax.tree.map(jnp.asarray, batch))

    def _output_task(self) -> OutputTask:
        if not isinstance(self.task, OutputTask):
            raise ValueError(
                f'{type(self.task).__name__} does not tell outputs from loss: give it outputs and '
                f'output_losses (influence_jax.types.OutputTask), or use Curvature.HESSIAN'
            )
        return self.task

    def sampled(
        self, chosen: Mapping[str, Array], record: Any, key: Key[Array, '']
    ) -> Float[Array, '']:
        """The loss of one record with a label drawn from the model, as the true Fisher needs it.

        Raises:
            ValueError: the task does not say how labels are drawn.
        """
        if not isinstance(self.task, SamplingTask):
            raise ValueError(
                f'{type(self.task).__name__} draws no labels: give it sampled_loss '
                f'(influence_jax.types.SamplingTask), or use fisher=Fisher.EMPIRICAL'
            )
        variables, one = self._with(chosen), _as_batch(record)
        return self.task.sampled_loss(variables, one, key=key)[0]

    def _with(self, chosen: Mapping[str, Array]) -> Params | Variables:
        params = map_named(
            lambda path, leaf: chosen[path] if path in chosen else _traced(leaf), self.params
        )
        if isinstance(self.variables, Variables):
            return self.variables._replace(params=params)
        return params

    def network(self, examples: Batch, measurement: str) -> Network:
        """The layers, found in the trace of one record's measurement."""
        leaves, structure = jax.tree.flatten(_one_of(examples))
        key = measurement, structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._networks:
            self._networks[key] = self.network_of(
                lambda chosen, record: self.measure(chosen, record, measurement), examples
            )
        return self._networks[key]

    @functools.cached_property
    def _networks(self) -> dict[Any, Network]:
        """Those that were asked for."""
        return {}

    def network_of(
        self, compute: Callable[[Mapping[str, Array], Any], Array], examples: Batch
    ) -> Network:
        """The layers, found in the trace of a number that is computed of one record."""
        return Network(compute, self.chosen, _one_of(examples))

    def trained_on(self, count: int) -> Bool[np.ndarray, ' N']:
        """Which of `count` examples it was trained on."""
        return np.ones(count, bool) if self.mask is None else np.asarray(self.mask)


def _arrays(model: Model) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    held, task = (None, model.task) if tree_util.all_leaves([model.task]) else (model.task, None)
    return (model.variables, held), (task, model.blocks)


def _of_arrays(cls: type[Model], fixed: tuple[Any, Any], arrays: tuple[Any, Any]) -> Model:
    (variables, held), (task, blocks) = arrays, fixed
    model = object.__new__(cls)  # what is not an array yet would not pass the checks
    fields = {'task': held if task is None else task, 'variables': variables, 'blocks': blocks}
    for name, value in (fields | {'mask': None, 'training': None}).items():
        object.__setattr__(model, name, value)
    return model


def register(cls: type[Model]) -> type[Model]:
    """Makes a class of models a pytree.

    Variables, and the base of a task that has one, are arguments of what is compiled, so that
    models of one network share it. How a member was trained is left behind.
    """
    tree_util.register_pytree_node(cls, _arrays, functools.partial(_of_arrays, cls))
    return cls


register(Model)


def _one_of(rows: Batch) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)


def _traced(leaf: Any) -> Any:
    """A parameter that is not chosen; of one that is a shape, only the trace is wanted."""
    return jnp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf


def _as_batch(record: Any) -> Batch:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], record)


def flat(gradients: Mapping[str, Float[Array, 'B ...']]) -> Float[Array, 'B P']:
    """Per-example gradients by path, side by side."""
    return jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in gradients.values()], axis=1)


def check_finite(values: Array, *, what: str, first: int) -> None:
    """Refuses (ValueError) rows that are not finite, naming the first of them."""
    bad = np.flatnonzero(~jnp.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if bad.size:
        raise ValueError(
            f'the {what} of record {first + bad[0]} is not finite ({bad.size} in this block): the '
            f'member has diverged, or the record is damaged; leave one of them out'
        )


def same_network(models: Sequence[Model]) -> None:
    """Refuses (ValueError) models of different parameters, or none."""
    if not models:
        raise ValueError('no models were given: attribution needs at least one')
    shapes = [{path: leaf.shape for path, leaf in model.chosen.items()} for model in models]
    for number, one in enumerate(shapes):
        if one != shapes[0]:
            raise ValueError(f'model {number} has other parameters than model 0: use one network')
