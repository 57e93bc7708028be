"""Metagradients: how a measurement of a trained member answers to the weights of its examples.

The exact derivative through every step of training (Engstrom et al. 2025, arXiv 2503.13751; Ilyas
and Engstrom 2025, arXiv 2504.16430). A step's gradient is symmetric in its derivative by the
parameters, so that the adjoint of a step is a Hessian-vector product, computed forward over
reverse, and the derivative by an example's weight is the directional derivative of its loss along
the same vector: no gradient is ever differentiated backwards. States are recomputed segment by
segment, so that a target costs about four trainings and memory grows with the root of the steps.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from influence_jax.attribution.method import Attribution, Records, Scorer
from influence_jax.attribution.model import Model, same_network
from influence_jax.attribution.replay import (
    STATES,
    Adjoint,
    Replay,
    mean_effect,
    state_bytes,
    training_of,
    training_of_all_parameters,
)
from influence_jax.estimators import Columns
from influence_jax.estimators.estimator import Method
from influence_jax.training.member import Program, State
from influence_jax.types import AnyArray, Batch, PRNGKey, Variables


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
    replay = Replay.of(program, key=key, mask=mask, examples=examples)

    def at_end(trained: State) -> tuple[Array, Adjoint, Array]:
        values, adjoint = Adjoint.at_end(measure, trained)
        return values, adjoint, jnp.zeros((len(values), len(mask)), values.dtype)

    def step_back(
        number: Array, state: State, carried: tuple[Array, Adjoint, Array]
    ) -> tuple[Array, Adjoint, Array]:
        values, after, weights = carried
        before, by_weights = _step_back(replay, number, state, after)
        return values, before, weights.at[:, replay.order[number]].add(by_weights)

    values, _, weights = replay.backwards(at_end, step_back, states=states)
    return values, weights


def _step_back(
    replay: Replay, number: Int[Array, ''], state: State, after: Adjoint
) -> tuple[Adjoint, Float[Array, 'C B']]:
    """From derivatives by the state after a step to those before it, and by the batch's weights."""

    def losses(params: Any, model_state: Any) -> tuple[Array, Any]:
        return replay.losses(number, state._replace(model_state=model_state), params)

    def gradient_of(params: Any) -> tuple[Any, Array, Any]:
        def mean_loss(params: Any) -> tuple[Array, tuple[Array, Any]]:
            own, model_state = losses(params, state.model_state)
            return own.mean(), (own, model_state)

        gradient, (own, model_state) = jax.grad(mean_loss, has_aux=True)(params)
        return gradient, own, model_state

    (gradient, own, _), along = jax.linearize(gradient_of, state.params)
    by_gradient, before = after.through_update(replay.program, state, gradient)
    curved, slopes, _ = jax.vmap(along)(by_gradient)
    by_params = jax.tree.map(jnp.add, before.params, curved)
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
    return Adjoint(by_params, by_model_state, before.optimizer_state), slopes / len(own)


def weighted_member(
    program: Program,
    *,
    key: PRNGKey,
    mask: Bool[Array, ' N'],
    weights: Float[Array, ' N'],
    examples: Batch,
) -> Any:
    """Trains a member whose examples have these weights; returns its parameters, or `Variables`."""
    replay = Replay.of(program, key=key, mask=mask, examples=examples)

    def take_step(number: Array, state: State) -> State:
        return replay.step(number, state, weights)

    return lax.fori_loop(0, program.steps, take_step, replay.begin()).variables


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
        training = training_of_all_parameters(models[0])
        return max(STATES, 2 * math.isqrt(training.program.steps) * state_bytes(training))

    @property
    def for_chosen_targets(self) -> bool:
        """See `Attribution`."""
        return True

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        effects = _effects(models, records)

        def score(targets: Batch) -> Float[np.ndarray, 'N t']:
            count = len(jax.tree.leaves(targets)[0])
            return effects(targets, np.eye(count, dtype=np.float32))

        return score


def combined_metagradients(
    models: Sequence[Model], records: Records, combinations: Float[AnyArray, 'C T']
) -> Float[np.ndarray, 'N C']:
    """Returns minus the derivatives of weighted sums over targets by examples' weights in training.

    Averaged over the models that were trained on the example, as `Metagradients` are, so that with
    many models this is the derivative of what an ensemble estimates. C combinations cost what C
    targets do, some four trainings each, however many targets they are of: see `sketch`. An LDS can
    be judged on them directly, beside the same combinations of the measurements.

    Args:
        models: each with its training.
        records: examples, and the T targets.
        combinations: weights of the targets in each sum, such as `random_combinations`.

    Raises:
        ValueError: a model without its training, models of different networks, or combinations of
            another number of targets.
    """
    same_network(models)
    if combinations.shape[1] != records.num_targets:
        raise ValueError(
            f'combinations are of {combinations.shape[1]} targets, but records have '
            f'{records.num_targets}: give one weight for each target'
        )
    return _effects(models, records)(records.targets, combinations)


def random_combinations(count: int, targets: int, *, key: PRNGKey) -> Float[np.ndarray, 'C T']:
    """Draws the weights -1 and 1 of each target in each of C combinations."""
    return np.asarray(jax.random.rademacher(key, (count, targets), np.float32))


def sketch(
    combined: Float[AnyArray, 'N C'], combinations: Float[AnyArray, 'C T'], *, unit: str = ''
) -> Columns:
    """Returns estimates `[N T]` of scores from those of C random combinations of targets.

    score(i, t) = mean over combinations of weight(t) * combined(i): unbiased, the weights being
    independent of mean 0 and variance 1. Its variance is the sum of squares of i's other scores
    over C, so that it finds what stands out in a row, with C far below T.

    Args:
        combined: from `combined_metagradients`.
        combinations: what they are of.
        unit: of the scores.
    """
    found, weights = np.asarray(combined), np.asarray(combinations)

    def read(targets: Int[np.ndarray, ' t']) -> Float[np.ndarray, 'N t']:
        return found @ weights[:, targets] / len(weights)

    method = Method(
        'metagradient_sketch',
        'metagradient (sketch)',
        'metagradients estimated from those of random combinations of targets',
    )
    return Columns(len(found), weights.shape[1], read, method, unit)


def _effects(
    models: Sequence[Model], records: Records
) -> Callable[[Batch, Float[AnyArray, 'C t']], Float[np.ndarray, 'N C']]:
    """What removing examples adds to combinations of what is measured of targets."""
    trainings = [training_of_all_parameters(model) for model in models]
    program, task = trainings[0].program, models[0].task

    @jax.jit
    def of_member(
        key: PRNGKey, mask: Array, examples: Batch, targets: Batch, combinations: Array
    ) -> Array:
        def measure(variables: Any) -> Array:
            return combinations @ task.measure(variables, targets)[records.measurement]

        return metagradients(program, key=key, mask=mask, examples=examples, measure=measure)[1]

    def effects(targets: Batch, combinations: Float[AnyArray, 'C t']) -> Float[np.ndarray, 'N C']:
        def derivatives(model: Model, mask: Bool[np.ndarray, ' N']) -> Float[np.ndarray, 'C N']:
            key = training_of(model).key
            return np.asarray(of_member(key, mask, records.examples, targets, combinations))

        return mean_effect(models, derivatives, records.num_examples)

    return effects
