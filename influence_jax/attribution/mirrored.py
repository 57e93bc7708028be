"""Mirrored influence: what a step on the target does to each example, by forward passes alone."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from influence_jax.attribution.method import (
    Attribution,
    Records,
    Scorer,
    batches,
    by_batches,
)
from influence_jax.attribution.model import Model
from influence_jax.estimators.estimator import Method
from influence_jax.types import Batch

RELATIVE_STEP = 0.01
"""Of the norm of the parameters: how far they go for a target by default, all steps together."""

_AT_ONCE = 4  # targets, each with a copy of the parameters


@dataclasses.dataclass(frozen=True)
class Mirrored(Attribution):
    """score(i, t) = (loss of i after ascending on t - loss of i before) / length of the ascent.

    The mirrored influence hypothesis (Ko et al. 2024, arXiv 2402.08922): the effect of training on
    the example upon the target can be read from that of training on the target upon the example. A
    copy of the model takes gradient steps that *raise* the target's measurement; where the
    example's loss rises too, the score is positive. The length is the sum of what gradients are
    multiplied by, so that for short steps a score is the inner product of both gradients: nats of
    the example's loss per unit step. The examples need forward passes only. The paper takes steps
    of Adam; plain ones keep scores of different targets comparable.

    Attributes:
        steps: of the ascent.
        step: what the gradient is multiplied by in each; by default chosen for each target, so
            that all steps together are about a hundredth of the parameters' norm.
    """

    steps: int = 1
    step: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f'steps={self.steps} must be at least 1')
        if self.step is not None and not self.step > 0:
            raise ValueError(f'step={self.step} must be positive')

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method(
            'mirrored',
            'mirrored influence',
            "the rise of the example's loss by a step that raises the target's measurement",
        )

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """Parameters of a few targets and their gradients, and two numbers for each score."""
        return 12 * _AT_ONCE * models[0].size + 8 * records.num_examples * records.block

    @property
    def for_chosen_targets(self) -> bool:
        """A forward pass over all examples for each."""
        return True

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        compiled = [self._compile(model, records) for model in models]

        def of_few(targets: Batch) -> Float[np.ndarray, 'N c']:
            total = np.zeros((records.num_examples, 1))
            for ascend, losses, before in compiled:
                moved, length = ascend(targets)
                after = by_batches(
                    functools.partial(losses, moved), records.examples, records.batch, what='loss'
                )
                total = total + (after.astype(np.float64) - before) / np.asarray(length)
            return total / len(models)

        def score(targets: Batch) -> Float[np.ndarray, 'N t']:
            found = [
                of_few(few)[:, : some.stop - some.start] for some, few in batches(targets, _AT_ONCE)
            ]
            return np.concatenate(found, axis=1).astype(np.float32)

        return score

    def _compile(
        self, model: Model, records: Records
    ) -> tuple[Callable, Callable, Float[np.ndarray, 'N 1']]:
        """The ascents on a few targets, examples' losses after each, and their losses before."""

        @jax.jit
        def losses(moved: Mapping[str, Array], batch: Batch) -> Float[Array, 'b c']:
            return jax.vmap(lambda one: model.losses(one, batch, records.loss), out_axes=1)(moved)

        start = jax.tree.map(lambda leaf: leaf[None], model.chosen)
        before = by_batches(
            functools.partial(losses, start), records.examples, records.batch, what='loss'
        )
        return jax.jit(jax.vmap(functools.partial(self._ascend, model, records))), losses, before

    def _ascend(
        self, model: Model, records: Records, target: Any
    ) -> tuple[Mapping[str, Array], Float[Array, '']]:
        """Parameters after the steps, and the sum of what gradients were multiplied by."""
        slope = jax.grad(lambda chosen: model.measure(chosen, target, records.measurement))
        if self.step is None:
            steepness, size = _norm(slope(model.chosen)), _norm(model.chosen)
            step = RELATIVE_STEP * size / jnp.where(steepness > 0, steepness, 1) / self.steps
        else:
            step = jnp.asarray(self.step)

        def advance(_: Array, chosen: Mapping[str, Array]) -> Mapping[str, Array]:
            return jax.tree.map(lambda leaf, by: leaf + step * by, chosen, slope(chosen))

        moved = jax.lax.fori_loop(0, self.steps, advance, model.chosen)
        return moved, step * self.steps


def _norm(tree: Mapping[str, Array]) -> Float[Array, '']:
    return jnp.linalg.norm(ravel_pytree(tree)[0])
