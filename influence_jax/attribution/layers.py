"""The linear layers of a network, found in its trace: what enters each one, and what leaves it.

Every gradient by a weight matrix is a product of the layer's inputs and of the gradients by its
outputs, x^T g summed over positions. Both are read off the trace of one example's loss, so that any
network made of matrix products, convolutions and embeddings will do: modules need no hooks and no
registration. A bias that is added to a layer's output counts as one more input that is always 1
(the homogeneous coordinate of Martens and Grosse 2015, arXiv 1503.05671).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from influence_jax.attribution.trace import Found, Kind, Linear, Value, View, Walk, same
from influence_jax.trees import map_named, module_of, named
from influence_jax.types import Batch, Params


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One use of a weight: outputs = inputs @ block, at L positions of an example.

    Attributes:
        name: path of the parameter, with a number where it is used more than once.
        path: of the parameter that the weight is, or is a part of.
        bias: path of the parameter that is added to the outputs; None where none is.
        kind: of the layer.
        inputs: I, rows of the block, that of the bias included.
        outputs: O, its columns.
    """

    name: str
    path: str
    bias: str | None
    kind: Kind
    inputs: int
    outputs: int
    _rows: Callable[[Array], Array]
    _columns: Callable[[Array], Array]
    _views: Mapping[str, Linear]

    @property
    def module(self) -> str:
        """What the weight is a parameter of."""
        return module_of(self.path)

    def rows(self, x: Array) -> Float[Array, 'L I']:
        """What enters, a row a position; a one for the bias; one-hot for an embedding."""
        rows = self._rows(x)
        if self.kind is Kind.EMBEDDING:
            rows = jax.nn.one_hot(rows, self.inputs, dtype=jnp.float32)
        if self.bias is None:
            return rows
        return jnp.concatenate([rows, jnp.ones((len(rows), 1), rows.dtype)], axis=1)

    def rows_times(self, x: Array, matrix: Float[Array, 'I r']) -> Float[Array, 'L r']:
        """`rows(x) @ matrix`, by a look-up for an embedding."""
        if self.kind is Kind.EMBEDDING and self.bias is None:
            return matrix[self._rows(x)]
        return self.rows(x) @ matrix

    def columns(self, gradient: Array) -> Float[Array, 'L O']:
        """Gradients by what leaves, a row a position."""
        return self._columns(gradient)

    def gradient(self, x: Array, gradient: Array) -> Float[Array, 'I O']:
        """Gradient by the block of one example."""
        columns = self.columns(gradient)
        if self.kind is Kind.EMBEDDING:
            return (
                jnp.zeros((self.inputs, self.outputs), columns.dtype).at[self._rows(x)].add(columns)
            )
        return self.rows(x).T @ columns

    def block(self, params: Mapping[str, Array]) -> Float[Array, 'I O']:
        """The block of a tree of parameters, or of gradients, given by paths."""
        weight = self._views[self.path](params[self.path])
        if self.bias is None:
            return weight
        return jnp.concatenate([weight, self._views[self.bias](params[self.bias])[None]])

    def leaves(
        self, block: Float[Array, 'I O'], shapes: Mapping[str, jax.ShapeDtypeStruct]
    ) -> dict[str, Array]:
        """The transpose of `block`: parameters that are this block, and 0 elsewhere."""
        paths = [self.path] if self.bias is None else [self.path, self.bias]
        given = {path: shapes[path] for path in paths}
        (found,) = jax.linear_transpose(self.block, given)(block)
        return found


class Factors(NamedTuple):
    """Of a batch of B examples.

    loss: `[B]`.
    inputs: of each layer, what entered it.
    gradients: of each layer, the loss's gradients by what left it.
    others: gradients `[B ...]` by the parameters that no layer uses, by path.
    """

    loss: Float[Array, ' B']
    inputs: tuple[Array, ...]
    gradients: tuple[Array, ...]
    others: dict[str, Array]


class Network:
    """The loss of one example as a function of parameters, its linear layers known.

    Attributes:
        layers: all layers, in the order in which they are passed.
        others: paths of the parameters that are used outside of layers, such as scales of norms.
        shapes: of all parameters, by path.
    """

    def __init__(self, loss: Callable[[Params, Any], Array], params: Params, example: Any) -> None:
        """Traces `loss(params, example)`, a number; arguments may be shapes."""
        self._loss = loss
        closed, self._tree = jax.make_jaxpr(lambda p, e: loss(p, e), return_shape=True)(
            params, example
        )
        self._closed = closed
        self.shapes = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for path, leaf in named(params).items()
        }
        walk = Walk(None)
        jax.eval_shape(lambda p, e: self._run(walk, p, e), params, example)
        self.layers = _layers(walk.found)
        self.others = tuple(path for path in self.shapes if path in walk.elsewhere)
        self._outputs = tuple(walk.shapes)
        self._hidden = walk.hidden

    def check_layers(self) -> None:
        """Refuses (ValueError) weights in a loop or a branch, whose layers cannot be seen."""
        for path, name in self._hidden.items():
            raise ValueError(
                f'{path} enters a {name}, inside of which layers are not known: use lax.scan or a '
                f'Python loop there, leave it out (blocks=), or use a method of whole gradients'
            )

    def factors(self, params: Params, batch: Batch) -> Factors:
        """Inputs and gradients of every layer, example by example, in one pass."""

        def of_one(example: Any) -> tuple[Array, Any, Any]:
            def loss(others: dict[str, Array], shifts: list[Array]) -> tuple[Array, list[Array]]:
                walk = Walk(shifts)
                given = map_named(lambda path, leaf: others.get(path, leaf), params)
                return self._run(walk, given, example), walk.inputs

            flat = named(params)
            others = {path: jnp.asarray(flat[path]) for path in self.others}
            shifts = [jnp.zeros(out.shape, out.dtype) for out in self._outputs]
            (value, inputs), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
                others, shifts
            )
            return value, inputs, gradients

        value, inputs, (others, shifts) = jax.vmap(of_one)(batch)
        return Factors(value, tuple(inputs), tuple(shifts), others)

    def blocks(self, params: Params, batch: Batch) -> list[Float[Array, 'B I O']]:
        """The gradient of each example by the block of each layer; raises as `check_layers`."""
        self.check_layers()
        found = self.factors(params, batch)
        return [
            jax.vmap(layer.gradient)(x, gradient)
            for layer, x, gradient in zip(self.layers, found.inputs, found.gradients, strict=True)
        ]

    def gradients(self, params: Params, batch: Batch) -> dict[str, Float[Array, 'B ...']]:
        """The gradient of each example by every parameter, by path."""
        found = self.factors(params, batch)
        whole = dict(found.others)
        for layer, x, gradient in zip(self.layers, found.inputs, found.gradients, strict=True):

            def leaves(x: Array, g: Array, layer: Layer = layer) -> dict[str, Array]:
                return layer.leaves(layer.gradient(x, g), self.shapes)

            for path, leaf in jax.vmap(leaves)(x, gradient).items():
                whole[path] = whole[path] + leaf if path in whole else leaf
        count = len(found.loss)
        return {
            path: whole[path] if path in whole else jnp.zeros((count, *of.shape), of.dtype)
            for path, of in self.shapes.items()
        }

    def _run(self, walk: Walk, params: Params, example: Any) -> Array:
        leaves = [
            Value(leaf, View(path, same, math.prod(jnp.shape(leaf))))
            for path, leaf in named(params).items()
        ]
        rows = [Value(leaf) for leaf in jax.tree.leaves(example)]
        consts = [Value(const) for const in self._closed.consts]
        (value,) = walk.through(self._closed.jaxpr, consts, [*leaves, *rows])
        return value.value


def _layers(all_found: Sequence[Found]) -> tuple[Layer, ...]:
    uses = [found.path for found in all_found]
    numbered, made = dict.fromkeys(uses, 0), []
    for found in all_found:
        name = found.path
        if uses.count(found.path) > 1:
            name = f'{found.path}#{numbered[found.path]}'
            numbered[found.path] += 1
        views = {found.path: found.view}
        if found.bias is not None:
            views[found.bias[0]] = found.bias[1]
        made.append(
            Layer(
                name,
                found.path,
                None if found.bias is None else found.bias[0],
                found.kind,
                found.inputs + (found.bias is not None),
                found.outputs,
                found.rows,
                found.columns,
                views,
            )
        )
    return tuple(made)
