"""Attention by a kernel where there is one, with derivatives of every order.

What is read and its gradients are computed by kernels; further derivatives, vectors of tangents,
and all of it on devices for which a kind of attention has no kernel, by its form in JAX.
"""

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
    """A kind of attention; hashable, and equal where the same is computed.

    All methods are given queries, keys, values and what else it depends on.
    """

    @property
    def platform(self) -> str:
        """For which kind of device its kernels are, as JAX names it."""
        ...

    @property
    def axes(self) -> int:
        """How many axes one problem's queries have."""
        ...

    def in_jax(self, *arrays: Array) -> Array:
        """What is read in one problem, to be differentiated."""
        ...

    def attended(self, *arrays: Array) -> Array:
        """The same by a kernel; of one problem, or of several along a leading axis of each."""
        ...

    def gradients(self, *arrays: Array) -> Sequence[Array]:
        """By queries, keys and values, given a cotangent as the last array; likewise."""
        ...


def attend(form: Form, *arrays: AnyArray) -> Array:
    """What is read, of the shape of the queries.

    Args:
        form: of attention.
        *arrays: queries, keys, values, and what else it depends on.
    """
    return _attend.bind(*map(jnp.asarray, arrays), form=form)[0]


def _change_in_jax(form: Form) -> Callable[..., Array]:
    def change(*arrays: Array) -> Array:
        heads, others, tangents = arrays[:3], arrays[3:-3], arrays[-3:]
        return jax.jvp(lambda *heads: form.in_jax(*heads, *others), heads, tangents)[1]

    return change


def _gradients_in_jax(form: Form) -> Callable[..., Sequence[Array]]:
    def gradients(*arrays: Array) -> Sequence[Array]:
        heads, others, cotangent = arrays[:3], arrays[3:-1], arrays[-1]
        return jax.vjp(lambda *heads: form.in_jax(*heads, *others), *heads)[1](cotangent)

    return gradients


def _primitive(
    name: str,
    form_in_jax: Callable[[Form], Callable],
    by_kernel: Callable[[Form], Callable] | None,
    results: int,
) -> core.Primitive:
    """Of one problem, or of several along a leading axis of all its arguments."""
    made: Any = core.Primitive(name)
    made.multiple_results = True

    def listed(found: Any) -> Sequence[Array]:
        return found if results > 1 else (found,)

    def in_jax(*arrays: Array, form: Form) -> Sequence[Array]:
        computed = form_in_jax(form)
        several = arrays[0].ndim > form.axes
        return listed((jax.vmap(computed) if several else computed)(*arrays))

    def on(platform: str) -> Callable[..., Sequence[Array]]:
        def computed(*arrays: Array, form: Form) -> Sequence[Array]:
            if by_kernel is None or form.platform != platform:
                return in_jax(*arrays, form=form)
            return listed(by_kernel(form)(*arrays))

        return computed

    def abstract(*arrays: Any, **_: Any) -> list[Any]:
        return [jax.core.ShapedArray(arrays[0].shape, arrays[0].dtype)] * results

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
            found = made.bind(*(a.reshape(-1, *a.shape[2:]) for a in whole), form=form)
            found = [a.reshape(count, -1, *a.shape[1:]) for a in found]
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
    for platform in ('cpu', 'cuda') if by_kernel else ():
        rule = mlir.lower_fun(on(platform), multiple_results=True)
        mlir.register_lowering(made, rule, platform=platform)
    if by_kernel:
        # cuDNN is called by way of custom partitioning, for which JAX must know the devices; it
        # looks for that in the program, where it sees this primitive alone.
        dispatch.prim_requires_devices_during_lowering.add(made)
    batching.primitive_batchers[made] = batched
    ad.primitive_jvps[made] = jvp
    return made


_attend = _primitive('attend', lambda form: form.in_jax, lambda form: form.attended, 1)
_change = _primitive('attention_change', _change_in_jax, None, 1)
_gradients = _primitive('attention_gradients', _gradients_in_jax, lambda form: form.gradients, 3)


def _attend_jvp(
    primals: Sequence[Array], tangents: Sequence[Any], *, form: Form
) -> tuple[Sequence[Array], Sequence[Array]]:
    moved = [ad.instantiate_zeros(tangent) for tangent in tangents[:3]]
    return _attend.bind(*primals, form=form), _change.bind(*primals, *moved, form=form)


def _change_transpose(cotangents: Sequence[Any], *arrays: Any, form: Form) -> list[Any]:
    """Of the change, which is linear in the last three arrays: the gradients."""
    primals, linear = arrays[:-3], arrays[-3:]
    nothing = [None] * len(primals)
    if type(cotangents[0]) is ad.Zero:
        return nothing + [ad.Zero(primals[0].aval)] * 3
    found = _gradients.bind(*primals, cotangents[0], form=form)
    pairs = zip(linear, found, strict=True)
    return nothing + [g if ad.is_undefined_primal(a) else None for a, g in pairs]


ad.primitive_jvps[_attend] = _attend_jvp
ad.primitive_transposes[_change] = _change_transpose
