"""Attention of packed records by the kernel is that by blocks, in derivatives of every order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.kernels import functions, packed_attention
from influence_jax.kernels.packed_attention import PackedAttention
from influence_jax.models.gpt_neo import GPTNeoConfig, packed
from influence_jax.tasks.language_modeling import LanguageModeling, TokenBatch
from influence_jax.training.compute_dtype import ComputeDtype, computing_in

pytestmark = pytest.mark.skipif(
    not packed_attention.serves(16, np.zeros(1, np.float32)),
    reason='there is no C++ compiler, or this is no CPU',
)

CASES = {
    'the default network': ((20, 70, 5, 60, 1, 50, 50), 4, 16, 70),
    'a window that is shorter than records': ((40, 24), 2, 8, 9),
    'odd widths': ((33, 31), 3, 5, 64),
    'wide heads': ((3, 29), 1, 40, 32),
    'each token alone': ((1,) * 32, 2, 16, 12),
}


def problem(lengths, heads, width):
    rng = np.random.default_rng(0)
    shape = sum(lengths), heads, width
    arrays = [jnp.asarray(2 * rng.standard_normal(shape, np.float32)) for _ in range(4)]
    return (*arrays, jnp.repeat(jnp.arange(len(lengths)), jnp.asarray(lengths)))


def both(records, reach):
    form = functools.partial(packed._attended, reach)
    return (
        lambda *heads: functions.call(PackedAttention(reach, form), *heads, records),
        lambda q, k, v: form(q, k, v, records),
    )


def gradients(attend, weights):
    return jax.grad(lambda *heads: jnp.vdot(jnp.sin(attend(*heads)), weights), argnums=(0, 1, 2))


def close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
@pytest.mark.parametrize('threads', [False, True])
def test_what_is_read_and_its_gradients(case, threads, monkeypatch):
    monkeypatch.setattr(packed_attention, 'threads', lambda: threads)
    lengths, heads, width, reach = case
    *arrays, weights, records = problem(lengths, heads, width)
    kernel, form = both(records, reach)
    close(jax.jit(kernel)(*arrays), jax.jit(form)(*arrays))
    close(jax.jit(gradients(kernel, weights))(*arrays), jax.jit(gradients(form, weights))(*arrays))


def test_second_derivatives_of_either_mode():
    lengths, heads, width, reach = CASES['a window that is shorter than records']
    *arrays, weights, records = problem(lengths, heads, width)
    tangents = [jnp.cos(array) for array in arrays]

    def products(attend):
        first = gradients(attend, weights)
        reverse = jax.grad(
            lambda *heads: sum(map(jnp.vdot, first(*heads), tangents)), argnums=(0, 1, 2)
        )
        return jax.jvp(first, tuple(arrays), tuple(tangents))[1], reverse(*arrays)

    close(*(jax.jit(functools.partial(products, attend))() for attend in both(records, reach)))


@pytest.mark.parametrize('axes', [(0, 0, 0), (0, None, None), (None, 1, None)], ids=str)
def test_under_vmap_once_and_twice(axes):
    lengths, heads, width, reach = CASES['odd widths']
    *arrays, weights, records = problem(lengths, heads, width)
    stacked = [
        array if axis is None else jnp.stack([array, -array], axis)
        for array, axis in zip(arrays, axes, strict=True)
    ]

    def computed(attend):
        once = jax.vmap(gradients(attend, weights), axes)
        twice = jax.vmap(jax.vmap(attend), axes)
        double = [
            jnp.stack([x, 2 * x], 1 if axis == 0 else 0)
            for x, axis in zip(stacked, axes, strict=True)
        ]
        return once(*stacked), twice(*double) if axes == (0, 0, 0) else ()

    close(*(jax.jit(functools.partial(computed, attend))() for attend in both(records, reach)))


def test_what_is_no_number_stays_so():
    *arrays, _, records = problem((8, 24), 1, 8)
    arrays[0] = arrays[0].at[3, 0, 0].set(jnp.nan)
    form = PackedAttention(24, functools.partial(packed._attended, 24))
    found = functions.call(form, *arrays, records)
    assert np.isnan(found[3]).all()
    assert np.isfinite(np.delete(np.asarray(found), 3, axis=0)).all()


def test_large_scores_are_a_maximum():
    *arrays, _, records = problem((32,), 1, 8)
    arrays[0] = arrays[0] * 1e4
    kernel, form = both(records, 32)
    close(kernel(*arrays), form(*arrays))


def modeling():
    config = GPTNeoConfig(vocab_size=50, max_positions=40, hidden=16, heads=2)
    return LanguageModeling(config, capacity=64)


def batch():
    rng = np.random.default_rng(1)
    lengths = np.array([12, 30, 2, 17])
    tokens = rng.integers(0, 50, (4, 30)) * (np.arange(30) < lengths[:, None])
    return TokenBatch(jnp.asarray(tokens), jnp.asarray(lengths), jnp.zeros(4, int))


@pytest.mark.slow
def test_a_language_model_trains_by_it_and_its_losses_are_those_of_padded_records():
    task, records = modeling(), batch()
    params = task.init(key=jax.random.key(0))

    def loss(task, params):
        return task.train_loss(params, records, key=jax.random.key(0)).mean()

    step = jax.jit(jax.value_and_grad(functools.partial(loss, task)))
    text = step.lower(params).as_text()
    assert 'custom_call @influence_jax_attend' in text
    assert 'custom_call @influence_jax_attention_gradients' in text
    padded = LanguageModeling(task.config)
    close(step(params), jax.value_and_grad(functools.partial(loss, padded))(params))


@pytest.mark.slow
def test_where_integers_have_64_bits():
    task, records = modeling(), batch()
    params = task.init(key=jax.random.key(0))
    expected = task.train_loss(params, records, key=jax.random.key(0))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(np.int64), records)
        found = jax.jit(task.train_loss)(params, wide, key=jax.random.key(0))
    close(found, expected)


def test_in_bfloat16_the_factors_of_its_products_are_rounded_too():
    task, records = modeling(), batch()
    params = task.init(key=jax.random.key(0))

    def loss(params):
        return task.train_loss(params, records, key=jax.random.key(0)).mean()

    rounded = computing_in(ComputeDtype.BFLOAT16, jax.grad(loss))
    text = jax.jit(rounded).lower(params).as_text()
    assert 'influence_jax_attend' not in text
    assert text.count('reduce_precision') > 20


def test_other_devices_use_the_form_in_jax():
    *arrays, _, records = problem((32,), 1, 8)
    kernel, _ = both(records, 32)
    text = jax.jit(kernel).trace(*arrays).lower(lowering_platforms=('tpu',)).as_text()
    assert 'custom_call @influence' not in text


def test_long_records_and_other_types_are_left_to_it():
    assert not packed_attention.serves(4096, np.zeros(1, np.float32))
    assert not packed_attention.serves(16, np.zeros(1, np.float16))
