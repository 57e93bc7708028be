"""A multilayer perceptron for the rows of a table."""

import dataclasses
import itertools

import jax
from flax import nnx
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """Shape of an `MLP`; called with `nnx.Rngs` it builds one.

    Attributes:
        features: width of the input.
        outputs: width of the output: classes, or numbers to predict.
        hidden: widths of the layers between.
    """

    features: int
    outputs: int
    hidden: tuple[int, ...] = (64,)

    def __post_init__(self) -> None:
        if min(self.features, self.outputs, *self.hidden) < 1:
            raise ValueError(f'all widths must be at least 1: {self}')

    def __call__(self, rngs: nnx.Rngs) -> 'MLP':
        """Builds a fresh network."""
        return MLP(self, rngs=rngs)


class MLP(nnx.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, config: MLPConfig, *, rngs: nnx.Rngs) -> None:
        widths = (config.features, *config.hidden, config.outputs)
        self.layers = nnx.List(
            [
                nnx.Linear(inputs, outputs, rngs=rngs)
                for inputs, outputs in itertools.pairwise(widths)
            ]
        )

    def __call__(self, x: Float[Array, 'B features']) -> Float[Array, 'B outputs']:
        """Outputs of the last layer."""
        *layers, last = self.layers
        for layer in layers:
            x = jax.nn.relu(layer(x))
        return last(x)
