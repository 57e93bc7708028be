"""The linear layers of a network, found in its trace: what enters each one, and what leaves it.

Every gradient by a weight matrix is a product of the layer's inputs and of the gradients by its
outputs, x^T g summed over positions. Both are read off the trace of one example's loss, so that any
network made of matrix products, convolutions and embeddings will do: modules need no hooks and no
registration. A bias that is added to a layer's output counts as one more input that is always 1
(the homogeneous coordinate of Martens and Grosse 2015, arXiv 1503.05671).
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jaxtyping import Array, Float

from influence_jax.trees import map_named, named
from influence_jax.types import Batch, Params

Linear = Callable[[Array], Array]


class Kind(enum.Enum):
    """What a layer does with its weight."""

    DENSE = 'matrix product'
    CONVOLUTION = 'convolution'
    EMBEDDING = 'embedding'


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

    def rows(self, x: Array) -> Float[Array, 'L I']:
        """What enters, a row a position; a one for the bias; one-hot for an embedding."""
        rows = self._rows(x)
        if self.kind is Kind.EMBEDDING:
            rows = jax.nn.one_hot(rows, self.inputs, dtype=jnp.float32)
        if self.bias is None:
            return rows
        return jnp.concatenate([rows, jnp.ones((len(rows), 1), rows.dtype)], axis=1)

    def columns(self, gradient: Array) -> Float[Array, 'L O']:
        """Gradients by what leaves, a row a position."""
        return self._columns(gradient)

    def gradient(self, x: Array, gradient: Array) -> Float[Array, 'I O']:
        """Gradient by the block of one example."""
        columns = self.columns(gradient)
        if self.kind is Kind.EMBEDDING:
            return jnp.zeros((self.inputs, self.outputs), columns.dtype).at[self._rows(x)].add(columns)
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
        walk = _Walk(None)
        jax.eval_shape(lambda p, e: self._run(walk, p, e), params, example)
        self.layers = walk.layers()
        self.others = tuple(path for path in self.shapes if path in walk.elsewhere)
        self._outputs = tuple(walk.shapes)

    def factors(self, params: Params, batch: Batch) -> Factors:
        """Inputs and gradients of every layer, example by example, in one pass."""

        def of_one(example: Any) -> tuple[Array, Any, Any]:
            def loss(others: dict[str, Array], shifts: list[Array]) -> tuple[Array, list[Array]]:
                walk = _Walk(shifts)
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
        """The gradient of each example by the block of each layer."""
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
        return {path: whole[path] for path in self.shapes}

    def _run(self, walk: '_Walk', params: Params, example: Any) -> Array:
        leaves = [
            _Value(leaf, _View(path, _same, math.prod(jnp.shape(leaf))))
            for path, leaf in named(params).items()
        ]
        rows = [_Value(leaf, None) for leaf in jax.tree.leaves(example)]
        consts = [_Value(const, None) for const in self._closed.consts]
        (value,) = walk.through(self._closed.jaxpr, consts, [*leaves, *rows])
        return value.value


class _View(NamedTuple):
    """A parameter, or a part of it, in another shape.

    path: of the parameter.
    of: from the parameter to this.
    size: how many entries of it; fewer than the view's own where these are repeated.
    """

    path: str
    of: Linear
    size: int


class _Output(NamedTuple):
    """What left the layer of this number, in any shape."""

    layer: int


class _Value(NamedTuple):
    value: Any
    origin: _View | _Output | None


@dataclasses.dataclass
class _Found:
    path: str
    kind: Kind
    inputs: int
    outputs: int
    rows: Linear
    columns: Linear
    view: Linear
    bias: tuple[str, Linear] | None = None


_RESHAPED = frozenset(
    {'reshape', 'squeeze', 'expand_dims', 'convert_element_type', 'copy', 'copy_p'}
)
_PARTS = _RESHAPED | {'slice', 'transpose', 'broadcast_in_dim', 'optimization_barrier'}
_CALLS = {
    'jit': 'jaxpr',
    'pjit': 'jaxpr',
    'closed_call': 'call_jaxpr',
    'custom_jvp_call': 'call_jaxpr',
    'custom_vjp_call': 'call_jaxpr',
    'remat2': 'jaxpr',
    'checkpoint': 'jaxpr',
}


class _Walk:
    """One pass through a trace; the same layers are met in the same order every time.

    shifts: what is added to the outputs of each layer; None to add nothing.
    """

    def __init__(self, shifts: Sequence[Array] | None) -> None:
        self._shifts = shifts
        self._found: list[_Found] = []
        self.inputs: list[Array] = []
        self.shapes: list[jax.ShapeDtypeStruct] = []
        self.elsewhere: set[str] = set()

    def layers(self) -> tuple[Layer, ...]:
        uses = [found.path for found in self._found]
        numbered, made = dict.fromkeys(uses, 0), []
        for found in self._found:
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

    def through(
        self, jaxpr: core.Jaxpr, consts: Sequence[_Value], arguments: Sequence[_Value]
    ) -> list[_Value]:
        values: dict[Any, _Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        values |= zip(jaxpr.invars, arguments, strict=True)

        def read(variable: Any) -> _Value:
            if isinstance(variable, core.Literal):
                return _Value(variable.val, None)
            return values[variable]

        for equation in jaxpr.eqns:
            found = self._equation(equation, [read(v) for v in equation.invars])
            values |= zip(equation.outvars, found, strict=True)
        outputs = [read(v) for v in jaxpr.outvars]
        return outputs

    def _equation(self, equation: Any, given: list[_Value]) -> list[_Value]:
        name = equation.primitive.name
        views = [value.origin for value in given if isinstance(value.origin, _View)]
        if not views:
            outputs = _bound(equation, given)
            return self._reshaped(name, given, outputs)
        if len(views) == len(given) == 1 and name in _PARTS:
            return [_part(equation, given[0])]
        layer = _as_layer(equation, given)
        if layer is not None:
            return [self._pass(equation, given, *layer)]
        if name in ('add', 'add_any') and (found := self._bias(given)) is not None:
            (output,) = _bound(equation, given)
            layer_found, view = found
            layer_found.bias = view.path, view.of
            return [output]
        inner = equation.params.get(_CALLS.get(name, ''))
        if inner is not None:
            closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
            consts = [_Value(const, None) for const in closed.consts]
            return self.through(closed.jaxpr, consts, given)
        self.elsewhere |= {view.path for view in views}
        return _bound(equation, given)

    def _reshaped(
        self, name: str, given: list[_Value], outputs: list[_Value]
    ) -> list[_Value]:
        """Outputs of a layer remain known for what they are while only their shape changes."""
        if len(given) == len(outputs) == 1 and name in _RESHAPED:
            return [outputs[0]._replace(origin=given[0].origin)]
        return outputs

    def _pass(self, equation: Any, given: list[_Value], found: _Found, place: int) -> _Value:
        (output,) = _bound(equation, given)
        number = len(self._found)
        self._found.append(found)
        self.inputs.append(given[place].value)
        self.shapes.append(jax.ShapeDtypeStruct(jnp.shape(output.value), output.value.dtype))
        value = output.value if self._shifts is None else output.value + self._shifts[number]
        return _Value(value, _Output(number))

    def _bias(self, given: list[_Value]) -> tuple[_Found, _View] | None:
        outputs = [value for value in given if isinstance(value.origin, _Output)]
        views = [value for value in given if isinstance(value.origin, _View)]
        if len(outputs) != 1 or len(views) != 1:
            return None
        found, view = self._found[outputs[0].origin.layer], views[0].origin
        shape = jnp.shape(views[0].value)
        last = shape[-1] if shape else 0
        fits = view.size == found.outputs == last == jnp.shape(outputs[0].value)[-1]
        if not fits or found.bias is not None:
            return None
        of = view.of

        def vector(leaf: Array) -> Array:
            return of(leaf).reshape(-1, last)[0]

        return found, view._replace(of=vector)


def _same(leaf: Array) -> Array:
    return leaf


def _bound(equation: Any, given: list[_Value]) -> list[_Value]:
    values = [value.value for value in given]
    found = equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))
    return [
        _Value(value, None)
        for value in (found if equation.primitive.multiple_results else [found])
    ]


def _part(equation: Any, given: _Value) -> _Value:
    """A view of a view."""
    origin, (output,) = given.origin, _bound(equation, [given])
    before, size = origin.of, min(origin.size, math.prod(jnp.shape(output.value)))

    def of(leaf: Array) -> Array:
        return _bound(equation, [_Value(before(leaf), None)])[0].value

    return _Value(output.value, _View(origin.path, of, size))


def _as_layer(equation: Any, given: list[_Value]) -> tuple[_Found, int] | None:
    """The layer that an equation is, and which operand is its input; None where it is none."""
    inner = equation
    if equation.primitive.name in ('custom_vjp_call', 'custom_jvp_call'):
        # A product with a gradient of its own: it is kept, and known by what it computes.
        closed = equation.params['call_jaxpr']
        if len(closed.jaxpr.eqns) != 1 or closed.jaxpr.eqns[0].invars != closed.jaxpr.invars:
            return None
        inner = closed.jaxpr.eqns[0]
    make = _LAYERS.get(inner.primitive.name)
    if make is None or len(given) != 2:
        return None
    weights = [place for place, v in enumerate(given) if isinstance(v.origin, _View)]
    if len(weights) != 1:
        return None
    (place,) = weights
    weight, x = given[place], given[1 - place]
    view = weight.origin
    if view.size != math.prod(jnp.shape(weight.value)):
        return None  # repeated entries are no free weights
    found = make(inner.params, weight, x, place)
    return None if found is None else (found, 1 - place)


def _dense(params: Mapping[str, Any], weight: _Value, x: _Value, place: int) -> _Found | None:
    contracted, batched = params['dimension_numbers']
    if batched[place]:
        return None
    of_x, of_weight = contracted[1 - place], contracted[place]
    x_shape, shape = jnp.shape(x.value), jnp.shape(weight.value)
    x_rest = [axis for axis in range(len(x_shape)) if axis not in of_x]
    rest = [axis for axis in range(len(shape)) if axis not in of_weight]
    inputs = math.prod(shape[axis] for axis in of_weight)
    outputs = math.prod(shape[axis] for axis in rest)
    view = weight.origin.of
    positions = len(x_rest)

    def rows(x: Array) -> Array:
        return x.transpose(*x_rest, *of_x).reshape(-1, inputs)

    def columns(gradient: Array) -> Array:
        if place == 0:  # the weight is the left factor: its axes come first
            split = gradient.ndim - positions
            gradient = jnp.moveaxis(gradient, range(split), range(-split, 0)) if split else gradient
        return gradient.reshape(-1, outputs)

    def as_matrix(leaf: Array) -> Array:
        return view(leaf).transpose(*of_weight, *rest).reshape(inputs, outputs)

    return _Found(weight.origin.path, Kind.DENSE, inputs, outputs, rows, columns, as_matrix)


def _convolution(params: Mapping[str, Any], weight: _Value, x: _Value, place: int) -> _Found | None:
    if place != 1 or params['feature_group_count'] != 1 or params['batch_group_count'] != 1:
        return None
    numbers, strides, padding = (
        params['dimension_numbers'],
        params['window_strides'],
        params['padding'],
    )
    dilation, spread = params['rhs_dilation'], params['lhs_dilation']
    shape = [jnp.shape(weight.value)[axis] for axis in numbers.rhs_spec]  # O I spatial
    outputs, channels, *window = shape
    inputs = channels * math.prod(window)
    view = weight.origin.of

    def rows(x: Array) -> Array:
        x = x.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
        config = [(0, 0, 0)]
        config += [(*pad, step - 1) for pad, step in zip(padding, spread, strict=True)]
        x = lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)])
        sizes = [
            (size - (width - 1) * apart - 1) // stride + 1
            for size, width, apart, stride in zip(
                x.shape[1:-1], window, dilation, strides, strict=True
            )
        ]
        patches = []
        for offset in _offsets(window):
            start = [at * apart for at, apart in zip(offset, dilation, strict=True)]
            stop = [
                first + (size - 1) * stride + 1
                for first, size, stride in zip(start, sizes, strides, strict=True)
            ]
            patches.append(
                lax.slice(
                    x,
                    (0, *start, 0),
                    (x.shape[0], *stop, x.shape[-1]),
                    (1, *strides, 1),
                )
            )
        return jnp.concatenate(patches, axis=-1).reshape(-1, inputs)

    def columns(gradient: Array) -> Array:
        spec = numbers.out_spec
        return gradient.transpose(spec[0], *spec[2:], spec[1]).reshape(-1, outputs)

    def as_matrix(leaf: Array) -> Array:
        spec = numbers.rhs_spec
        return view(leaf).transpose(*spec[2:], spec[1], spec[0]).reshape(inputs, outputs)

    return _Found(weight.origin.path, Kind.CONVOLUTION, inputs, outputs, rows, columns, as_matrix)


def _offsets(window: Sequence[int]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for width in window:
        found = [(*before, at) for before in found for at in range(width)]
    return found


def _embedding(params: Mapping[str, Any], table: _Value, x: _Value, place: int) -> _Found | None:
    numbers, shape = params['dimension_numbers'], jnp.shape(table.value)
    whole_rows = (
        place == 0
        and len(shape) == 2
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and tuple(params['slice_sizes']) == (1, shape[1])
        and tuple(numbers.offset_dims) == (len(jnp.shape(x.value)) - 1,)
    )
    if not whole_rows:
        return None
    inputs, outputs = shape

    def rows(x: Array) -> Array:
        return x.reshape(-1)

    def columns(gradient: Array) -> Array:
        return gradient.reshape(-1, outputs)

    view = table.origin.of
    return _Found(table.origin.path, Kind.EMBEDDING, inputs, outputs, rows, columns, view)


_LAYERS: Mapping[str, Callable[..., _Found | None]] = {
    'dot_general': _dense,
    'conv_general_dilated': _convolution,
    'gather': _embedding,
}
