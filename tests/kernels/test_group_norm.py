"""GroupNorm by the kernel is its form in JAX, in derivatives of every order."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from influence_jax.kernels import functions, group_norm
from influence_jax.kernels.group_norm import GroupNormalization
from influence_jax.models import ResNetConfig
from influence_jax.models.group_norm import GroupNorm, _normalized
from influence_jax.training.compute_dtype import ComputeDtype, computing_in

pytestmark = pytest.mark.skipif(
    not group_norm.serves(np.zeros((1, 1, 1, 1), np.float32)),
    reason='there is no C++ compiler, or this is no CPU',
)

SHAPES = {
    'the default network': ((20, 8, 8, 32), 8),
    'part of a vector of channels': ((9, 3, 5, 20), 4),
    'few channels, each a group': ((3, 2, 7, 3), 3),
    'one pixel': ((4, 1, 1, 24), 2),
    'no images': ((0, 4, 4, 16), 4),
}
KINDS = list(itertools.product([False, True], repeat=2))


def problem(shape, kind):
    """Arrays, weights of the values."""
    rng = np.random.default_rng(0)
    _, adds = kind
    x, added, weights = (jnp.asarray(rng.standard_normal(shape, np.float32)) for _ in range(3))
    scale, shift = (jnp.asarray(rng.standard_normal(shape[-1:], np.float32)) for _ in range(2))
    return [2 * x + 0.5, scale, shift] + [added] * adds, weights


def both(groups, kind):
    rectified, adds = kind
    in_jax = functools.partial(_normalized, groups, rectified)
    form = GroupNormalization(groups, rectified, adds, in_jax)
    return functools.partial(functions.call, form), in_jax


def gradients(normalize, weights):
    def weighted(*arrays):
        return jnp.vdot(jnp.sin(normalize(*arrays)), weights)

    return lambda *arrays: jax.grad(weighted, argnums=range(len(arrays)))(*arrays)


def close(found, expected, tolerance=2e-5):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for a, b in pairs:
        scale = max(1e-3, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=tolerance * scale)


@pytest.mark.parametrize(('shape', 'groups'), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('kind', KINDS, ids=str)
@pytest.mark.parametrize('threads', [False, True])
def test_values_and_gradients(shape, groups, kind, threads, monkeypatch):
    monkeypatch.setattr(group_norm, 'threads', lambda: threads)
    arrays, weights = problem(shape, kind)

    def computed(normalize):
        return normalize(*arrays), gradients(normalize, weights)(*arrays)

    close(*(jax.jit(functools.partial(computed, f))() for f in both(groups, kind)))


@pytest.mark.parametrize('kind', KINDS, ids=str)
def test_second_derivatives_of_either_mode(kind):
    shape, groups = SHAPES['part of a vector of channels']
    arrays, weights = problem(shape, kind)
    tangents = [jnp.cos(array) for array in arrays]

    def products(normalize):
        first = gradients(normalize, weights)
        forward = jax.jvp(first, tuple(arrays), tuple(tangents))[1]

        def along(*arrays):
            return sum(map(jnp.vdot, first(*arrays), tangents))

        return forward, jax.grad(along, argnums=range(len(arrays)))(*arrays)

    close(*(jax.jit(functools.partial(products, f))() for f in both(groups, kind)), 1e-4)


@pytest.mark.parametrize('axes', [(0, 0, 0, 0), (0, None, None, 0), (None, 0, None, None)], ids=str)
def test_under_vmap_once_and_twice(axes):
    kind = True, True
    shape, groups = (5, 2, 7, 6), 3
    arrays, weights = problem(shape, kind)
    stacked = [
        array if axis is None else jnp.stack([array, -array, 2 * array, 3 * array])
        for array, axis in zip(arrays, axes, strict=True)
    ]
    double = [
        array if axis is None else jnp.stack([array, jnp.cos(array)])
        for array, axis in zip(stacked, axes, strict=True)
    ]

    def computed(normalize):
        once = jax.vmap(gradients(normalize, weights), axes)
        return once(*stacked), jax.vmap(jax.vmap(normalize, axes), axes)(*double)

    close(*(jax.jit(functools.partial(computed, f))() for f in both(groups, kind)))


def test_of_no_images_in_problems_of_problems():
    normalize, _ = both(4, (False, False))
    arrays = [jnp.zeros((2, 3, *shape)) for shape in ((0, 4, 4, 8), (8,), (8,))]
    found = jax.vmap(jax.vmap(normalize))(*arrays)
    assert found.shape == (2, 3, 0, 4, 4, 8)


def test_images_far_from_zero():
    """Where the mean of squares less the square of the mean would be rounding."""
    shape, groups = (2, 4, 4, 8), 4
    (x, scale, shift), _ = problem(shape, (False, False))
    x = 1e4 + jnp.round(8 * x)
    grouped = np.asarray(x, np.float64).reshape(2, 16, groups, 2)
    moments = grouped.mean((1, 3), keepdims=True), grouped.std((1, 3), keepdims=True)
    expected = ((grouped - moments[0]) / moments[1]).reshape(shape)
    expected = expected * np.asarray(scale) + np.asarray(shift)
    normalize, _ = both(groups, (False, False))
    np.testing.assert_allclose(normalize(x, scale, shift), expected, atol=2e-3)


def test_what_is_no_number_stays_so_in_its_image_and_group():
    shape, groups = SHAPES['part of a vector of channels']
    arrays, _ = problem(shape, (True, False))
    arrays[0] = arrays[0].at[3, 0, 0, 6].set(jnp.nan)
    normalize, _ = both(groups, (True, False))
    found = np.isnan(normalize(*arrays))
    assert found[3, :, :, 5:10].all()
    assert found.sum() == found[3, :, :, 5:10].size


def test_threads_change_no_digit(monkeypatch):
    shape, groups = SHAPES['the default network']
    arrays, weights = problem(shape, (True, True))
    computed = gradients(both(groups, (True, True))[0], weights)
    found = []
    for threads in (False, True):
        monkeypatch.setattr(group_norm, 'threads', lambda threads=threads: threads)
        found.append(jax.jit(lambda *arrays: computed(*arrays))(*arrays))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_where_what_is_rectified_is_no_number_its_gradient_is_zero():
    shape, groups = SHAPES['one pixel']
    arrays, weights = problem(shape, (True, True))
    arrays[3] = arrays[3].at[1, 0, 0, 5].set(jnp.nan)
    found, expected = (
        jax.vjp(normalize, *arrays)[1](weights) for normalize in both(groups, (True, True))
    )
    assert found[3][1, 0, 0, 5] == 0
    close(found, expected)


def test_a_call_that_was_made_before_is_not_compiled_again():
    x = jnp.ones((1, 2, 2, 8))
    GroupNorm(8, 4)(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GroupNormalization, 'value', lambda *_: pytest.fail('it is compiled'))
        GroupNorm(8, 4)(x)


@pytest.mark.parametrize('dtype', ComputeDtype)
def test_residual_networks_are_trained_by_it(dtype):
    images = jnp.zeros((2, 8, 8, 3))
    config = ResNetConfig(3, width=8, blocks=(1, 1))
    network = nnx.eval_shape(lambda: config(nnx.Rngs(params=0)))
    structure, params = nnx.split(network)

    def loss(params):
        return nnx.merge(structure, params)(images).sum()

    text = jax.jit(computing_in(dtype, jax.grad(loss))).lower(params).as_text()
    assert text.count('custom_call @influence_jax_group_norm(') == 5
    assert text.count('custom_call @influence_jax_group_norm_gradients(') == 5


def test_other_devices_and_types_use_the_form_in_jax():
    shape, groups = SHAPES['one pixel']
    arrays, _ = problem(shape, (False, False))
    normalize, _ = both(groups, (False, False))
    text = jax.jit(normalize).trace(*arrays).lower(lowering_platforms=('tpu',)).as_text()
    assert 'custom_call @influence' not in text
    assert not group_norm.serves(np.zeros((1, 4, 4, 8), np.float16))
    assert not group_norm.serves(np.zeros((1, 32, 32, 32), np.float32))
