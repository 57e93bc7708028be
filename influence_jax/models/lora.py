"""Low-rank adapters (LoRA, arXiv 2106.09685): small changes of matrices that stay as they are.

The K members of a big model share one frozen base and train an adapter each: `jax.vmap` over
adapters alone leaves the base's matmuls one matmul over the rows of all K.
"""

import dataclasses
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from influence_jax.trees import map_named, named
from influence_jax.types import Params, PRNGKey

Adapters = dict[str, Any]
"""Nested dictionaries with the names of the base's parameters; an `Adapter` at each matrix."""


class Adapter(NamedTuple):
    """A change A B of a matrix W: x (W + A B) = x W + (x A) B."""

    a: Float[Array, '... I R']
    b: Float[Array, '... R O']

    def __call__(self, x: Float[Array, '... I']) -> Float[Array, '... O']:
        """What it adds to x W."""
        return (x @ self.a.astype(x.dtype)) @ self.b.astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Which matrices are adapted, and how.

    Attributes:
        rank: R.
        alpha: the change is (alpha / rank) A B.
        matrices: paths of the matrices; the default is the paper's own choice (section 4.2).

    Raises:
        ValueError: rank is less than 1, or no matrix is named.
    """

    rank: int = 8
    alpha: float = 16.0
    matrices: tuple[str, ...] = ('layers/attention/query', 'layers/attention/value')

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f'rank must be at least 1, not {self.rank}')
        if not self.matrices:
            raise ValueError('no matrix is named: nothing would be trained')

    def init(self, base: Params, *, key: PRNGKey) -> Adapters:
        """Fresh adapters, which change nothing yet: A is normal of variance 1 / I, B is zero.

        Args:
            base: parameters, or their shapes.
            key: each matrix has a key of its own, whichever others are adapted.

        Raises:
            ValueError: a path is not that of stacked matrices `[L I O]`.
        """
        adapters: Adapters = {}
        for path, (layers, inputs, outputs) in self._shapes(base).items():
            of_path = jax.random.fold_in(key, zlib.crc32(path.encode()))
            a = jax.random.normal(of_path, (layers, inputs, self.rank)) * inputs**-0.5
            *parents, name = path.split('/')
            node = adapters
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = Adapter(a, jnp.zeros((layers, self.rank, outputs)))
        return adapters

    def scaled(self, adapters: Adapters) -> Adapters:
        """With alpha / rank taken into B: what the network's `adapters` are."""
        return jax.tree.map(
            lambda adapter: Adapter(adapter.a, adapter.b * (self.alpha / self.rank)),
            adapters,
            is_leaf=_is_adapter,
        )

    def merge(self, base: Params, adapters: Adapters) -> Params:
        """Parameters W + (alpha / rank) A B: a full checkpoint that needs no adapters."""
        changes = _by_path(self.scaled(adapters))

        def merged(path: str, weight: Array) -> Array:
            change = changes.get(path)
            return weight if change is None else weight + change.a @ change.b

        return map_named(merged, base)

    def parameter_count(self, base: Params) -> int:
        """How many numbers one member trains.

        Args:
            base: parameters, or their shapes.

        Raises:
            ValueError: as `init`.
        """
        shapes = self._shapes(base).values()
        return sum(layers * self.rank * (ins + outs) for layers, ins, outs in shapes)

    def _shapes(self, base: Params) -> dict[str, tuple[int, int, int]]:
        shapes = {path: leaf.shape for path, leaf in named(base).items()}
        stacked = {path: shape for path, shape in shapes.items() if len(shape) == 3}
        for path in self.matrices:
            if path not in stacked:
                raise ValueError(
                    f'there is no matrix {path!r} to adapt; there are {", ".join(stacked)}'
                )
        return {path: stacked[path] for path in self.matrices}


def _is_adapter(node: Any) -> bool:
    return isinstance(node, Adapter)


def _by_path(adapters: Adapters) -> dict[str, Adapter]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(adapters, is_leaf=_is_adapter)
    return {'/'.join(key.key for key in path): leaf for path, leaf in leaves}
