"""A 3x3 convolution whose derivatives of every order are convolutions that are fast in a scan.

XLA's CPU backend runs the automatic weight gradient of a convolution inside a `while` body as a
naive loop, at about a fiftieth of the speed of the convolution itself. Here all derivatives are
written as plain NHWC x HWIO -> NHWC convolutions, which it does run fast. Other platforms
keep the automatic forms: their convolution libraries recognize those.

With images x, a kernel k and a cotangent y, all of them come from one trilinear form
<y, x * k>: the convolution itself, its gradient by the images and its gradient by the kernel. Each
is linear in both of its arguments, and its transposes are the other two. So three primitives
suffice for gradients, Jacobian-vector products, and products with Hessians.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from influence_jax.types import AnyArray

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_ONE_PIXEL = ((1, 1), (1, 1))

Bilinear = Callable[[Any, Any], Array]


def conv3x3(
    images: Float[AnyArray, 'B H W I'], kernel: Float[AnyArray, '3 3 I O']
) -> Float[Array, 'B H W O']:
    """Convolution of stride 1 with one pixel of zero padding; differentiable in both arguments."""
    return _convolution.bind(jnp.asarray(images), jnp.asarray(kernel))


def _convolve(images: AnyArray, kernel: AnyArray) -> Array:
    images, kernel = jnp.asarray(images), jnp.asarray(kernel)
    return lax.conv_general_dilated(images, kernel, (1, 1), _ONE_PIXEL, dimension_numbers=_LAYOUT)


def _rotated(kernel: AnyArray) -> Array:
    return jnp.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))


def _by_images(cotangent: AnyArray, kernel: AnyArray) -> Array:
    # The barriers keep XLA from folding the transposes into the convolutions' dimension
    # numbers, which would bring the slow forms back.
    return _convolve(cotangent, lax.optimization_barrier(_rotated(kernel)))


def _by_kernel(images: AnyArray, cotangent: AnyArray) -> Array:
    # Input channels act as the batch, the batch as input channels: O is the minor axis of
    # every operand, and the whole cotangent is the (large) kernel.
    channels_first, as_kernel = lax.optimization_barrier(
        (jnp.transpose(images, (3, 1, 2, 0)), jnp.transpose(cotangent, (1, 2, 0, 3)))
    )
    return jnp.transpose(_convolve(channels_first, as_kernel), (1, 2, 0, 3))


def _automatic_by_images(cotangent: AnyArray, kernel: AnyArray) -> Array:
    images = jax.ShapeDtypeStruct((*cotangent.shape[:3], kernel.shape[2]), cotangent.dtype)
    return jax.linear_transpose(lambda x: _convolve(x, kernel), images)(cotangent)[0]


def _automatic_by_kernel(images: AnyArray, cotangent: AnyArray) -> Array:
    shape = (3, 3, images.shape[3], cotangent.shape[3])
    kernel = jax.ShapeDtypeStruct(shape, images.dtype)
    return jax.linear_transpose(lambda k: _convolve(images, k), kernel)(cotangent)[0]


class _Folds(NamedTuple):
    """Where a leading axis of one argument alone goes: a longer axis of it, and of the result.

    first: the two axes, counted from the end, for the first argument.
    second: for the second.
    """

    first: tuple[int, int]
    second: tuple[int, int]


def _primitive(name: str, on_cpu: Bilinear, elsewhere: Bilinear, folds: _Folds) -> core.Primitive:
    """A bilinear map of one problem, or of several along a leading axis of both arguments."""
    made = core.Primitive(name)

    def over_problems(form: Bilinear) -> Bilinear:
        return lambda a, b: (jax.vmap(form) if a.ndim == 5 else form)(a, b)

    def abstract(a: Any, b: Any) -> Any:
        found = jax.eval_shape(over_problems(elsewhere), a, b)
        return jax.core.ShapedArray(found.shape, found.dtype)

    def lowering(form: Bilinear) -> Any:
        return mlir.lower_fun(over_problems(form), multiple_results=False)

    made.def_impl(jax.jit(made.bind))
    made.def_abstract_eval(abstract)
    mlir.register_lowering(made, lowering(elsewhere))
    mlir.register_lowering(made, lowering(on_cpu), platform='cpu')
    batching.primitive_batchers[made] = functools.partial(_batched, made, folds)
    return made


def _batched(
    primitive: core.Primitive,
    folds: _Folds,
    arguments: Sequence[AnyArray],
    axes: Sequence[int | None],
) -> tuple[Array, int]:
    pair = [jnp.asarray(argument) for argument in arguments]
    if None not in axes:
        pair = [jnp.moveaxis(a, axis or 0, 0) for a, axis in zip(pair, axes, strict=True)]
        count = len(pair[0])
        if pair[0].ndim == 6:  # problems of problems
            found = primitive.bind(*(a.reshape(-1, *a.shape[2:]) for a in pair))
            return found.reshape(count, -1, *found.shape[1:]), 0
        return primitive.bind(*pair), 0
    place = 0 if axes[0] is not None else 1
    of_argument, of_result = folds[place]
    argument = jnp.moveaxis(pair[place], axes[place] or 0, of_argument - 1)
    count = argument.shape[of_argument - 1]
    pair[place] = argument.reshape(_merged(argument.shape, argument.ndim + of_argument))
    found = primitive.bind(*pair)
    axis = found.ndim + of_result
    shape = (*found.shape[:axis], count, found.shape[axis] // count, *found.shape[axis + 1 :])
    return found.reshape(shape), axis


def _merged(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """With the axis and the one before it as one."""
    return (*shape[: axis - 1], shape[axis - 1] * shape[axis], *shape[axis + 1 :])


_BATCH, _INPUTS, _OUTPUTS = -4, -2, -1

_convolution = _primitive(
    'conv3x3', _convolve, _convolve, _Folds((_BATCH, _BATCH), (_OUTPUTS, _OUTPUTS))
)
_gradient_by_images = _primitive(
    'conv3x3_by_images',
    _by_images,
    _automatic_by_images,
    _Folds((_BATCH, _BATCH), (_INPUTS, -1)),
)
_gradient_by_kernel = _primitive(
    'conv3x3_by_kernel',
    _by_kernel,
    _automatic_by_kernel,
    _Folds((-1, _INPUTS), (-1, _OUTPUTS)),
)


def _transposes(primitive: core.Primitive, by_first: Bilinear, by_second: Bilinear) -> None:
    """Makes it differentiable: `by_first(cotangent, second)`, `by_second(first, cotangent)`."""
    ad.defbilinear(
        primitive,
        lambda cotangent, first, second: by_first(cotangent, second),
        lambda cotangent, first, second: by_second(first, cotangent),
    )


_transposes(_convolution, _gradient_by_images.bind, _gradient_by_kernel.bind)
_transposes(
    _gradient_by_images,
    _convolution.bind,
    lambda cotangent, images: _gradient_by_kernel.bind(images, cotangent),
)
_transposes(
    _gradient_by_kernel,
    lambda kernel, cotangent: _gradient_by_images.bind(cotangent, kernel),
    _convolution.bind,
)
