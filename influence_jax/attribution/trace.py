"""A walk through a trace that knows parameters, and the linear layers that they are weights of."""

import collections
import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jaxtyping import Array

Linear = Callable[[Array], Array]
Shape = tuple[int, ...]


class Kind(enum.Enum):
    """What a layer does with its weight."""

    DENSE = 'matrix product'
    CONVOLUTION = 'convolution'
    EMBEDDING = 'embedding'


class View(NamedTuple):
    """A parameter, or a part of it, in another shape.

    path: of the parameter.
    of: from the parameter to this.
    size: how many entries of it; fewer than the view's own where these are repeated.
    """

    path: str
    of: Linear
    size: int


class Value(NamedTuple):
    """A value met on the way.

    value: itself.
    view: of which parameter it is a part; None where of none.
    layer: which layer it left, in any shape; None where none.
    """

    value: Any
    view: View | None = None
    layer: int | None = None


@dataclasses.dataclass
class Found:
    """A layer that was met; see `layers.Layer`."""

    path: str
    kind: Kind
    inputs: int
    outputs: int
    rows: Linear
    columns: Linear
    view: Linear
    bias: tuple[str, Linear] | None = None


_RESHAPED = frozenset({'reshape', 'squeeze', 'convert_element_type', 'copy'})
_PARTS = _RESHAPED | {'slice', 'transpose', 'broadcast_in_dim', 'optimization_barrier'}
_CALLS = {
    'jit': 'jaxpr',
    'closed_call': 'call_jaxpr',
    'custom_jvp_call': 'call_jaxpr',
    'custom_vjp_call': 'call_jaxpr',
    'remat2': 'jaxpr',
}


class Walk:
    """One pass through a trace; the same layers are met in the same order every time.

    shifts: what is added to the outputs of each layer; None to add nothing.
    """

    def __init__(self, shifts: Sequence[Array] | None) -> None:
        self._shifts = shifts
        self.found: list[Found] = []
        self.inputs: list[Array] = []
        self.shapes: list[jax.ShapeDtypeStruct] = []
        self.elsewhere: set[str] = set()
        self.hidden: dict[str, str] = {}
        """Parameters that enter a loop or a branch that is not looked into, and its name."""

    def through(
        self, jaxpr: core.Jaxpr, consts: Sequence[Value], arguments: Sequence[Value]
    ) -> list[Value]:
        """Evaluates a trace; returns its outputs."""
        uses = collections.Counter(
            variable
            for variables in (*(equation.invars for equation in jaxpr.eqns), jaxpr.outvars)
            for variable in variables
            if not isinstance(variable, core.Literal)
        )

        def known(variables: Sequence[Any], found: Sequence[Value]) -> dict[Any, Value]:
            # An output that something else uses, too, has another gradient than a bias added to it.
            return {
                v: value if uses[v] == 1 else value._replace(layer=None)
                for v, value in zip(variables, found, strict=True)
            }

        values: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        values |= known(jaxpr.invars, arguments)

        def read(variable: Any) -> Value:
            if isinstance(variable, core.Literal):
                return Value(variable.val)
            return values[variable]

        for equation in jaxpr.eqns:
            found = self._equation(equation, [read(v) for v in equation.invars])
            values |= known(equation.outvars, found)
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, equation: Any, given: list[Value]) -> list[Value]:
        name = equation.primitive.name
        views = [value.view for value in given if value.view is not None]
        if not views:
            outputs = _bound(equation, given)
            return self._reshaped(name, given, outputs)
        if len(views) == len(given) == 1 and name in _PARTS:
            return [_part(equation, given[0], views[0])]
        layer = _as_layer(equation, given)
        if layer is not None:
            return [self._pass(equation, given, *layer)]
        if name in ('add', 'add_any') and (found := self._bias(given)) is not None:
            (output,) = _bound(
                equation,
                [
                    v if v.view is None else v._replace(value=lax.stop_gradient(v.value))
                    for v in given
                ],
            )
            layer_found, view = found
            layer_found.bias = view.path, view.of
            return [output]
        if name == 'scan':
            return self._scanned(equation.params, given)
        inner = equation.params.get(_CALLS.get(name, ''))
        if inner is not None:
            closed = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
            consts = [Value(const) for const in closed.consts]
            return self.through(closed.jaxpr, consts, given)
        self.elsewhere |= {view.path for view in views}
        if any(_has_jaxpr(param) for param in equation.params.values()):
            self.hidden |= {view.path: name for view in views}
        return _bound(equation, given)

    def _scanned(self, params: Mapping[str, Any], given: list[Value]) -> list[Value]:
        """Goes through a scan step by step: in each, a row of the parameters is a weight."""
        body, steps, count = params['jaxpr'], params['length'], params['num_consts']
        consts, rest = given[:count], given[count:]
        carried, stacked = rest[: params['num_carry']], rest[params['num_carry'] :]
        own = [Value(const) for const in body.consts]
        kept: dict[int, list[Value]] = {}
        for step in reversed(range(steps)) if params['reverse'] else range(steps):
            rows = [_row(value, step) for value in stacked]
            found = self.through(body.jaxpr, own, [*consts, *carried, *rows])
            carried, kept[step] = found[: len(carried)], found[len(carried) :]
        columns = zip(*(kept[step] for step in range(steps)), strict=True)
        return [*carried, *(Value(jnp.stack([one.value for one in of])) for of in columns)]

    def _reshaped(self, name: str, given: list[Value], outputs: list[Value]) -> list[Value]:
        """Outputs of a layer remain known for what they are while only their shape changes."""
        if len(given) == len(outputs) == 1 and name in _RESHAPED:
            return [outputs[0]._replace(layer=given[0].layer)]
        return outputs

    def _pass(self, equation: Any, given: list[Value], found: Found, place: int) -> Value:
        weight = given[1 - place]
        given = list(given)
        # What it does as a weight is the layer's; the rest of its gradient is of its other uses.
        given[1 - place] = weight._replace(value=lax.stop_gradient(weight.value))
        (output,) = _bound(equation, given)
        number = len(self.found)
        self.found.append(found)
        self.inputs.append(given[place].value)
        self.shapes.append(jax.ShapeDtypeStruct(jnp.shape(output.value), output.value.dtype))
        value = output.value if self._shifts is None else output.value + self._shifts[number]
        return Value(value, layer=number)

    def _bias(self, given: list[Value]) -> tuple[Found, View] | None:
        outputs = [value for value in given if value.layer is not None]
        views = [value for value in given if value.view is not None]
        if len(outputs) != 1 or len(views) != 1:
            return None
        number, view = outputs[0].layer, views[0].view
        assert number is not None and view is not None
        found = self.found[number]
        shape = jnp.shape(views[0].value)
        last = shape[-1] if shape else 0
        fits = view.size == found.outputs == last == jnp.shape(outputs[0].value)[-1]
        # A part of the weight itself is another use of the weight.
        if not fits or found.bias is not None or view.path == found.path:
            return None
        of = view.of

        def vector(leaf: Array) -> Array:
            return of(leaf).reshape(-1, last)[0]

        return found, view._replace(of=vector)


def same(leaf: Array) -> Array:
    """The view that is the whole parameter."""
    return leaf


def _bound(equation: Any, given: list[Value]) -> list[Value]:
    values = [value.value for value in given]
    found = equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))
    return [
        Value(value, None) for value in (found if equation.primitive.multiple_results else [found])
    ]


def _part(equation: Any, given: Value, view: View) -> Value:
    """A view of a view."""
    (output,) = _bound(equation, [given])

    def of(leaf: Array) -> Array:
        return _bound(equation, [Value(view.of(leaf))])[0].value

    size = min(view.size, math.prod(jnp.shape(output.value)))
    return Value(output.value, View(view.path, of, size))


def _row(value: Value, step: int) -> Value:
    row = value.value[step]
    view = value.view
    if view is None:
        return Value(row)

    def of(leaf: Array) -> Array:
        return view.of(leaf)[step]

    return Value(row, View(view.path, of, min(view.size, math.prod(jnp.shape(row)))))


def _has_jaxpr(param: Any) -> bool:
    parts = param if isinstance(param, tuple | list) else (param,)
    return any(isinstance(part, core.Jaxpr | core.ClosedJaxpr) for part in parts)


def _as_layer(equation: Any, given: list[Value]) -> tuple[Found, int] | None:
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
    places = [place for place, value in enumerate(given) if value.view is not None]
    if len(places) != 1:
        return None
    (place,) = places
    weight, x, view = given[place], given[1 - place], given[place].view
    if view is None or view.size != math.prod(jnp.shape(weight.value)):
        return None  # repeated entries are no free weights
    found = make(inner.params, view, jnp.shape(weight.value), jnp.shape(x.value), place)
    return None if found is None else (found, 1 - place)


def _dense(
    params: Mapping[str, Any], weight: View, shape: Shape, x_shape: Shape, place: int
) -> Found | None:
    contracted, batched = params['dimension_numbers']
    if batched[place]:
        return None
    of_x, of_weight = contracted[1 - place], contracted[place]
    x_rest = [axis for axis in range(len(x_shape)) if axis not in of_x]
    rest = [axis for axis in range(len(shape)) if axis not in of_weight]
    inputs = math.prod(shape[axis] for axis in of_weight)
    outputs = math.prod(shape[axis] for axis in rest)
    view, positions = weight.of, len(x_rest)

    def rows(x: Array) -> Array:
        return x.transpose(*x_rest, *of_x).reshape(-1, inputs)

    def columns(gradient: Array) -> Array:
        if place == 0:  # the weight is the left factor: its axes come first
            split = gradient.ndim - positions
            gradient = jnp.moveaxis(gradient, range(split), range(-split, 0)) if split else gradient
        return gradient.reshape(-1, outputs)

    def as_matrix(leaf: Array) -> Array:
        return view(leaf).transpose(*of_weight, *rest).reshape(inputs, outputs)

    return Found(weight.path, Kind.DENSE, inputs, outputs, rows, columns, as_matrix)


def _convolution(
    params: Mapping[str, Any], weight: View, shape: Shape, x_shape: Shape, place: int
) -> Found | None:
    if place != 1 or params['feature_group_count'] != 1 or params['batch_group_count'] != 1:
        return None
    numbers, strides, padding = (
        params['dimension_numbers'],
        params['window_strides'],
        params['padding'],
    )
    dilation, spread = params['rhs_dilation'], params['lhs_dilation']
    outputs, channels, *window = (shape[axis] for axis in numbers.rhs_spec)
    inputs = channels * math.prod(window)
    view = weight.of

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

    return Found(weight.path, Kind.CONVOLUTION, inputs, outputs, rows, columns, as_matrix)


def _conv3x3(
    params: Mapping[str, Any], weight: View, shape: Shape, x_shape: Shape, place: int
) -> Found | None:
    """`models.convolution.conv3x3`, a primitive of its own."""
    del params
    if len(shape) != 4:
        return None
    plain = {
        'feature_group_count': 1,
        'batch_group_count': 1,
        'dimension_numbers': lax.conv_dimension_numbers(x_shape, shape, ('NHWC', 'HWIO', 'NHWC')),
        'window_strides': (1, 1),
        'padding': ((1, 1), (1, 1)),
        'rhs_dilation': (1, 1),
        'lhs_dilation': (1, 1),
    }
    return _convolution(plain, weight, shape, x_shape, place)


def _offsets(window: Sequence[int]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for width in window:
        found = [(*before, at) for before in found for at in range(width)]
    return found


def _embedding(
    params: Mapping[str, Any], table: View, shape: Shape, x_shape: Shape, place: int
) -> Found | None:
    numbers = params['dimension_numbers']
    whole_rows = (
        place == 0
        and len(shape) == 2
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and tuple(params['slice_sizes']) == (1, shape[1])
        and tuple(numbers.offset_dims) == (len(x_shape) - 1,)
    )
    if not whole_rows:
        return None
    inputs, outputs = shape

    def rows(x: Array) -> Array:
        return x.reshape(-1)

    def columns(gradient: Array) -> Array:
        return gradient.reshape(-1, outputs)

    return Found(table.path, Kind.EMBEDDING, inputs, outputs, rows, columns, table.of)


_LAYERS: Mapping[str, Callable[[Any, View, Shape, Shape, int], Found | None]] = {
    'dot_general': _dense,
    'conv_general_dilated': _convolution,
    'conv3x3': _conv3x3,
    'gather': _embedding,
}
