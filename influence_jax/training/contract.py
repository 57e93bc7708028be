"""Checks a task by its shapes, before anything is trained or written."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from influence_jax.training.member import Program, take
from influence_jax.trees import described, named
from influence_jax.types import Batch, Params, Variables


def check_task(
    program: Program, *, examples: Batch, targets: Batch, base: Params | None = None
) -> None:
    """Checks what a task returns: names, shapes, types, and that its state is carried along.

    Args:
        program: the task and how to train it.
        examples: pytree with a leading axis N; arrays or shapes.
        targets: pytree with a leading axis T; likewise.
        base: what members share, for a `BasedTask`.

    Raises:
        ValueError: the first thing that is wrong, and what to do about it.
    """
    batch, measured = program.batch_size, program.measure_batch
    key = jax.eval_shape(lambda: jax.random.key(0))

    def some(rows: Batch, count: int) -> Batch:
        indices = jax.ShapeDtypeStruct((count,), jnp.int32)
        return jax.eval_shape(take, rows, indices)

    def task(base: Params | None) -> Any:
        return program.on(base).task

    variables = jax.eval_shape(lambda base, key: task(base).init(key=key), base, key)
    _check_params(variables)
    returned = jax.eval_shape(
        lambda base, variables, rows, key: task(base).train_loss(variables, rows, key=key),
        *(base, variables, some(examples, batch), key),
    )
    losses = _losses(variables, returned)
    _check_row('train_loss returns', losses, batch)
    measurements = jax.eval_shape(
        lambda base, variables, rows: task(base).measure(variables, rows),
        *(base, variables, some(targets, measured)),
    )
    if not isinstance(measurements, Mapping):
        raise ValueError(
            f'measure returns {type(measurements).__name__}: return a dict of arrays [B] by name'
        )
    names = program.task.measurements
    if set(measurements) != set(names):
        raise ValueError(
            f'measure returns {sorted(measurements)}, but the task announces the measurements '
            f'{sorted(names)}: make the two agree'
        )
    for name, values in measurements.items():
        _check_row(f'measure returns {name!r} as', values, measured)


def _check_params(variables: Any) -> None:
    params = variables.params if isinstance(variables, Variables) else variables
    found = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    kinds = {type(leaf) for leaf in found if isinstance(leaf, nnx.Variable)}
    if state := sorted(kind.__name__ for kind in kinds if not issubclass(kind, nnx.Param)):
        raise ValueError(
            f'init returns {", ".join(state)} among the parameters, which training would leave as '
            f'it is: return influence_jax.types.Variables(params, state), and the new state from '
            f'train_loss'
        )
    for name, leaf in named(params).items():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f'the parameter {name} is {leaf.dtype}, which cannot be trained: '
                f'parameters are floating, anything else is state (types.Variables)'
            )


def _losses(variables: Any, returned: Any) -> Any:
    """The losses of what `train_loss` returns, its state checked."""
    if not isinstance(variables, Variables):
        if isinstance(returned, tuple):
            raise ValueError(
                'train_loss returns a tuple, but init returns no state: return the losses [B] '
                'alone, or types.Variables(params, state) from init'
            )
        return returned
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise ValueError(
            'init returns Variables with a state, but train_loss returns no new state: return '
            '(losses, state), so that it is carried through training'
        )
    losses, state = returned
    before, after = described(variables.state), described(state)
    if before != after:
        path = min(name for name in {*before, *after} if before.get(name) != after.get(name))
        raise ValueError(
            f'the state that train_loss returns differs from that of init: {path} is '
            f'{after.get(path, "absent")}, expected {before.get(path, "absent")}'
        )
    return losses


def _check_row(what: str, values: Any, count: int) -> None:
    shape = getattr(values, 'shape', None)
    if shape != (count,):
        found = type(values).__name__ if shape is None else list(shape)
        raise ValueError(
            f'{what} {found} for {count} rows: return one number for each, of shape [{count}]'
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f'{what} {values.dtype}: return floating numbers, such as float32')
