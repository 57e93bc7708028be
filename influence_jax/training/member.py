"""One member, from its subset to its measurements: pure, and unaware of all other members."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from influence_jax.training.compute_dtype import ComputeDtype, computing_in
from influence_jax.types import AnyArray, BasedTask, Batch, Params, PRNGKey, Task, Variables


class Stream(enum.IntEnum):
    """What a member's random numbers are for; each is folded into the member's key."""

    PARAMETERS = 0
    ORDER = 1
    LOSS = 2


class Program(NamedTuple):
    """Everything that is the same for all members and fixed when the step is compiled.

    compute_dtype: of the factors of a step's products; measurements are taken in float32.
    """

    task: Task | BasedTask
    optimizer: optax.GradientTransformation
    steps: int
    batch_size: int
    measure_batch: int
    smallest_subset: int
    compute_dtype: ComputeDtype = ComputeDtype.FLOAT32

    def on(self, base: Params | None) -> 'Program':
        """The program of a task whose base is given; None for a task that has none."""
        return self if base is None else self._replace(task=cast(BasedTask, self.task).on(base))


class State(NamedTuple):
    """A member in training.

    params: what the optimizer changes.
    optimizer_state: of the optimizer.
    model_state: what the task carries along besides, such as BatchNorm statistics; None for a
        task whose `init` returns parameters alone.
    """

    params: Params
    optimizer_state: optax.OptState
    model_state: Any = None

    @property
    def variables(self) -> Params | Variables:
        """What the task is given, in the form in which its `init` returned it."""
        return self.params if self.model_state is None else Variables(self.params, self.model_state)


class Member(NamedTuple):
    """What remains of a trained member.

    measurements: of every target, by name.
    params: parameters, or `Variables` of a task with state.
    """

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
    state = begin(program, key=key)
    order = schedule(program, mask, key=key)
    state = advance(program, state, order, examples, key=key, first=0, stop=program.steps)
    return Member(measure(program, state.variables, targets), state.variables)


def begin(program: Program, *, key: PRNGKey) -> State:
    """Returns a member before its first step; `key` is its own."""
    variables = _task(program).init(key=jax.random.fold_in(key, Stream.PARAMETERS))
    params, model_state = (
        variables if isinstance(variables, Variables) else Variables(variables, None)
    )
    return State(params, program.optimizer.init(params), model_state)


def abstract_variables(task: Task | BasedTask, base: Params | None = None) -> Params | Variables:
    """Returns the shapes of what a task's `init` returns; `base` as arrays or shapes."""

    def init(base: Params | None) -> Params | Variables:
        own = task if base is None else cast(BasedTask, task).on(base)
        return cast(Task, own).init(key=jax.random.key(0))

    return jax.eval_shape(init, base)


def schedule(
    program: Program, mask: Bool[AnyArray, ' N'], *, key: PRNGKey
) -> Int[Array, 'steps B']:
    """Returns which examples each of a member's steps trains on."""
    return batches(
        mask,
        key=jax.random.fold_in(key, Stream.ORDER),
        steps=program.steps,
        batch_size=program.batch_size,
        smallest=program.smallest_subset,
    )


def batches(
    mask: Bool[AnyArray, ' N'], *, key: PRNGKey, steps: int, batch_size: int, smallest: int
) -> Int[Array, 'steps B']:
    """Indices of the examples of every training step, all of them from the member's subset.

    The subset is shuffled anew for each epoch and the epochs follow each other without a gap,
    so that every member takes the same number of steps whatever the size of its subset, every
    batch is full, and no example is seen twice before all are seen once.

    What is shuffled is an example's rank within the subset. So the order of a member that
    trains under a mask is the order of one that trains on the subset's examples alone.

    Args:
        mask: the member's subset.
        key: of the member.
        steps: number of training steps.
        batch_size: B.
        smallest: a lower bound on the subset's size; memory grows with
            `N * steps * B / smallest`.
    """
    subset_size = mask.sum()
    subset = jnp.flatnonzero(mask, size=mask.size, fill_value=0)
    rank = jnp.arange(mask.size)

    def shuffled(epoch: Array) -> Array:
        # The bits of rank r do not depend on how many ranks there are (partitionable threefry).
        bits = jax.random.bits(jax.random.fold_in(key, epoch), (mask.size,))
        *_, order = lax.sort((rank >= subset_size, bits, rank), num_keys=2)
        return order

    epochs = -(-steps * batch_size // smallest)
    orders = lax.map(shuffled, jnp.arange(epochs))
    position = jnp.arange(steps * batch_size)
    ranks = orders[position // subset_size, position % subset_size]
    return subset[ranks].reshape(steps, batch_size)


def advance(
    program: Program,
    state: State,
    order: Int[Array, 'steps B'],
    examples: Batch,
    *,
    key: PRNGKey,
    first: Int[Array, ''] | int,
    stop: Int[Array, ''] | int,
) -> State:
    """Takes the steps `first` to `stop - 1` of a member.

    Args:
        program: the task, its base given.
        state: of the member after `first` steps.
        order: from `schedule`.
        examples: pytree with a leading axis N.
        key: the member's own.
        first: how many steps came before.
        stop: how many there are afterwards.
    """

    def next_step(number: Array, state: State) -> State:
        indices = lax.dynamic_index_in_dim(order, number, keepdims=False)
        return step(program, state, number, take(examples, indices), key=key)

    return lax.fori_loop(first, stop, next_step, state)


def step(
    program: Program,
    state: State,
    number: Int[Array, ''] | int,
    batch: Batch,
    *,
    key: PRNGKey,
    weights: Float[Array, ' B'] | None = None,
) -> State:
    """Takes one training step.

    Args:
        program: the task, its base given.
        state: of the member.
        number: how many steps came before.
        batch: the examples to train on.
        key: the member's own.
        weights: of the examples' losses in their mean over B; all 1 by default.
    """

    def mean_loss(params: Params) -> tuple[Array, Any]:
        losses, model_state = batch_losses(program, state, params, number, batch, key=key)
        return (losses if weights is None else losses * weights).mean(), model_state

    differentiate = computing_in(program.compute_dtype, jax.grad(mean_loss, has_aux=True))
    gradient, model_state = differentiate(state.params)
    return State(*update(program, gradient, state.optimizer_state, state.params), model_state)


def batch_losses(
    program: Program,
    state: State,
    params: Params,
    number: Int[Array, ''] | int,
    batch: Batch,
    *,
    key: PRNGKey,
) -> tuple[Float[Array, ' B'], Any]:
    """Returns the losses of a step's batch at these parameters, and the new model state."""
    loss_key = jax.random.fold_in(jax.random.fold_in(key, Stream.LOSS), number)
    variables = state._replace(params=params).variables
    returned: Any = _task(program).train_loss(variables, batch, key=loss_key)
    return (returned, None) if state.model_state is None else returned


def update(
    program: Program, gradient: Params, optimizer_state: optax.OptState, params: Params
) -> tuple[Params, optax.OptState]:
    """Returns parameters and the optimizer's state after a step of this gradient."""
    updates, optimizer_state = program.optimizer.update(gradient, optimizer_state, params)
    return optax.apply_updates(params, updates), optimizer_state


def measure(
    program: Program, variables: Params | Variables, targets: Batch
) -> dict[str, Float[Array, ' T']]:
    """Returns the task's measurements of every target, computed batch by batch."""
    count = jax.tree.leaves(targets)[0].shape[0]
    size = min(program.measure_batch, count)
    rounds = -(-count // size)
    # The last batch is filled up with the last target, and what is measured of that is dropped.
    indices = jnp.minimum(jnp.arange(rounds * size), count - 1).reshape(rounds, size)
    measured = lax.map(lambda i: _task(program).measure(variables, take(targets, i)), indices)
    return {name: values.reshape(-1)[:count] for name, values in measured.items()}


def take(rows: Batch, indices: Int[Array, ' B']) -> Batch:
    """Returns the rows of a pytree at these indices of its leading axis.

    Where a member takes several devices, the rows are spread over the axis 'data' of their mesh.
    """
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[indices], rows)
    sizes = jax.sharding.get_abstract_mesh().shape
    if sizes.get('data', 1) * sizes.get('model', 1) == 1:
        return batch
    return lax.with_sharding_constraint(batch, PartitionSpec('data'))


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """A `BasedTask`: the task, but every member begins with the base's parameters.

    Attributes:
        task: what is trained and measured.
    """

    task: Task

    @property
    def measurements(self) -> tuple[str, ...]:
        """Those of the task."""
        return self.task.measurements

    def on(self, base: Params) -> Task:
        """The task, from these parameters on."""
        return _Started(self.task, base)


@dataclasses.dataclass(frozen=True, eq=False)
class _Started:
    task: Task
    base: Params

    @property
    def measurements(self) -> tuple[str, ...]:
        return self.task.measurements

    def init(self, *, key: PRNGKey) -> Params:
        del key
        return jax.tree.map(jnp.asarray, self.base)

    def train_loss(self, params: Params, batch: Batch, *, key: PRNGKey) -> Any:
        return self.task.train_loss(params, batch, key=key)

    def measure(self, params: Params, batch: Batch) -> Mapping[str, Float[Array, ' B']]:
        return self.task.measure(params, batch)


def _task(program: Program) -> Task:
    return cast(Task, program.task)
