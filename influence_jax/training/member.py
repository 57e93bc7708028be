"""One member, from its subset to its measurements: pure, and unaware of all other members."""

import enum
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from influence_jax.training import order
from influence_jax.types import BasedTask, Batch, Params, PRNGKey, Task


class Stream(enum.IntEnum):
    """What a member's random numbers are for; each is folded into the member's key."""

    PARAMETERS = 0
    ORDER = 1
    LOSS = 2


class Program(NamedTuple):
    """Everything that is the same for all members and fixed when the step is compiled."""

    task: Task | BasedTask
    optimizer: optax.GradientTransformation
    steps: int
    batch_size: int
    measure_batch: int
    smallest_subset: int

    def on(self, base: Params | None) -> 'Program':
        """The program of a task whose base is given; None for a task that has none."""
        return self if base is None else self._replace(task=cast(BasedTask, self.task).on(base))


class State(NamedTuple):
    """A member in training."""

    params: Params
    optimizer_state: optax.OptState


class Member(NamedTuple):
    """What remains of a trained member."""

    measurements: dict[str, Float[Array, ' T']]
    params: Params


def train_member(
    program: Program,
    *,
    key: PRNGKey,
    mask: Bool[Array, ' N'],
    examples: Batch,
    targets: Batch,
    base: Params | None = None,
) -> Member:
    """Trains one member on its subset and measures every target.

    Args:
        program: the task and how to train it.
        key: the member's own.
        mask: its subset.
        examples: pytree with a leading axis N.
        targets: pytree with a leading axis T.
        base: what the task shares among members, for a `BasedTask`.
    """
    program = program.on(base)

    def next_step(state: State, now: tuple[Array, Array]) -> tuple[State, None]:
        number, indices = now
        return step(program, state, number, take(examples, indices), key=key), None

    steps = jnp.arange(program.steps), schedule(program, mask, key=key)
    (params, _), _ = lax.scan(next_step, begin(program, key=key), steps)
    return Member(measure(program, params, targets), params)


def begin(program: Program, *, key: PRNGKey) -> State:
    """A member before its first step; `key` is its own."""
    params = _based(program).init(key=jax.random.fold_in(key, Stream.PARAMETERS))
    return State(params, program.optimizer.init(params))


def schedule(program: Program, mask: Bool[Array, ' N'], *, key: PRNGKey) -> Int[Array, 'steps B']:
    """Which examples each of a member's steps trains on."""
    return order.batches(
        mask,
        key=jax.random.fold_in(key, Stream.ORDER),
        steps=program.steps,
        batch_size=program.batch_size,
        smallest=program.smallest_subset,
    )


def step(
    program: Program, state: State, number: Int[Array, ''], batch: Batch, *, key: PRNGKey
) -> State:
    """One training step.

    Args:
        program: the task, its base given.
        state: of the member.
        number: how many steps came before.
        batch: the examples to train on.
        key: the member's own.
    """
    loss_key = jax.random.fold_in(jax.random.fold_in(key, Stream.LOSS), number)

    def mean_loss(params: Params) -> Array:
        return _based(program).train_loss(params, batch, key=loss_key).mean()

    gradient = jax.grad(mean_loss)(state.params)
    update, optimizer_state = program.optimizer.update(
        gradient, state.optimizer_state, state.params
    )
    return State(optax.apply_updates(state.params, update), optimizer_state)


def measure(program: Program, params: Params, targets: Batch) -> dict[str, Float[Array, ' T']]:
    """The task's measurements of every target, batch by batch."""
    count = jax.tree.leaves(targets)[0].shape[0]
    size = min(program.measure_batch, count)
    rounds = -(-count // size)
    # The last batch is filled up with the last target, and what is measured of that is dropped.
    indices = jnp.minimum(jnp.arange(rounds * size), count - 1).reshape(rounds, size)
    measured = lax.map(lambda i: _based(program).measure(params, take(targets, i)), indices)
    return {name: values.reshape(-1)[:count] for name, values in measured.items()}


def take(rows: Batch, indices: Int[Array, ' B']) -> Batch:
    """The rows of a pytree at these indices of its leading axis."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[indices], rows)


def _based(program: Program) -> Task:
    return cast(Task, program.task)
