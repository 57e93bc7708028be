"""Influence functions of compressed gradients: a few numbers an example, and their own Fisher."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from influence_jax.attribution.features import Times, compiled, features, static
from influence_jax.attribution.layers import Network
from influence_jax.attribution.method import (
    Attribution,
    ExampleFeatures,
    FeatureScorer,
    Records,
    Scorer,
    working_bytes,
)
from influence_jax.attribution.model import Model, flat
from influence_jax.estimators.estimator import Method
from influence_jax.types import Batch, Params

RELATIVE_DAMPING = 0.1
"""Of the mean eigenvalue of a block."""


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

    def draw(self, network: Network, *, key: Key[Array, '']) -> Any:
        """Draws what is random: a pytree of arrays."""

    def blocks(
        self, network: Network, drawn: Any, chosen: Params, batch: Batch
    ) -> list[Float[Array, 'b d']]:
        """Compressed gradients of a batch, block by block."""


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

    def draw(self, network: Network, *, key: Key[Array, '']) -> list[tuple[Array, ...]]:
        """A and B of each layer."""
        return [
            tuple(
                self._side(width, jax.random.fold_in(key, 2 * number + side))
                for side, width in enumerate((layer.inputs, layer.outputs))
            )
            for number, layer in enumerate(network.layers)
        ]

    def blocks(
        self, network: Network, drawn: Any, chosen: Params, batch: Batch
    ) -> list[Float[Array, 'b d']]:
        """See `Compression`."""
        network.check_layers()
        found = network.factors(chosen, batch)
        parts = []
        for number, layer in enumerate(network.layers):
            of_inputs, of_outputs = drawn[number]
            rows = jax.vmap(layer.rows_times, (0, None))(found.inputs[number], of_inputs)
            columns = jax.vmap(layer.columns)(found.gradients[number]) @ of_outputs
            parts.append(jnp.einsum('blr,bls->brs', rows, columns).reshape(len(rows), -1))
        return parts

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

    def draw(self, network: Network, *, key: Key[Array, '']) -> Int[Array, ' d']:
        """Which coordinates are kept."""
        (count,) = self.widths(network)
        return jnp.sort(jax.random.choice(key, self._size(network), (count,), replace=False))

    def blocks(
        self, network: Network, drawn: Any, chosen: Params, batch: Batch
    ) -> list[Float[Array, 'b d']]:
        """See `Compression`."""
        scale = math.sqrt(self._size(network) / len(drawn))
        return [flat(network.gradients(chosen, batch))[:, drawn] * scale]

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
        network = models[0].network(records.examples, records.loss)
        drawn = self.compression.draw(network, key=jax.random.key(self.seed))
        cuts = itertools.accumulate(self.compression.widths(network), initial=0)
        places = [slice(*pair) for pair in itertools.pairwise(cuts)]
        for model in models:
            example, target = (
                _Blocks(model, drawn, name, self.compression)
                for name in (records.loss, records.measurement)
            )
            examples = ExampleFeatures(compiled(example), records, models=len(models))
            mask = model.trained_on(records.num_examples)
            inverses = tuple(
                jnp.asarray(self._inverse(gram, int(mask.sum())), jnp.float32)
                for gram in examples.grams(mask, places)
            )
            of_targets.append(compiled(Times(target, inverses)))
            of_examples.append(examples)
        modules: list[tuple[str, int]] = []
        if self.compression.by_layer:
            names = [layer.module for layer in network.layers]
            modules = list(zip(names, self.compression.widths(network), strict=True))
        return FeatureScorer(of_targets, of_examples, records, modules=modules)

    def _inverse(self, gram: Float[np.ndarray, 'd d'], count: int) -> Float[np.ndarray, 'd d']:
        """Of the Fisher information with damping, over the number of examples."""
        fisher = gram / count
        # Where all gradients are 0, so are the scores, whatever the damping.
        damping = self.damping or RELATIVE_DAMPING * float(np.trace(fisher)) / len(fisher) or 1.0
        return np.linalg.inv(fisher + damping * np.eye(len(fisher))) / count


@features
class _Blocks:
    model: Model
    drawn: Any
    measurement: str = static()
    compression: Compression = static()

    def __call__(self, batch: Batch) -> Float[Array, 'b D']:
        network = self.model.network(batch, self.measurement)
        found = self.compression.blocks(network, self.drawn, self.model.chosen, batch)
        return jnp.concatenate(found, axis=1)
