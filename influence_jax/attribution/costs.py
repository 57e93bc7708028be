"""What a method's scores cost, stage by stage, before any is computed; parameters may be shapes."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from influence_jax.attribution.compression import Compressed
from influence_jax.attribution.gradients import Gradients
from influence_jax.attribution.kfac import KFAC
from influence_jax.attribution.layers import Network
from influence_jax.attribution.method import Attribution, Records, features_fit
from influence_jax.attribution.model import Model
from influence_jax.attribution.trak import TRAK
from influence_jax.types import Batch

_EIGENDECOMPOSITION = 9.0
"""FLOPs over n^3 of all eigenvectors of a symmetric matrix (Golub and Van Loan, section 8.3.5)."""


class Stage(NamedTuple):
    """A part of the work, of one model.

    name: of the stage.
    flops: floating-point operations; products and sums each count, as XLA counts them.
    """

    name: str
    flops: float


class Cost(NamedTuple):
    """Of the scores of all examples for all targets.

    stages: of one model, in order.
    width: numbers that are compared, of a record.
    kept: whether the features of all examples fit `Records.memory`; otherwise they are computed
        once for each block of targets, which the stages count.
    bytes: held at once, the models aside.
    """

    stages: tuple[Stage, ...]
    width: int
    kept: bool
    bytes: int

    @property
    def flops(self) -> float:
        """Of all stages."""
        return sum(stage.flops for stage in self.stages)


@functools.singledispatch
def cost(method: Attribution, model: Model, records: Records) -> Cost:
    """What scores by one model cost; its parameters and the records may be shapes.

    Nothing is computed or compiled: FLOPs of gradients are XLA's count of their trace (a loop
    that is no part of the layers counts once), those of linear algebra follow from sizes.

    Raises:
        TypeError: of this method the cost is not known.
        ValueError: more memory than `Records.memory` allows.
    """
    del model, records
    raise TypeError(f'the cost of {method.method.title} is not known before it runs')


@cost.register
def _of_gradients(method: Gradients, model: Model, records: Records) -> Cost:
    each = _flops(model, records, lambda network: network.gradients)
    return _products(method, model, records, each, each, model.size)


@cost.register
def _of_trak(method: TRAK, model: Model, records: Records) -> Cost:
    size = method.projection_size([model], records)
    each = _flops(model, records, lambda network: network.gradients) + 2.0 * model.size * size
    gram = Stage('products of features', 2.0 * records.num_examples * size**2)
    inverse = Stage('eigenvectors', _EIGENDECOMPOSITION * size**3)
    return _products(method, model, records, each, each, size, (gram, inverse))


@cost.register
def _of_compressed(method: Compressed, model: Model, records: Records) -> Cost:
    network = model.network(records.examples, records.loss)
    widths = method.compression.widths(network)

    def compute(network: Network) -> Callable[..., Any]:
        drawn = method.compression.draw(network, key=jax.random.key(0))
        return functools.partial(method.compression.blocks, network, drawn)

    each = _flops(model, records, compute)
    grams = Stage('products of features', 2.0 * records.num_examples * _sum(widths, 2))
    inverse = Stage('eigenvectors', _EIGENDECOMPOSITION * _sum(widths, 3))
    return _products(method, model, records, each, each, sum(widths), (grams, inverse))


@cost.register
def _of_kfac(method: KFAC, model: Model, records: Records) -> Cost:
    layers = model.network(records.examples, records.loss).layers
    width = sum(layer.inputs * layer.outputs for layer in layers)
    turned = sum(
        4.0 * layer.inputs * layer.outputs * (layer.inputs + layer.outputs) for layer in layers
    )
    each = _flops(model, records, lambda network: network.blocks)
    squares = sum(layer.inputs**2 + layer.outputs**2 for layer in layers)
    cubes = sum(float(layer.inputs) ** 3 + float(layer.outputs) ** 3 for layer in layers)
    trained_on = int(model.trained_on(records.num_examples).sum())
    positions = _positions(model, records)
    before = [
        Stage('factors', trained_on * (each + 2.0 * positions * squares)),
        Stage('eigenvectors', _EIGENDECOMPOSITION * cubes),
    ]
    if method.corrected:
        before.append(Stage('corrected eigenvalues', trained_on * (each + turned / 2)))
    return _products(method, model, records, each + turned, each, width, tuple(before))


def _products(
    method: Attribution,
    model: Model,
    records: Records,
    of_target: float,
    of_example: float,
    width: int,
    before: tuple[Stage, ...] = (),
) -> Cost:
    """Of features that are compared by their inner products."""
    records = dataclasses.replace(records, block=method.target_block([model], records))
    held = method.bytes_needed([model], records)
    kept = features_fit(width, records, models=1)
    passes = 1 if kept else math.ceil(records.num_targets / records.block)
    stages = (
        *before,
        Stage("targets' features", records.num_targets * of_target),
        Stage("examples' features", passes * records.num_examples * of_example),
        Stage('products', 2.0 * records.num_examples * records.num_targets * width),
    )
    return Cost(stages, width, kept, held + (4 * records.num_examples * width if kept else 0))


def _flops(
    model: Model, records: Records, compute: Callable[[Network], Callable[..., Any]]
) -> float:
    """Of one record."""
    network = model.network(records.examples, records.loss)
    one = _shapes(records.examples)
    # As for a TPU: a CPU's kernels hide from XLA what they compute.
    lowered = jax.jit(compute(network)).trace(model.chosen, one).lower(lowering_platforms=('tpu',))
    analysis: Any = lowered.cost_analysis()
    return float(analysis['flops'])


def _positions(model: Model, records: Records) -> int:
    """The most positions at which a layer is used, of one record."""
    network = model.network(records.examples, records.loss)
    found = jax.eval_shape(network.factors, model.chosen, _shapes(records.examples))
    lengths = [
        jax.eval_shape(layer.columns, jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)).shape[0]
        for layer, leaf in zip(network.layers, found.gradients, strict=True)
    ]
    return max(lengths, default=1)


def _shapes(examples: Batch) -> Batch:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), examples
    )


def _sum(widths: list[int], power: int) -> float:
    return float(np.sum(np.asarray(widths, np.float64) ** power))
