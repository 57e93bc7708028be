"""Data value embeddings: what removing an example from the steps that saw it changes in the end.

The derivative through training of Wang et al. (2025, arXiv 2412.09538), whose curvature is the sum
of g g^T over each step's batch. The paper carries a matrix of all parameters by all of them, or of
projections of these; here targets are carried back instead, which gives the same numbers without
the matrix and without a projection: the product of two matrices can be taken from either end.
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from influence_jax.attribution.method import Attribution, Records, Scorer, by_batches
from influence_jax.attribution.model import Model, flat
from influence_jax.attribution.replay import (
    STATES,
    Adjoint,
    Replay,
    mean_effect,
    state_bytes,
    training_of,
    training_of_all_parameters,
)
from influence_jax.estimators.estimator import Method
from influence_jax.training.member import State
from influence_jax.trees import named
from influence_jax.types import Batch, PRNGKey

_log = logging.getLogger(__name__)

_GROWTH = 10.0
"""With learning rates for which g g^T serves as curvature, derivatives do not grow going back."""

_COPIES = 4
"""Of the derivatives by a state that are there at once, while they go back through a step."""


@dataclasses.dataclass(frozen=True)
class DataValueEmbedding(Attribution):
    """score(i, t) = sum over steps k that saw i of eta_k / B g_t . prod_{j>k} (1 - eta_j H_j) g_i.

    Of plain SGD with learning rates eta; g_i is the gradient at step k, H_j the mean of g g^T over
    the batch of step j, g_t the gradient of the target's measurement in the end: what removing i
    adds to the measurement, to first order, in its unit. Weight decay, momentum and AdamW are
    carried through by the exact derivative of the optimizer's step, which is our extension. With
    exact second derivatives these are `Metagradients`, which cost some trainings for each target,
    where this costs some products with the gradients of the batches.

    The mean of g g^T is larger than the second derivatives while losses are: where eta_j times its
    greatest eigenvalue exceeds 2, the product grows instead of shrinking, and scores mean nothing.
    On a ResNet they did so after SGD at 0.1, not at 0.02, and not with AdamW; `SOURCE` has no such
    limit.

    Gradients are of the measured loss: Dropout and augmentation are off, and a state such as
    BatchNorm's is fixed. Averaged over the models trained on the example; 0 where none was.
    """

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method(
            'data_value_embedding',
            'data value embedding',
            "the target's answer to the steps that saw the example, carried through training",
        )

    def unit(self, model: Model, records: Records) -> str:
        """See `Attribution`."""
        return model.unit(records.measurement)

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """States, the gradients of a batch, and one target's derivatives."""
        return self._fixed_bytes(models[0]) + _COPIES * self._state_bytes(models[0])

    @property
    def for_chosen_targets(self) -> bool:
        """See `Attribution`."""
        return True

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        for model in models:
            training_of_all_parameters(model)
        first = models[0]
        room = records.memory - self._fixed_bytes(first)
        block = max(1, room // (_COPIES * self._state_bytes(first)))

        @jax.jit
        def of_member(key: PRNGKey, mask: Array, examples: Batch, targets: Batch) -> Array:
            replay = Replay.of(training_of(first).program, key=key, mask=mask, examples=examples)
            return _derivatives(replay, first, records, len(mask), targets)

        def score(targets: Batch) -> Float[np.ndarray, 'N t']:
            def derivatives(model: Model, mask: Bool[np.ndarray, ' N']) -> Float[np.ndarray, 't N']:
                def of_block(some: Batch) -> Array:
                    return of_member(training_of(model).key, mask, records.examples, some)

                found = by_batches(of_block, targets, block, what='derivative')
                _warn_of_growth(found[:, -1])
                return found[:, :-1]

            return mean_effect(models, derivatives, records.num_examples)

        return score

    def _state_bytes(self, model: Model) -> int:
        return state_bytes(training_of_all_parameters(model))

    def _fixed_bytes(self, model: Model) -> int:
        return STATES + 3 * 4 * model.size * training_of(model).program.batch_size


def _derivatives(
    replay: Replay, model: Model, records: Records, examples: int, targets: Batch
) -> Float[Array, 't _']:
    """Derivatives of what is measured of targets by the examples' weights.

    The last column is how many times as long those by the parameters became on the way back.
    """

    def measure(variables: Any) -> Float[Array, ' t']:
        return model.task.measure(variables, targets)[records.measurement]

    def at_end(trained: State) -> tuple[Adjoint, Array, Array]:
        values, adjoint = Adjoint.at_end(measure, trained)
        adjoint = adjoint._replace(model_state=None)
        return adjoint, jnp.zeros((len(values), examples), values.dtype), _length(adjoint)

    def step_back(
        number: Array, state: State, carried: tuple[Adjoint, Array, Array]
    ) -> tuple[Adjoint, Array, Array]:
        after, weights, length = carried
        here = model.at(state.variables)
        network = here.network(replay.examples, records.loss)
        gradients = network.gradients(here.chosen, replay.batch(number))
        mean = jax.tree.unflatten(
            jax.tree.structure(state.params), [leaf.mean(0) for leaf in gradients.values()]
        )
        by_gradient, before = after.through_update(replay.program, state, mean)
        rows = flat(gradients)  # [B P]
        by_weights = flat(named(by_gradient)) @ rows.T / len(rows)  # [t B]
        curved = by_weights @ rows  # [t P]
        before = before._replace(params=_added(before.params, curved))
        return before, weights.at[:, replay.order[number]].add(by_weights), length

    adjoint, weights, length = replay.backwards(at_end, step_back)
    growth = _length(adjoint) / jnp.where(length > 0, length, 1)
    return jnp.concatenate([weights, growth[:, None]], axis=1)


def _length(adjoint: Adjoint) -> Float[Array, ' t']:
    return jnp.linalg.norm(flat(named(adjoint.params)), axis=1)


def _warn_of_growth(growth: Float[np.ndarray, ' t']) -> None:
    if growth.max(initial=0) > _GROWTH:
        _log.warning(
            'data value embeddings became up to %.0f times as long on the way back through '
            'training: at this learning rate g g^T is no stand-in for the curvature, and they say '
            'little; use metagradients',
            growth.max(),
        )


def _added(tree: Any, rows: Float[Array, 't P']) -> Any:
    """A tree of leaves `[t ...]` with the rows, split into leaves, added."""
    leaves, structure = jax.tree.flatten(tree)
    first, summed = 0, []
    for leaf in leaves:
        size = leaf[0].size
        summed.append(leaf + rows[:, first : first + size].reshape(leaf.shape))
        first += size
    return jax.tree.unflatten(structure, summed)
