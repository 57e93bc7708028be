"""A 3x3 convolution whose derivatives of every order are convolutions that are fast in a scan.

XLA's CPU backend runs the automatic weight gradient of a convolution inside a `while` body as a
naive loop, at about a fiftieth of the speed of the convolution itself. Here all derivatives are
written as plain NHWC x HWIO -> NHWC convolutions, which it does run fast. TPUs
keep the automatic forms, and so do NVIDIA GPUs for a kernel that all images share. Where vmapped
members each have a kernel, those become grouped convolutions, which cuDNN runs one by one: there
they are matrix products (`models.band_convolution`).

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

from influence_jax.kernels import bfloat16_convolution, winograd
from influence_jax.kernels.convolutions import Convolutions
from influence_jax.models import band_convolution
from influence_jax.types import AnyArray

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
_ONE_PIXEL = ((1, 1), (1, 1))

Bilinear = Callable[..., Array]


def conv3x3(
    images: Float[AnyArray, 'B H W I'], kernel: Float[AnyArray, '3 3 I O']
) -> Float[Array, 'B H W O']:
    """Convolution of stride 1 with one pixel of zero padding; differentiable in both arguments."""
    return _convolution.bind(jnp.asarray(images), jnp.asarray(kernel), in_bfloat16=False)


def _rounded(factor: AnyArray) -> Array:
    """Returns float32 rounded to what bfloat16 can hold; a conversion there and back XLA drops."""
    return lax.reduce_precision(factor, exponent_bits=8, mantissa_bits=7)


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


class _Forms(NamedTuple):
    """How one of the three maps is computed.

    on_cpu: of one problem.
    kernels: which compute one or several on a CPU.
    elsewhere: of one problem.
    of_members: of one of several problems, on NVIDIA GPUs, with factors of a type.
    """

    on_cpu: Bilinear
    kernels: '_Kernels'
    elsewhere: Bilinear
    of_members: Callable[[Any, Any, Any], Array]


class _Kernels(NamedTuple):
    """Of one of the three maps.

    channels: of the factors, inputs and outputs.
    by: the map, given whose it is.
    """

    channels: Callable[[Any, Any], tuple[int, int]]
    by: Callable[..., Array]

    def chosen(self, a: AnyArray, b: AnyArray, *, in_bfloat16: bool) -> Bilinear | None:
        """None where XLA is to compute it."""
        channels = self.channels(a, b)
        if a.dtype != jnp.float32:
            return None
        if in_bfloat16 and bfloat16_convolution.serves(a.shape[-4], *channels):
            return functools.partial(self.by, bfloat16_convolution.BFLOAT16)
        if not winograd.serves(*channels):
            return None
        by_winograd = functools.partial(self.by, winograd.WINOGRAD)
        return _of_rounded(by_winograd) if in_bfloat16 else by_winograd


def _of_rounded(form: Bilinear) -> Bilinear:
    return lambda a, b: form(_rounded(a), _rounded(b))


def _channels_of_kernel(_: AnyArray, kernel: AnyArray) -> tuple[int, int]:
    return kernel.shape[-2], kernel.shape[-1]


def _channels_of_images(images: AnyArray, cotangent: AnyArray) -> tuple[int, int]:
    return images.shape[-1], cotangent.shape[-1]


def _primitive(name: str, forms: _Forms, folds: _Folds) -> core.Primitive:
    """A bilinear map of one problem, or of several along a leading axis of both arguments.

    Its parameter `in_bfloat16` says whether the factors are rounded to bfloat16.
    """
    made = core.Primitive(name)

    def over_problems(form: Bilinear, a: AnyArray, b: AnyArray) -> Array:
        return (jax.vmap(form) if a.ndim == 5 else form)(a, b)

    def on_cpu(a: AnyArray, b: AnyArray, *, in_bfloat16: bool) -> Array:
        kernel = forms.kernels.chosen(a, b, in_bfloat16=in_bfloat16)
        if kernel is not None:
            return kernel(a, b)
        return over_problems(_of_rounded(forms.on_cpu) if in_bfloat16 else forms.on_cpu, a, b)

    def elsewhere(a: AnyArray, b: AnyArray, *, in_bfloat16: bool) -> Array:
        narrow = jnp.bfloat16 if in_bfloat16 else a.dtype
        found = over_problems(forms.elsewhere, a.astype(narrow), b.astype(narrow))
        return found.astype(a.dtype)

    def on_nvidia(a: AnyArray, b: AnyArray, *, in_bfloat16: bool) -> Array:
        if a.ndim == 4:
            return elsewhere(a, b, in_bfloat16=in_bfloat16)
        dtype = jnp.bfloat16 if in_bfloat16 else a.dtype
        return jax.vmap(functools.partial(forms.of_members, dtype))(a, b)

    def abstract(a: Any, b: Any, *, in_bfloat16: bool) -> Any:
        found = jax.eval_shape(functools.partial(elsewhere, in_bfloat16=in_bfloat16), a, b)
        return jax.core.ShapedArray(found.shape, found.dtype)

    made.def_impl(jax.jit(made.bind, static_argnames='in_bfloat16'))
    made.def_abstract_eval(abstract)
    for computed, platform in ((elsewhere, None), (on_cpu, 'cpu'), (on_nvidia, 'cuda')):
        rule = mlir.lower_fun(computed, multiple_results=False)
        mlir.register_lowering(made, rule, platform=platform)
    batching.primitive_batchers[made] = functools.partial(_batched, made, folds)
    return made


def _batched(
    primitive: core.Primitive,
    folds: _Folds,
    arguments: Sequence[AnyArray],
    axes: Sequence[int | None],
    *,
    in_bfloat16: bool,
) -> tuple[Array, int]:
    bind = functools.partial(primitive.bind, in_bfloat16=in_bfloat16)
    pair = [jnp.asarray(argument) for argument in arguments]
    if None not in axes:
        pair = [jnp.moveaxis(a, axis or 0, 0) for a, axis in zip(pair, axes, strict=True)]
        count = len(pair[0])
        if pair[0].ndim == 6:  # problems of problems
            found = bind(*(a.reshape(-1, *a.shape[2:]) for a in pair))
            return found.reshape(count, -1, *found.shape[1:]), 0
        return bind(*pair), 0
    place = 0 if axes[0] is not None else 1
    of_argument, of_result = folds[place]
    argument = jnp.moveaxis(pair[place], axes[place] or 0, of_argument - 1)
    count = argument.shape[of_argument - 1]
    pair[place] = argument.reshape(_merged(argument.shape, argument.ndim + of_argument))
    found = bind(*pair)
    axis = found.ndim + of_result
    shape = (*found.shape[:axis], count, found.shape[axis] // count, *found.shape[axis + 1 :])
    return found.reshape(shape), axis


def _merged(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """With the axis and the one before it as one."""
    return (*shape[: axis - 1], shape[axis - 1] * shape[axis], *shape[axis + 1 :])


_BATCH, _INPUTS, _OUTPUTS = -4, -2, -1

_convolution = _primitive(
    'conv3x3',
    _Forms(
        _convolve,
        _Kernels(_channels_of_kernel, Convolutions.convolution),
        _convolve,
        band_convolution.convolution,
    ),
    _Folds((_BATCH, _BATCH), (_OUTPUTS, _OUTPUTS)),
)
_gradient_by_images = _primitive(
    'conv3x3_by_images',
    _Forms(
        _by_images,
        _Kernels(_channels_of_kernel, Convolutions.by_images),
        _automatic_by_images,
        lambda dtype, y, k: band_convolution.convolution(dtype, y, _rotated(k)),
    ),
    _Folds((_BATCH, _BATCH), (_INPUTS, -1)),
)
_gradient_by_kernel = _primitive(
    'conv3x3_by_kernel',
    _Forms(
        _by_kernel,
        _Kernels(_channels_of_images, Convolutions.by_kernel),
        _automatic_by_kernel,
        band_convolution.by_kernel,
    ),
    _Folds((-1, _INPUTS), (-1, _OUTPUTS)),
)


def _transposes(primitive: core.Primitive, by_first: Bilinear, by_second: Bilinear) -> None:
    """Makes it differentiable: `by_first(cotangent, second)`, `by_second(first, cotangent)`."""
    ad.defbilinear(
        primitive,
        lambda cotangent, first, second, **params: by_first(cotangent, second, **params),
        lambda cotangent, first, second, **params: by_second(first, cotangent, **params),
    )


_transposes(_convolution, _gradient_by_images.bind, _gradient_by_kernel.bind)
_transposes(
    _gradient_by_images,
    _convolution.bind,
    lambda cotangent, images, **params: _gradient_by_kernel.bind(images, cotangent, **params),
)
_transposes(
    _gradient_by_kernel,
    lambda kernel, cotangent, **params: _gradient_by_images.bind(cotangent, kernel, **params),
    _convolution.bind,
)
