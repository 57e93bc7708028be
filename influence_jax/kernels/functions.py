"""Functions by a kernel where there is one, with derivatives of every order.

What a function returns and its gradients are computed by kernels; further derivatives, vectors of
tangents, and all of it on devices for which there is no kernel, by its form in JAX.

A kernel computes whole arrays: where XLA is to partition a program, what is sharded is gathered.
Within `jax.shard_map` gradients need `check_vma=False`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax._src import dispatch
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from influence_jax.types import AnyArray


@runtime_checkable
class Form(Protocol):
    """A function of arrays; hashable, and equal where the same is computed.

    It returns one array, of the shape and type of the first.
    """

    def __hash__(self) -> int: ...

    @property
    def platform(self) -> str:
        """For which kind of device its kernels are, as JAX names it."""
        ...

    @property
    def axes(self) -> int:
        """How many axes one problem's first array has."""
        ...

    @property
    def differentiable(self) -> int:
        """By how many of the arrays, the first ones, there are gradients."""
        ...

    @property
    def has_products(self) -> bool:
        """Whether there are products whose factors may be rounded (`training.compute_dtype`)."""
        ...

    def in_jax(self, *arrays: Array) -> Array:
        """The value of one problem, to be differentiated."""
        ...

    def value(self, *arrays: Array) -> Array:
        """The same by a kernel; of one problem, or of several along a leading axis of each."""
        ...

    def gradients(self, *arrays: Array) -> Sequence[Array]:
        """By the differentiable arrays, given a cotangent as the last one; likewise."""
        ...


def call(form: Form, *arrays: AnyArray) -> Array:
    """The value, of the shape of the first array."""
    return _VALUES[form.platform].bind(*map(jnp.asarray, arrays), form=form)[0]


def _change_in_jax(form: Form) -> Callable[..., Sequence[Array]]:
    count = form.differentiable

    def change(*arrays: Array) -> Sequence[Array]:
        varied, others, tangents = arrays[:count], arrays[count:-count], arrays[-count:]
        return [jax.jvp(lambda *varied: form.in_jax(*varied, *others), varied, tangents)[1]]

    return change


def _gradients_in_jax(form: Form) -> Callable[..., Sequence[Array]]:
    count = form.differentiable

    def gradients(*arrays: Array) -> Sequence[Array]:
        varied, others, cotangent = arrays[:count], arrays[count:-1], arrays[-1]
        return jax.vjp(lambda *varied: form.in_jax(*varied, *others), *varied)[1](cotangent)

    return gradients


def _primitive(
    name: str,
    form_in_jax: Callable[[Form], Callable[..., Sequence[Array]]],
    by_kernel: Callable[[Form], Callable[..., Sequence[Array]]] | None,
    platform: str,
) -> core.Primitive:
    """Of one problem, or of several along a leading axis of all its arguments.

    Args:
        name: of the primitive.
        form_in_jax: what it computes, of one problem.
        by_kernel: likewise, of one or several.
        platform: for which kind of device the kernels are.
    """
    made: Any = core.Primitive(name)
    made.multiple_results = True

    def in_jax(*arrays: Array, form: Form) -> Sequence[Array]:
        computed = form_in_jax(form)
        several = arrays[0].ndim > form.axes
        return (jax.vmap(computed) if several else computed)(*arrays)

    @functools.cache
    def shapes(form: Form, *arrays: jax.ShapeDtypeStruct) -> list[Any]:
        found = jax.eval_shape(functools.partial(in_jax, form=form), *arrays)
        return [jax.core.ShapedArray(array.shape, array.dtype) for array in found]

    def abstract(*arrays: Any, form: Form) -> list[Any]:
        return shapes(form, *(jax.ShapeDtypeStruct(one.shape, one.dtype) for one in arrays))

    def batched(
        arrays: Sequence[Array], axes: Sequence[int | None], *, form: Form
    ) -> tuple[Sequence[Array], Sequence[int]]:
        (count,) = {
            array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None
        }
        whole = [
            jnp.broadcast_to(array, (count, *array.shape))
            if axis is None
            else jnp.moveaxis(array, axis, 0)
            for array, axis in zip(arrays, axes, strict=True)
        ]
        if whole[0].ndim == form.axes + 2:  # problems of problems
            each = whole[0].shape[1]
            found = made.bind(*(a.reshape(count * each, *a.shape[2:]) for a in whole), form=form)
            found = [a.reshape(count, each, *a.shape[1:]) for a in found]
        else:
            found = made.bind(*whole, form=form)
        return found, [0] * len(found)

    def jvp(
        primals: Sequence[Array], tangents: Sequence[Any], *, form: Form
    ) -> tuple[Sequence[Array], Sequence[Array]]:
        whole = [ad.instantiate_zeros(tangent) for tangent in tangents]
        return jax.jvp(lambda *arrays: in_jax(*arrays, form=form), tuple(primals), tuple(whole))

    made.in_jax = in_jax
    made.def_impl(jax.jit(made.bind, static_argnames='form'))
    made.def_abstract_eval(abstract)
    mlir.register_lowering(made, mlir.lower_fun(in_jax, multiple_results=True))
    if by_kernel:
        rule = mlir.lower_fun(lambda *a, form: by_kernel(form)(*a), multiple_results=True)
        mlir.register_lowering(made, rule, platform=platform)
    if by_kernel and platform == 'cuda':
        # cuDNN is called by way of custom partitioning, for which JAX must know the devices; it
        # looks for that in the program, where it sees this primitive alone.
        dispatch.prim_requires_devices_during_lowering.add(made)
    batching.primitive_batchers[made] = batched
    ad.primitive_jvps[made] = jvp
    return made


def _function(platform: str) -> core.Primitive:
    """The primitive of functions whose kernels are for a kind of device."""
    value = _primitive(
        'kernel',
        lambda form: lambda *arrays: [form.in_jax(*arrays)],
        lambda form: lambda *arrays: [form.value(*arrays)],
        platform,
    )
    change = _primitive('kernel_change', _change_in_jax, None, platform)
    gradients = _primitive(
        'kernel_gradients', _gradients_in_jax, lambda form: form.gradients, platform
    )

    def jvp(
        primals: Sequence[Array], tangents: Sequence[Any], *, form: Form
    ) -> tuple[Sequence[Array], Sequence[Array]]:
        moved = [ad.instantiate_zeros(tangent) for tangent in tangents[: form.differentiable]]
        return value.bind(*primals, form=form), change.bind(*primals, *moved, form=form)

    def transpose(cotangents: Sequence[Any], *arrays: Any, form: Form) -> list[Any]:
        """Of the change, which is linear in the last arrays: the gradients."""
        count = form.differentiable
        primals, linear = arrays[:-count], arrays[-count:]
        nothing = [None] * len(primals)
        if type(cotangents[0]) is ad.Zero:
            return nothing + [ad.Zero(primal.aval) for primal in primals[:count]]
        found = gradients.bind(*primals, cotangents[0], form=form)
        pairs = zip(linear, found, strict=True)
        return nothing + [g if ad.is_undefined_primal(a) else None for a, g in pairs]

    ad.primitive_jvps[value] = jvp
    ad.primitive_transposes[change] = transpose
    return value


_VALUES = {platform: _function(platform) for platform in ('cpu', 'cuda')}
