"""One member, from its subset to its measurements: pure, and unaware of all other members."""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from influence_jax.training import order
from influence_jax.types import Batch, Params, PRNGKey, Task


class Stream(enum.IntEnum):
    """What a member's random numbers are for; each is folded into the member's key."""

    PARAMETERS = 0
    ORDER = 1
    LOSS = 2


class Program(NamedTuple):
    """Everything that is the same for all members and fixed when the step is compiled."""

    task: Task
    optimizer: optax.GradientTransformation
    steps: int
    batch_size: int
    measure_batch: int
    smallest_subset: int


class Member(NamedTuple):
    """What remains of a trained member."""

    measurements: dict[str, Float[Array, 'T']]
    params: Params


def train_member(
    program: Program,
    *,
    key: PRNGKey,
    mask: Bool[Array, 'N'],
    examples: Batch,
    targets: Batch,
) -> Member:
    """Trains one member on its subset and measures every target.

    Args:
        program: the task and how to train it.
        key: the member's own.
        mask: its subset.
        examples: pytree with a leading axis N.
        targets: pytree with a leading axis T.
    """
    params = program.task.init(key=jax.random.fold_in(key, Stream.PARAMETERS))
    params = _train(program, params, key=key, mask=mask, examples=examples)
    return Member(measure(program, params, targets), params)


def _train(
    program: Program, params: Params, *, key: PRNGKey, mask: Bool[Array, 'N'], examples: Batch
) -> Params:
    batches = order.batches(
        mask,
        key=jax.random.fold_in(key, Stream.ORDER),
        steps=program.steps,
        batch_size=program.batch_size,
        smallest=program.smallest_subset,
    )
    loss_key = jax.random.fold_in(key, Stream.LOSS)

    def step(state: tuple[Params, optax.OptState], now: tuple[Array, Array]) -> tuple:
        params, optimizer_state = state
        number, indices = now
        batch = _take(examples, indices)

        def mean_loss(params: Params) -> Array:
            losses = program.task.train_loss(
                params, batch, key=jax.random.fold_in(loss_key, number)
            )
            return losses.mean()

        gradient = jax.grad(mean_loss)(params)
        update, optimizer_state = program.optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, update), optimizer_state), None

    state = params, program.optimizer.init(params)
    (params, _), _ = lax.scan(step, state, (jnp.arange(program.steps), batches))
    return params


def measure(program: Program, params: Params, targets: Batch) -> dict[str, Float[Array, 'T']]:
    """The task's measurements of every target, batch by batch."""
    count = jax.tree.leaves(targets)[0].shape[0]
    size = min(program.measure_batch, count)
    rounds = -(-count // size)
    # The last batch is filled up with the last target, and what is measured of that is dropped.
    indices = jnp.minimum(jnp.arange(rounds * size), count - 1).reshape(rounds, size)
    measured = lax.map(lambda i: program.task.measure(params, _take(targets, i)), indices)
    return {name: values.reshape(-1)[:count] for name, values in measured.items()}


def _take(rows: Batch, indices: Array) -> Batch:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[indices], rows)
