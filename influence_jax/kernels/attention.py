"""Causal attention of records laid end to end, on CPUs.

XLA multiplies blocks of tokens, most pairs of which belong to different records or look ahead. Here
every token meets the tokens that it reads and no others. First derivatives are computed so, too;
further ones, vectors of tangents, and all of it on other devices, by the form in JAX that the
caller gives.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int

from influence_jax.kernels import library
from influence_jax.kernels.library import threads
from influence_jax.types import AnyArray

Attention = Callable[..., Array]
"""From queries, keys, values `[C H d]` and records `[C]` to what was read, `[C H d]`."""

_ATTEND, _GRADIENTS = 'influence_jax_attend', 'influence_jax_attention_gradients'
_LONGEST = 512
"""Tokens that one reads: a guess. With 70 it was timed; for many, products of blocks are faster."""


def serves(reach: int, *arrays: AnyArray) -> bool:
    """Whether attention over so many tokens is to be computed here; else by the form in JAX."""
    return (
        jax.default_backend() == 'cpu'
        and reach <= _LONGEST
        and all(array.dtype == jnp.float32 for array in arrays)
        and library.registered('attention.cc', (_ATTEND, _GRADIENTS))
    )


def attend(
    queries: Float[AnyArray, 'C H d'],
    keys: Float[AnyArray, 'C H d'],
    values: Float[AnyArray, 'C H d'],
    records: Int[AnyArray, ' C'],
    *,
    reach: int,
    in_jax: Attention,
) -> Float[Array, 'C H d']:
    """Softmax attention without a scale, of every token to those of its record before it.

    Args:
        queries: of H heads.
        keys: likewise.
        values: likewise.
        records: which record a token belongs to; those of a record are together.
        reach: how many tokens each reads at most, itself included.
        in_jax: computes the same; hashable.
    """
    arrays = (queries, keys, values, jnp.asarray(records, jnp.int32))
    return _attend.bind(*map(jnp.asarray, arrays), reach=reach, in_jax=in_jax)[0]


def _attend_form(in_jax: Attention, *arrays: Array) -> tuple[Array]:
    return (in_jax(*arrays),)


def _change_form(in_jax: Attention, *arrays: Array) -> tuple[Array]:
    *heads, records, by_queries, by_keys, by_values = arrays
    tangents = by_queries, by_keys, by_values
    return (jax.jvp(lambda *heads: in_jax(*heads, records), tuple(heads), tangents)[1],)


def _gradients_form(in_jax: Attention, *arrays: Array) -> tuple[Array, ...]:
    *heads, records, cotangent = arrays
    return jax.vjp(lambda *heads: in_jax(*heads, records), *heads)[1](cotangent)


def _primitive(name: str, form: Callable, target: str | None) -> core.Primitive:
    """One of several problems along a leading axis of all its arguments, or of one."""
    made: Any = core.Primitive(name)
    made.multiple_results = True

    def in_jax(*arrays: Array, in_jax: Attention, reach: int) -> Sequence[Array]:
        del reach
        computed = functools.partial(form, in_jax)
        return (jax.vmap(computed) if arrays[0].ndim == 4 else computed)(*arrays)

    def on_cpu(*arrays: Array, reach: int, in_jax: Attention) -> Sequence[Array]:
        del in_jax
        shapes = [jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)]
        shapes *= 1 if target == _ATTEND else 3
        call = jax.ffi.ffi_call(target or '', shapes)
        return call(*arrays, reach=np.int64(reach), threads=threads())

    def abstract(*arrays: Any, **_: Any) -> list[Any]:
        count = 3 if target == _GRADIENTS else 1
        return [jax.core.ShapedArray(arrays[0].shape, arrays[0].dtype)] * count

    def batched(
        arrays: Sequence[Array], axes: Sequence[int | None], **params: Any
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
        if whole[0].ndim == 5:  # problems of problems
            found = made.bind(*(a.reshape(-1, *a.shape[2:]) for a in whole), **params)
            found = [a.reshape(count, -1, *a.shape[1:]) for a in found]
        else:
            found = made.bind(*whole, **params)
        return found, [0] * len(found)

    def jvp(
        primals: Sequence[Array], tangents: Sequence[Any], **params: Any
    ) -> tuple[Sequence[Array], Sequence[Array]]:
        computed = functools.partial(in_jax, **params)
        whole = [ad.instantiate_zeros(tangent) for tangent in tangents]
        return jax.jvp(computed, tuple(primals), tuple(whole))

    made.in_jax = in_jax
    made.def_impl(jax.jit(made.bind, static_argnames=('reach', 'in_jax')))
    made.def_abstract_eval(abstract)
    mlir.register_lowering(made, mlir.lower_fun(in_jax, multiple_results=True))
    if target:
        rule = mlir.lower_fun(on_cpu, multiple_results=True)
        mlir.register_lowering(made, rule, platform='cpu')
    batching.primitive_batchers[made] = batched
    ad.primitive_jvps[made] = jvp
    return made


_attend = _primitive('attend', _attend_form, _ATTEND)
_change = _primitive('attention_change', _change_form, None)
_gradients = _primitive('attention_gradients', _gradients_form, _GRADIENTS)


def _attend_jvp(
    primals: Sequence[Array], tangents: Sequence[Any], **params: Any
) -> tuple[Sequence[Array], Sequence[Array]]:
    moved = [ad.instantiate_zeros(tangent) for tangent in tangents[:3]]
    return _attend.bind(*primals, **params), _change.bind(*primals, *moved, **params)


def _change_transpose(cotangents: Sequence[Any], *arrays: Any, **params: Any) -> list[Any]:
    """Of the change, which is linear in the last three arrays: the gradients."""
    primals = arrays[:4]
    if type(cotangents[0]) is ad.Zero:
        return [None] * 4 + [ad.Zero(primals[0].aval)] * 3
    found = _gradients.bind(*primals, cotangents[0], **params)
    of_linear = zip(arrays[4:], found, strict=True)
    return [None] * 4 + [g if ad.is_undefined_primal(a) else None for a, g in of_linear]


ad.primitive_jvps[_attend] = _attend_jvp
ad.primitive_transposes[_change] = _change_transpose
