"""A member's training done again: forwards for its states, backwards for derivatives through it.

Derivatives go backwards step by step as an adjoint: those of what is measured in the end by the
state before a step follow from those by the state after it. States are recomputed segment by
segment, so that memory grows with the root of the steps.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from influence_jax.attribution.model import Model, Training
from influence_jax.training import member
from influence_jax.training.member import Program, State
from influence_jax.types import AnyArray, Batch, Params, PRNGKey, Variables

Carry = TypeVar('Carry')

STATES = 2**28
"""Bytes of a member's states that are held at once, where the root of all of them needs no more."""


class Replay(NamedTuple):
    """The training of one member, to be done again.

    program: the task, its base given, and how it was trained.
    key: of the member.
    order: which examples each step trains on.
    examples: pytree with a leading axis N.
    """

    program: Program
    key: PRNGKey
    order: Int[Array, 'steps B']
    examples: Batch

    @classmethod
    def of(
        cls, program: Program, *, key: PRNGKey, mask: Bool[AnyArray, ' N'], examples: Batch
    ) -> 'Replay':
        """Returns the training of the member of this key and subset."""
        return cls(program, key, member.schedule(program, mask, key=key), examples)

    def begin(self) -> State:
        """Returns the state before the first step."""
        return member.begin(self.program, key=self.key)

    def batch(self, number: Int[Array, '']) -> Batch:
        """Returns the examples of a step."""
        return member.take(self.examples, self.order[number])

    def step(
        self, number: Int[Array, ''], state: State, weights: Float[Array, ' N'] | None = None
    ) -> State:
        """Takes a step; `weights` multiply the examples' losses in their mean over the batch."""
        own = None if weights is None else weights[self.order[number]]
        batch = self.batch(number)
        return member.step(self.program, state, number, batch, key=self.key, weights=own)

    def losses(
        self, number: Int[Array, ''], state: State, params: Params
    ) -> tuple[Float[Array, ' B'], Any]:
        """Returns the losses of a step's batch at these parameters, and the new model state."""
        batch = self.batch(number)
        return member.batch_losses(self.program, state, params, number, batch, key=self.key)

    def backwards(
        self,
        at_end: Callable[[State], Carry],
        step_back: Callable[[Int[Array, ''], State, Carry], Carry],
        *,
        states: int = STATES,
    ) -> Carry:
        """Trains, and goes back from the last step to the first.

        Args:
            at_end: from the trained state to what is carried back.
            step_back: from a step's number, the state before it and what is carried, to that
                before the step.
            states: bytes of states that are held at once; the rest is recomputed. Never fewer than
                twice the root of all.
        """
        steps, start = self.program.steps, self.begin()
        segment = _segment(steps, start, states)
        count = -(-steps // segment)

        def advance(first: Array, state: State) -> State:
            return lax.fori_loop(first, jnp.minimum(first + segment, steps), self.step, state)

        def keep(number: Array, kept: tuple[Any, State]) -> tuple[Any, State]:
            starts, state = kept
            return _written(starts, number, state), advance(number * segment, state)

        starts, trained = lax.fori_loop(0, count, keep, (_buffer(start, count), start))

        def back(number: Array, carried: Carry) -> Carry:
            first = (count - 1 - number) * segment
            last = jnp.minimum(first + segment, steps)

            def fill(number: Array, kept: tuple[Any, State]) -> tuple[Any, State]:
                held, state = kept
                return _written(held, number - first, state), self.step(number, state)

            state = _read(starts, count - 1 - number)
            held, _ = lax.fori_loop(first, last, fill, (_buffer(state, segment), state))

            def one(taken: Array, carried: Carry) -> Carry:
                number = last - 1 - taken
                return step_back(number, _read(held, number - first), carried)

            return lax.fori_loop(0, last - first, one, carried)

        return lax.fori_loop(0, count, back, at_end(trained))


def _segment(steps: int, state: State, states: int) -> int:
    """Steps whose states are held at once."""
    return min(steps, max(math.isqrt(steps - 1) + 1, states // _bytes(state)))


def _bytes(state: State) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _buffer(state: Any, count: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros((count, *jnp.shape(leaf)), leaf.dtype), state)


def _written(buffer: Any, number: Array, state: Any) -> Any:
    return jax.tree.map(lambda rows, leaf: rows.at[number].set(leaf), buffer, state)


def _read(buffer: Any, number: Array) -> Any:
    return jax.tree.map(lambda rows: rows[number], buffer)


class Adjoint(NamedTuple):
    """Derivatives `[C ...]` of C numbers by what of a state is real numbers.

    params, model_state: trees of the state's.
    optimizer_state: its leaves of real numbers, in their order.
    """

    params: Any
    model_state: Any
    optimizer_state: list[Array]

    @classmethod
    def at_end(
        cls, measure: Callable[[Params | Variables], Float[Array, ' C']], trained: State
    ) -> tuple[Float[Array, ' C'], 'Adjoint']:
        """Returns C numbers measured of the trained variables, and their derivatives."""
        # Wrapped, so that a class is as good as a function.
        values, pull = jax.vjp(lambda variables: measure(variables), trained.variables)
        (cotangents,) = jax.vmap(pull)(jnp.eye(len(values), dtype=values.dtype))
        params, model_state = cotangents, None
        if isinstance(cotangents, Variables):
            params, model_state = cotangents.params, cotangents.state
        moments, _ = _real(trained.optimizer_state)
        zeros = [jnp.zeros((len(values), *leaf.shape), leaf.dtype) for leaf in moments]
        return values, cls(params, model_state, zeros)

    def through_update(
        self, program: Program, state: State, gradient: Params
    ) -> tuple[Params, 'Adjoint']:
        """Returns the derivatives by a step's gradient, and those by the state it is applied to.

        A parameter that had no gradient at all so far (a dead unit) is taken not to answer to any:
        the derivative of Adam's step is not finite there. Derivatives by the model state are left
        as they are: the optimizer does not see it.
        """
        moments, whole = _real(state.optimizer_state)

        def update(gradient: Any, moments: list[Array], params: Any) -> tuple[Any, list[Array]]:
            params, optimizer_state = member.update(program, gradient, whole(moments), params)
            return params, _real(optimizer_state)[0]

        _, pull = jax.vjp(update, gradient, moments, state.params)
        by_gradient, by_moments, by_params = jax.vmap(pull)((self.params, self.optimizer_state))
        by_gradient = jax.tree.map(_finite_where_nothing_is, by_gradient, gradient)
        by_moments = jax.tree.map(_finite_where_nothing_is, by_moments, moments)
        return by_gradient, Adjoint(by_params, self.model_state, by_moments)


def _real(tree: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """The leaves of real numbers, and how others are put in their place."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def whole(real: list[Array]) -> Any:
        given = dict(zip(places, real, strict=True))
        return jax.tree.unflatten(structure, [given.get(i, leaf) for i, leaf in enumerate(leaves)])

    return [leaves[i] for i in places], whole


def _finite_where_nothing_is(derivative: Array, primal: Array) -> Array:
    return jnp.where((primal == 0)[None] & ~jnp.isfinite(derivative), 0, derivative)


def training_of(model: Model) -> Training:
    """Returns how a model was trained.

    Raises:
        ValueError: the model does not know.
    """
    if model.training is None:
        raise ValueError(
            'a model without its training cannot be trained again: read the models by '
            'attribution.read_run, or give Model(training=Training(program, key))'
        )
    return model.training


def state_bytes(training: Training) -> int:
    """Returns the size of a state of this training, in bytes."""
    return _bytes(jax.eval_shape(lambda: member.begin(training.program, key=training.key)))


def training_of_all_parameters(model: Model) -> Training:
    """As `training_of`, for methods that differentiate through all of it; ValueError for blocks."""
    if model.blocks:
        raise ValueError(f'blocks={model.blocks} cannot be chosen: training changes all parameters')
    return training_of(model)


def mean_effect(
    models: Sequence[Model],
    derivatives: Callable[[Model, Bool[np.ndarray, ' N']], Float[np.ndarray, 'C N']],
    examples: int,
) -> Float[np.ndarray, 'N C']:
    """Returns what removing each of N examples adds to each of C numbers, to first order.

    Args:
        models: of which an example's effect is averaged over those that were trained on it; it is
            0 where none was.
        derivatives: of a model and its subset, by the examples' weights.
        examples: N.
    """
    total, trained = np.zeros((examples, 1)), np.zeros(examples)
    for model in models:
        mask = model.trained_on(examples)
        total = total - np.asarray(derivatives(model, mask), np.float64).T
        trained += mask
    return np.asarray(total / np.maximum(trained, 1)[:, None], np.float32)
