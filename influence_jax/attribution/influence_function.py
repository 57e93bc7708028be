"""Influence functions: what leaving an example out changes, to first order (Koh and Liang 2017)."""

import dataclasses
import enum
import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from influence_jax.attribution.features import Features, GradientsOf, compiled
from influence_jax.attribution.method import (
    Attribution,
    FeatureScorer,
    Records,
    Scorer,
    batches,
    working_bytes,
)
from influence_jax.attribution.model import Model
from influence_jax.attribution.relatif import RelatIF
from influence_jax.attribution.solvers import (
    Arnoldi,
    ConjugateGradients,
    LiSSA,
    Operator,
    Product,
    Solver,
)
from influence_jax.estimators.estimator import Method
from influence_jax.types import Batch

RELATIVE_DAMPING = 0.1
"""Of the mean eigenvalue of the curvature."""

_PROBES = 16

_log = logging.getLogger(__name__)


class Curvature(enum.Enum):
    """Second derivatives of the mean loss, or what of them is left of a linearized network."""

    GAUSS_NEWTON = 'gauss_newton'
    HESSIAN = 'hessian'


@dataclasses.dataclass(frozen=True)
class InfluenceFunction(Attribution):
    """score(i, t) = g_t . (C + weight_decay + damping)^-1 g_i / n.

    g_t is the gradient of the target's measurement, g_i that of the example's loss, C the curvature
    of the mean loss of the n examples that the model was trained on: what removing i adds to the
    measurement, in its unit. Solving takes some products with C for each target, each about the
    cost of a pass of training; `Arnoldi` takes them once for all targets.

    Attributes:
        solver: of the system.
        curvature: Gauss-Newton has no negative eigenvalue; the Hessian is exact where the model
            is at its optimum, and refused where damping leaves a negative eigenvalue.
        damping: added to every eigenvalue; by default a tenth of their mean, which is logged, and
            is the `damping` of `operator`.
        weight_decay: w where training minimizes mean loss + w/2 |parameters|^2.
        relatif: how examples are normalized; None not at all.
    """

    solver: Solver = dataclasses.field(default_factory=Arnoldi)
    curvature: Curvature = Curvature.GAUSS_NEWTON
    damping: float | None = None
    weight_decay: float = 0.0
    relatif: RelatIF | None = None

    def __post_init__(self) -> None:
        if self.damping is not None and not self.damping > 0:
            raise ValueError(f'damping={self.damping} must be positive')
        if not self.weight_decay >= 0:
            raise ValueError(f'weight_decay={self.weight_decay} must not be negative')

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        name = self.solver.title.lower().replace(' ', '_')
        title = f'influence function ({self.solver.title})'
        if self.relatif:
            name, title = f'{name}_{self.relatif.value}', f'{title}, {self.relatif.title}'
        return Method(name, title, f'the {title}')

    def unit(self, model: Model, records: Records) -> str:
        """See `Attribution`."""
        return '' if self.relatif else model.unit(records.measurement)

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """Gradients, and what the solver holds."""
        size = models[0].size
        solver = len(models) * self.solver.bytes_needed(size, max(records.batch, _PROBES))
        return working_bytes(size, records) + solver

    @property
    def linear_in_targets(self) -> bool:
        """See `Attribution`."""
        return True

    @property
    def for_chosen_targets(self) -> bool:
        """See `Attribution`."""
        return isinstance(self.solver, ConjugateGradients | LiSSA)

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        solves = [self.solver.prepare(self.operator(model, records)) for model in models]
        return scorer(models, records, solves, self.relatif)

    def operator(self, model: Model, records: Records) -> Operator:
        """The curvature with damping and weight decay, which its `damping` is the sum of.

        Raises:
            ValueError: the mean eigenvalue is not positive, so that damping must be given; or a
                task without outputs, for Gauss-Newton.
        """
        product, sampled = _products(model, records, self.curvature)
        damping = self.damping
        if damping is None:
            signs = jax.random.rademacher(jax.random.key(0), (_PROBES, model.size), jnp.float32)
            mean = float((signs * product(signs)).sum(axis=1).mean()) / model.size
            if not mean > 0:
                raise ValueError(f'the mean eigenvalue is {mean:.3g}, not positive: give damping=')
            damping = RELATIVE_DAMPING * mean
            _log.info('damping %.3g, a tenth of the mean eigenvalue', damping)
        total = damping + self.weight_decay
        return Operator(
            model.size,
            total,
            lambda rows: product(rows) + total * rows,
            lambda rows, key: sampled(rows, key) + total * rows,
        )


def scorer(
    models: Sequence[Model],
    records: Records,
    solves: Sequence[Product],
    relatif: RelatIF | None,
) -> Scorer:
    """Scores g_t . solve(g_i) / n for each model's way of solving."""
    of_targets, of_examples, scales = [], [], []
    for model, solve in zip(models, solves, strict=True):
        count = int(model.trained_on(records.num_examples).sum())
        target = compiled(GradientsOf(model, records.measurement))
        example = compiled(GradientsOf(model, records.loss))

        def solved(features: Features, solve: Product = solve, count: int = count) -> Features:
            return lambda batch: solve(features(batch)) / count

        of_targets.append(solved(target))
        of_examples.append(example)
        if relatif:
            scales.append(relatif.scales(example, solved(example), records))
    return FeatureScorer(
        of_targets, of_examples, records, scales=scales or None, modules=models[0].modules
    )


def _products(
    model: Model, records: Records, curvature: Curvature
) -> tuple[Product, Callable[[Float[Array, 'r P'], Key[Array, '']], Float[Array, 'r P']]]:
    """Products with the mean over all examples, and over a batch of them."""
    mask = model.trained_on(records.num_examples)
    rows = jax.tree.map(lambda leaf: leaf[mask], records.examples)
    count = int(mask.sum())
    size = min(records.batch, count)
    of_batch = functools.partial(_of_batch, curvature, records.loss, model)

    def whole(vectors: Float[Array, 'r P']) -> Float[Array, 'r P']:
        total = jnp.zeros_like(vectors)
        for some, batch in batches(rows, size):
            there = np.arange(size) < some.stop - some.start
            total = total + of_batch(vectors, batch, jnp.asarray(there / count, jnp.float32))
        return total

    def sampled(vectors: Float[Array, 'r P'], key: Key[Array, '']) -> Float[Array, 'r P']:
        chosen = np.asarray(jax.random.choice(key, count, (size,), replace=False))
        batch = jax.tree.map(lambda leaf: leaf[chosen], rows)
        return of_batch(vectors, batch, jnp.full(size, 1 / size, jnp.float32))

    return whole, sampled


@functools.partial(jax.jit, static_argnums=(0, 1))
def _of_batch(
    curvature: Curvature,
    loss: str,
    model: Model,
    vectors: Float[Array, 'r P'],
    batch: Batch,
    weights: Float[Array, ' b'],
) -> Float[Array, 'r P']:
    of_one = _gauss_newton if curvature is Curvature.GAUSS_NEWTON else _hessian
    _, unravel = ravel_pytree(model.chosen)

    def product(vector: Float[Array, ' P']) -> Float[Array, ' P']:
        return ravel_pytree(of_one(model, loss, batch, weights, unravel(vector)))[0]

    return jax.vmap(product)(vectors)


def _hessian(
    model: Model,
    measurement: str,
    batch: Batch,
    weights: Float[Array, ' b'],
    tangent: Mapping[str, Array],
) -> Mapping[str, Array]:
    def loss(chosen: Mapping[str, Array]) -> Float[Array, '']:
        return weights @ model.losses(chosen, batch, measurement)

    return jax.jvp(jax.grad(loss), (model.chosen,), (tangent,))[1]


def _gauss_newton(
    model: Model,
    measurement: str,
    batch: Batch,
    weights: Float[Array, ' b'],
    tangent: Mapping[str, Array],
) -> Mapping[str, Array]:
    del measurement  # the loss by the outputs is the task's own

    def outputs(chosen: Mapping[str, Array]) -> Array:
        return model.outputs(chosen, batch)

    def loss(found: Array) -> Float[Array, '']:
        return weights @ model.output_losses(found, batch)

    found, moved = jax.jvp(outputs, (model.chosen,), (tangent,))
    curved = jax.jvp(jax.grad(loss), (found,), (moved,))[1]
    return jax.vjp(outputs, model.chosen)[1](curved)[0]
