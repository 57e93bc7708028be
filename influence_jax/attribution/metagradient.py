"""Metagradients: how a measurement of a trained member answers to the weights of its examples.

The exact derivative through every step of training (Engstrom et al. 2025, arXiv 2503.13751; Ilyas
and Engstrom 2025, arXiv 2504.16430). A step's gradient is symmetric in its derivative by the
parameters, so that the adjoint of a step is a Hessian-vector product, computed forward over
reverse, and the derivative by an example's weight is the directional derivative of its loss along
the same vector: no gradient is ever differentiated backwards. States are recomputed segment by
segment, so that a target costs about four trainings and memory grows with the root of the steps.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from influence_jax.attribution.method import Attribution, Records, Scorer
from influence_jax.attribution.model import Model, Training
from influence_jax.estimators.estimator import Method
from influence_jax.training import member
from influence_jax.training.member import Program, State
from influence_jax.types import Batch, PRNGKey, Variables

STATES = 2**28
"""Bytes of a member's states that are held at once, where the root of all of them needs no more."""


def metagradients(
    program: Program,
    *,
    key: PRNGKey,
    mask: Bool[Array, ' N'],
    examples: Batch,
    measure: Callable[[Any], Float[Array, ' C']],
    states: int = STATES,
) -> tuple[Float[Array, ' C'], Float[Array, 'C N']]:
    """Trains a member, and differentiates what is measured of it by the weights of its examples.

    The weight of an example multiplies its loss in every batch, whose mean goes over B as before;
    it is 1 where the derivative is taken. An example of weight 0 leaves its places in the batches
    empty, whereas one that is left out has them filled by others.

    A parameter that had no gradient at all so far (a dead unit) is taken not to answer to any: the
    derivative of Adam's step is not finite there.

    Args:
        program: the task, its base given, and how it was trained.
        key: of the member, `fold_in(EnsembleKeys.of(seed).members, m)`.
        mask: its subset.
        examples: pytree with a leading axis N.
        measure: from trained parameters (or `Variables`) to C numbers: of single targets, or of
            combinations of them.
        states: bytes of the member's states that are held at once; the rest is recomputed. Never
            fewer than twice the root of all.

    Returns:
        The C numbers, and their derivatives by the N weights; 0 for examples outside of the subset.
    """
    order = member.schedule(program, mask, key=key)
    start = member.begin(program, key=key)
    segment = _segment(program, start, states)
    count = -(-program.steps // segment)
    take_step = functools.partial(_step, program, order, examples, key)

    def advance(first: Array, state: State) -> State:
        return lax.fori_loop(first, jnp.minimum(first + segment, program.steps), take_step, state)

    def keep(number: Array, kept: tuple[Any, State]) -> tuple[Any, State]:
        starts, state = kept
        starts = _written(starts, number, state)
        return starts, advance(number * segment, state)

    starts, trained = lax.fori_loop(0, count, keep, (_buffer(start, count), start))
    values, pull = jax.vjp(lambda variables: measure(variables), trained.variables)
    (cotangents,) = jax.vmap(pull)(jnp.eye(len(values), dtype=values.dtype))
    adjoint = _Adjoint.of_variables(cotangents, trained)
    weights = jnp.zeros((len(values), len(mask)), values.dtype)
    step_back = functools.partial(_step_back, program, order, examples, key)

    def back(number: Array, carried: tuple['_Adjoint', Array]) -> tuple['_Adjoint', Array]:
        first = (count - 1 - number) * segment
        last = jnp.minimum(first + segment, program.steps)

        def fill(number: Array, kept: tuple[Any, State]) -> tuple[Any, State]:
            states, state = kept
            return _written(states, number - first, state), take_step(number, state)

        state = _read(starts, count - 1 - number)
        states, _ = lax.fori_loop(first, last, fill, (_buffer(state, segment), state))

        def one(taken: Array, carried: tuple['_Adjoint', Array]) -> tuple['_Adjoint', Array]:
            number = last - 1 - taken
            return step_back(number, _read(states, number - first), *carried)

        return lax.fori_loop(0, last - first, one, carried)

    _, weights = lax.fori_loop(0, count, back, (adjoint, weights))
    return values, weights


def _segment(program: Program, state: State, states: int) -> int:
    """Steps whose states are held at once."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return min(program.steps, max(math.isqrt(program.steps - 1) + 1, states // size))


def _step(
    program: Program,
    order: Int[Array, 'steps B'],
    examples: Batch,
    key: PRNGKey,
    number: Array,
    state: State,
) -> State:
    return member.step(program, state, number, member.take(examples, order[number]), key=key)


def _buffer(state: Any, count: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros((count, *jnp.shape(leaf)), leaf.dtype), state)


def _written(buffer: Any, number: Array, state: Any) -> Any:
    return jax.tree.map(lambda rows, leaf: rows.at[number].set(leaf), buffer, state)


def _read(buffer: Any, number: Array) -> Any:
    return jax.tree.map(lambda rows: rows[number], buffer)


class _Adjoint(NamedTuple):
    """Derivatives `[C ...]` by what of a state is real numbers.

    params, model_state: trees of the state's.
    optimizer_state: its leaves of real numbers, in their order.
    """

    params: Any
    model_state: Any
    optimizer_state: list[Array]

    @classmethod
    def of_variables(cls, cotangents: Any, state: State) -> '_Adjoint':
        """Of what is measured of the last state, which does not see the optimizer's."""
        params, model_state = cotangents, None
        if isinstance(cotangents, Variables):
            params, model_state = cotangents.params, cotangents.state
        count = len(jax.tree.leaves(params)[0])
        rest, _ = _real(state.optimizer_state)
        return cls(
            params, model_state, [jnp.zeros((count, *leaf.shape), leaf.dtype) for leaf in rest]
        )


def _real(tree: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """The leaves of real numbers, and how others are put in their place."""
    leaves, structure = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def whole(real: list[Array]) -> Any:
        given = dict(zip(places, real, strict=True))
        return jax.tree.unflatten(structure, [given.get(i, leaf) for i, leaf in enumerate(leaves)])

    return [leaves[i] for i in places], whole


def _step_back(
    program: Program,
    order: Int[Array, 'steps B'],
    examples: Batch,
    key: PRNGKey,
    number: Array,
    state: State,
    after: _Adjoint,
    weights: Float[Array, 'C N'],
) -> tuple[_Adjoint, Float[Array, 'C N']]:
    """From derivatives by the state after a step to those by the state before it."""
    indices = order[number]
    batch = member.take(examples, indices)

    def losses(params: Any, model_state: Any) -> tuple[Array, Any]:
        given = state._replace(model_state=model_state)
        return member.batch_losses(program, given, params, number, batch, key=key)

    def gradient_of(params: Any) -> tuple[Any, Array, Any]:
        def mean_loss(params: Any) -> tuple[Array, tuple[Array, Any]]:
            own, model_state = losses(params, state.model_state)
            return own.mean(), (own, model_state)

        gradient, (own, model_state) = jax.grad(mean_loss, has_aux=True)(params)
        return gradient, own, model_state

    (gradient, _, _), along = jax.linearize(gradient_of, state.params)
    moments, whole = _real(state.optimizer_state)

    def update(gradient: Any, moments: list[Array], params: Any) -> tuple[Any, list[Array]]:
        params, optimizer_state = member.update(program, gradient, whole(moments), params)
        return params, _real(optimizer_state)[0]

    _, pull = jax.vjp(update, gradient, moments, state.params)
    by_gradient, by_moments, by_params = jax.vmap(pull)((after.params, after.optimizer_state))
    by_gradient = jax.tree.map(_finite_where_nothing_is, by_gradient, gradient)
    by_moments = jax.tree.map(_finite_where_nothing_is, by_moments, moments)
    curved, own, _ = jax.vmap(along)(by_gradient)
    by_params = jax.tree.map(jnp.add, by_params, curved)
    weights = weights.at[:, indices].add(own / len(indices))
    by_model_state = None
    if state.model_state is not None:

        def carried(params: Any, model_state: Any) -> Any:
            return losses(params, model_state)[1]

        _, pull = jax.vjp(carried, state.params, state.model_state)
        more, by_model_state = jax.vmap(pull)(after.model_state)
        by_params = jax.tree.map(jnp.add, by_params, more)

        def slope(model_state: Any, direction: Any) -> Array:
            def mean_loss(params: Any) -> Array:
                return losses(params, model_state)[0].mean()

            return jax.jvp(mean_loss, (state.params,), (direction,))[1]

        read = jax.vmap(lambda direction: jax.grad(slope)(state.model_state, direction))
        by_model_state = jax.tree.map(jnp.add, by_model_state, read(by_gradient))
    return _Adjoint(by_params, by_model_state, by_moments), weights


def _finite_where_nothing_is(derivative: Array, primal: Array) -> Array:
    return jnp.where((primal == 0)[None] & ~jnp.isfinite(derivative), 0, derivative)


def weighted_member(
    program: Program,
    *,
    key: PRNGKey,
    mask: Bool[Array, ' N'],
    weights: Float[Array, ' N'],
    examples: Batch,
) -> Any:
    """Trains a member whose examples have these weights; returns its parameters, or `Variables`."""
    order = member.schedule(program, mask, key=key)

    def take_step(number: Array, state: State) -> State:
        indices = order[number]
        batch = member.take(examples, indices)
        return member.step(program, state, number, batch, key=key, weights=weights[indices])

    start = member.begin(program, key=key)
    return lax.fori_loop(0, program.steps, take_step, start).variables


def metasmoothness(
    program: Program,
    *,
    key: PRNGKey,
    mask: Bool[Array, ' N'],
    examples: Batch,
    direction: Float[Array, ' N'],
    step: float,
) -> Float[Array, '']:
    """How far training answers evenly to a change of its examples' weights, from -1 to 1.

    The trained parameters A(w) at w = 1, 1 + h v and 1 + 2 h v: the share of parameters that move
    the same way in both halves, less that of the others, each parameter by how far it moves in
    all. Near 1 where metagradients foretell changes of this size (Engstrom et al. 2025, arXiv
    2503.13751, section 4, in our reading).

    Args:
        program: as for `metagradients`.
        key: of the member.
        mask: its subset.
        examples: pytree with a leading axis N.
        direction: v.
        step: h, such as 1 for examples that leave or count twice.
    """

    def at(number: int) -> Any:
        return weighted_member(
            program, key=key, mask=mask, weights=1 + number * step * direction, examples=examples
        )

    def params(variables: Any) -> list[Array]:
        trained = variables.params if isinstance(variables, Variables) else variables
        return jax.tree.leaves(trained)

    first, second, third = (params(at(number)) for number in range(3))
    agreed, moved = jnp.zeros(()), jnp.zeros(())
    for a, b, c in zip(first, second, third, strict=True):
        agreed += (jnp.sign(b - a) * jnp.sign(c - b) * jnp.abs(c - a)).sum()
        moved += jnp.abs(c - a).sum()
    return agreed / jnp.where(moved > 0, moved, 1)


@dataclasses.dataclass(frozen=True)
class Metagradients(Attribution):
    """Minus the derivative of a target's measurement by an example's weight, through training.

    What removing the example adds to the measurement, to first order. Averaged over the models that
    were trained on the example; 0 where none was. For a few targets: each costs several trainings.
    """

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method(
            'metagradient',
            'metagradient',
            "minus the derivative of the target's measurement by the example's weight in training",
        )

    def unit(self, model: Model, records: Records) -> str:
        """See `Attribution`."""
        return model.unit(records.measurement)

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """See `Attribution`."""
        state = 3 * 4 * models[0].size
        return max(STATES, state * 2 * math.isqrt(_training(models[0]).program.steps))

    @property
    def for_chosen_targets(self) -> bool:
        """See `Attribution`."""
        return True

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        trainings = [_training(model) for model in models]
        program, task = trainings[0].program, models[0].task
        masks = np.stack([model.trained_on(records.num_examples) for model in models])

        @jax.jit
        def of_member(key: PRNGKey, mask: Array, examples: Batch, targets: Batch) -> Array:
            def measure(variables: Any) -> Array:
                return task.measure(variables, targets)[records.measurement]

            return metagradients(program, key=key, mask=mask, examples=examples, measure=measure)[1]

        def score(targets: Batch) -> Float[np.ndarray, 'N t']:
            count = np.maximum(masks.sum(axis=0), 1)[:, None]
            total = np.zeros((1, 1))
            for training, mask in zip(trainings, masks, strict=True):
                total = (
                    total
                    - np.asarray(
                        of_member(training.key, mask, records.examples, targets), np.float64
                    ).T
                )
            return np.asarray(total / count, np.float32)

        return score


def _training(model: Model) -> Training:
    if model.training is None:
        raise ValueError(
            'a model without its training cannot be differentiated through it: read the models by '
            'attribution.read_run, or give Model(training=Training(program, key))'
        )
    if model.blocks:
        raise ValueError(f'blocks={model.blocks} cannot be chosen: training changes all parameters')
    return model.training
