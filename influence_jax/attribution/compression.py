"""Influence functions of compressed gradients: a few numbers an example, and their own Fisher."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from influence_jax.attribution.layers import Network
from influence_jax.attribution.method import (
    Attribution,
    ExampleFeatures,
    Features,
    FeatureScorer,
    Records,
    Scorer,
    working_bytes,
)
from influence_jax.attribution.model import Model, flat
from influence_jax.estimators.estimator import Method
from influence_jax.types import Batch

RELATIVE_DAMPING = 0.1
"""Of the mean eigenvalue of a block."""

Blocks = Callable[[Any, Batch], list[Float[Array, 'b d']]]
"""From parameters and a batch to compressed gradients, block by block."""


@runtime_checkable
class Compression(Protocol):
    """How gradients are made small; implementations are frozen dataclasses."""

    @property
    def method(self) -> Method:
        """Its name and what its scores are, in words."""

    def widths(self, network: Network) -> list[int]:
        """How many numbers each block has."""

    @property
    def by_layer(self) -> bool:
        """Whether each block is of one layer, in their order."""

    def blocks(self, network: Network, *, key: Key[Array, '']) -> Blocks:
        """Draws what is random."""


@dataclasses.dataclass(frozen=True)
class LoGra:
    """Each layer's inputs and output gradients, both projected (Choe et al. 2024, 2405.13954).

    The gradient of a layer, x^T g summed over positions, becomes (x A)^T (g B) with Gaussian A and
    B, and is never there as a whole. Parameters outside of linear layers stay fixed.

    Attributes:
        rank: columns of A and of B; a side that is no wider is kept as it is.
    """

    rank: int = 16

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f'rank={self.rank} must be at least 1')

    @property
    def method(self) -> Method:
        """See `Compression`."""
        return Method('logra', 'LoGra', 'the influence function of gradients projected by LoGra')

    @property
    def by_layer(self) -> bool:
        """See `Compression`."""
        return True

    def widths(self, network: Network) -> list[int]:
        """See `Compression`."""
        return [
            min(self.rank, layer.inputs) * min(self.rank, layer.outputs) for layer in network.layers
        ]

    def blocks(self, network: Network, *, key: Key[Array, '']) -> Blocks:
        """See `Compression`."""
        sides = [
            tuple(
                self._side(width, jax.random.fold_in(key, 2 * number + side))
                for side, width in enumerate((layer.inputs, layer.outputs))
            )
            for number, layer in enumerate(network.layers)
        ]

        def compute(chosen: Any, batch: Batch) -> list[Float[Array, 'b d']]:
            network.check_layers()
            found = network.factors(chosen, batch)
            parts = []
            for number, layer in enumerate(network.layers):
                of_inputs, of_outputs = sides[number]
                rows = jax.vmap(layer.rows_times, (0, None))(found.inputs[number], of_inputs)
                columns = jax.vmap(layer.columns)(found.gradients[number]) @ of_outputs
                parts.append(jnp.einsum('blr,bls->brs', rows, columns).reshape(len(rows), -1))
            return parts

        return compute

    def _side(self, width: int, key: Key[Array, '']) -> Float[Array, 'width r']:
        if width <= self.rank:
            return jnp.eye(width)
        return jax.random.normal(key, (width, self.rank)) / math.sqrt(self.rank)


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Random coordinates of the gradient, scaled so that products keep their expectation.

    Our reconstruction of dropout-style compression, of which there is no public code.

    Attributes:
        count: of coordinates; all of them where there are fewer.
    """

    count: int = 1024

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f'count={self.count} must be at least 1')

    @property
    def method(self) -> Method:
        """See `Compression`."""
        return Method(
            'dropout',
            'dropout compression',
            'the influence function of random coordinates of gradients (reconstruction)',
        )

    @property
    def by_layer(self) -> bool:
        """See `Compression`."""
        return False

    def widths(self, network: Network) -> list[int]:
        """See `Compression`."""
        return [min(self.count, self._size(network))]

    def blocks(self, network: Network, *, key: Key[Array, '']) -> Blocks:
        """See `Compression`."""
        size, (count,) = self._size(network), self.widths(network)
        kept = jnp.sort(jax.random.choice(key, size, (count,), replace=False))

        def compute(chosen: Any, batch: Batch) -> list[Float[Array, 'b d']]:
            whole = flat(network.gradients(chosen, batch))
            return [whole[:, kept] * math.sqrt(size / count)]

        return compute

    def _size(self, network: Network) -> int:
        return sum(math.prod(shape.shape) for shape in network.shapes.values())


@dataclasses.dataclass(frozen=True)
class Compressed(Attribution):
    """score(i, t) = sum over blocks of c_t (F + damping)^-1 c_i / n.

    c are compressed gradients, F their second moment over the n examples that the model was
    trained on (the empirical Fisher information): what removing i adds to the measurement, roughly.

    Attributes:
        compression: of gradients.
        damping: added to every eigenvalue; by default a tenth of each block's mean eigenvalue.
        seed: of what the compression draws, the same for all models.
    """

    compression: Compression = dataclasses.field(default_factory=LoGra)
    damping: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.damping is not None and not self.damping > 0:
            raise ValueError(f'damping={self.damping} must be positive')

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return self.compression.method

    def unit(self, model: Model, records: Records) -> str:
        """See `Attribution`."""
        return model.unit(records.measurement)

    @property
    def linear_in_targets(self) -> bool:
        """See `Attribution`."""
        return True

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """Compressed gradients, the Fisher information of blocks, a batch of whole gradients."""
        widths = self.compression.widths(models[0].network(records.examples, records.loss))
        squares = sum(width**2 for width in widths)
        gradients = 8 * models[0].size * records.batch
        return working_bytes(sum(widths), records) + gradients + (4 * len(models) + 24) * squares

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        of_targets, of_examples = [], []
        for model in models:
            network = model.network(records.examples, records.loss)
            starts = np.cumsum([0, *self.compression.widths(network)])
            places = [slice(*pair) for pair in itertools.pairwise(starts)]
            examples = ExampleFeatures(self._features(model, network), records, models=len(models))
            mask = model.trained_on(records.num_examples)
            inverses = [
                self._inverse(gram, int(mask.sum())) for gram in examples.grams(mask, places)
            ]
            target = self._features(model, model.network(records.targets, records.measurement))
            of_targets.append(_times(target, inverses, places))
            of_examples.append(examples)
        modules: list[tuple[str, int]] = []
        if self.compression.by_layer:
            network = models[0].network(records.examples, records.loss)
            names = [layer.module for layer in network.layers]
            modules = list(zip(names, self.compression.widths(network), strict=True))
        return FeatureScorer(of_targets, of_examples, records, modules=modules)

    def _features(self, model: Model, network: Network) -> Features:
        blocks = self.compression.blocks(network, key=jax.random.key(self.seed))
        chosen = model.chosen
        return jax.jit(lambda batch: jnp.concatenate(blocks(chosen, batch), axis=1))

    def _inverse(self, gram: Float[np.ndarray, 'd d'], count: int) -> Float[np.ndarray, 'd d']:
        """Of the Fisher information with damping, over the number of examples."""
        fisher = gram / count
        # Where all gradients are 0, so are the scores, whatever the damping.
        damping = self.damping or RELATIVE_DAMPING * float(np.trace(fisher)) / len(fisher) or 1.0
        return np.linalg.inv(fisher + damping * np.eye(len(fisher))) / count


def _times(
    features: Features, inverses: Sequence[Float[np.ndarray, '_ _']], places: Sequence[slice]
) -> Features:
    matrices = [jnp.asarray(inverse, jnp.float32) for inverse in inverses]

    @jax.jit
    def solved(batch: Batch) -> Float[Array, 'b D']:
        found = features(batch)
        parts = [found[:, place] @ one for place, one in zip(places, matrices, strict=True)]
        return jnp.concatenate(parts, axis=1)

    return solved
