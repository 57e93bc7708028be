"""In which type the factors of products are while a member trains.

Accelerators, and some CPUs, have units that multiply bfloat16 several times as fast as float32.
What is rounded for them is the two factors of every product of matrices and every convolution,
forwards and backwards, each to 8 bits of precision. Sums are float32, and so is everything between
the products: losses, norms, softmax, parameters and the optimizer's state (arXiv 1710.03740,
1905.12322). It is done to the trace of a step, so that it holds for any model.

A CPU rounds factors likewise, and multiplies them as float32: so it finds what an accelerator does,
no faster, but for 3x3 convolutions where it has instructions for bfloat16
(`kernels.bfloat16_convolution`). XLA's own products of bfloat16 end in an error there for some
layouts, and where they run a language model's step gained a twentieth on a Zen 4
(docs/results/throughput.md).
"""

import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jaxtyping import Array

Outputs = TypeVar('Outputs')


class ComputeDtype(enum.StrEnum):
    """The type of the factors of products in a training step."""

    FLOAT32 = 'float32'
    BFLOAT16 = 'bfloat16'


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the devices multiply all bfloat16 faster than float32: TPUs, recent GPUs."""
    device = jax.devices()[0]
    if device.platform in ('cpu', 'tpu'):
        return device.platform == 'tpu'
    capability = str(getattr(device, 'compute_capability', 0))
    # NVIDIA's are numbers; AMD's names, such as gfx90a, of cards that have the units.
    return not capability[0].isdigit() or float(capability) >= 8


def computing_in(dtype: ComputeDtype, function: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """Returns the function with the factors of its float32 products rounded to this type.

    Differentiation comes first: `computing_in(dtype, jax.grad(loss))` rounds the products of the
    gradient, too. Products whose precision was asked for (`lax.Precision.HIGHEST`, the context
    `jax.default_matmul_precision`) and those of other types are left as they are.

    Args:
        dtype: of the factors.
        function: of pytrees of arrays; traced when it is called.
    """
    if dtype is ComputeDtype.FLOAT32:
        return function

    def rounded(*arguments: Any) -> Outputs:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        found = _evaluated(closed.jaxpr, closed.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), found)

    return rounded


def _evaluated(jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        primitive, inputs = equation.primitive, [read(v) for v in equation.invars]
        if (product := _PRODUCTS.get(primitive.name)) and _is_float32(*inputs):
            outputs = [product(primitive, equation.params, *inputs)]
        elif (in_jax := _products_of_kernel(equation)) and _is_float32(inputs[0]):
            form = jax.make_jaxpr(in_jax)(*inputs)
            outputs = _evaluated(form.jaxpr, form.consts, inputs)
        else:
            params = {name: _within(value) for name, value in equation.params.items()}
            found = primitive.bind(*inputs, **primitive.get_bind_params(params))
            outputs = found if primitive.multiple_results else [found]
        values |= zip(equation.outvars, outputs, strict=True)
    return [read(variable) for variable in jaxpr.outvars]


def _products_of_kernel(equation: core.JaxprEqn) -> Callable[..., Any] | None:
    """What a kernel computes, as it says itself; None where it has no products."""
    primitive: Any = equation.primitive
    if not (hasattr(primitive, 'in_jax') and equation.params['form'].has_products):
        return None
    return functools.partial(primitive.in_jax, **equation.params)


def _within(value: Any) -> Any:
    """What a primitive is given, such as the body of a loop, rounded where it is a trace."""
    if isinstance(value, core.ClosedJaxpr):
        evaluated = functools.partial(_evaluated, value.jaxpr, value.consts)
        return jax.make_jaxpr(lambda *arguments: evaluated(arguments))(*value.in_avals)
    if isinstance(value, core.Jaxpr) and not value.constvars:
        inside = _within(core.ClosedJaxpr(value, ()))
        return value if inside.consts else inside.jaxpr
    if type(value) is tuple:
        return tuple(map(_within, value))
    return value


def _is_float32(*factors: Any) -> bool:
    return all(jnp.result_type(factor) == jnp.float32 for factor in factors)


def _dot(primitive: core.Primitive, params: Mapping[str, Any], a: Any, b: Any) -> Any:
    if not (_is_default(params['precision']) and _of_matrices(params['dimension_numbers'], a, b)):
        return primitive.bind(a, b, **params)
    wide = {**params, 'preferred_element_type': jnp.dtype(jnp.float32)}

    def narrow(a: Array, b: Array) -> Array:
        return primitive.bind(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), **wide)

    return _by_platform(functools.partial(primitive.bind, **wide), narrow, a, b)


def _convolution(primitive: core.Primitive, params: Mapping[str, Any], a: Any, b: Any) -> Any:
    if not _is_default(params['precision']):
        return primitive.bind(a, b, **params)
    same = {**params, 'preferred_element_type': None}

    def narrow(a: Array, b: Array) -> Array:
        found = primitive.bind(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), **same)
        return found.astype(jnp.float32)

    return _by_platform(functools.partial(primitive.bind, **same), narrow, a, b)


def _rounded(factor: Array) -> Array:
    # A conversion to bfloat16 and back would be dropped by XLA.
    return lax.reduce_precision(factor, exponent_bits=8, mantissa_bits=7)


def _by_platform(wide: Callable, narrow: Callable, a: Any, b: Any) -> Any:
    def on_cpu(a: Array, b: Array) -> Array:
        return wide(_rounded(a), _rounded(b))

    return lax.platform_dependent(jnp.asarray(a), jnp.asarray(b), cpu=on_cpu, default=narrow)


def _own_convolution(primitive: core.Primitive, params: Mapping[str, Any], a: Any, b: Any) -> Any:
    return primitive.bind(a, b, **{**params, 'in_bfloat16': True})


def _of_matrices(numbers: Any, a: Any, b: Any) -> bool:
    """Whether both factors have an axis left; else it is a sum, such as a mean of losses."""
    contracted, batch = numbers
    sides = zip((a, b), contracted, batch, strict=True)
    return len(contracted[0]) > 0 and all(
        jnp.ndim(x) > len(summed) + len(shared) for x, summed, shared in sides
    )


def _is_default(precision: Any) -> bool:
    parts = precision if isinstance(precision, tuple) else (precision,)
    return all(part in (None, lax.Precision.DEFAULT) for part in parts)


_PRODUCTS: Mapping[str, Callable[..., Any]] = {
    'dot_general': _dot,
    'conv_general_dilated': _convolution,
    'conv3x3': _own_convolution,
    'conv3x3_by_images': _own_convolution,
    'conv3x3_by_kernel': _own_convolution,
}
