"""GroupNorm is the textbook's, by its kernel and without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.kernels import group_norm, library
from influence_jax.models.group_norm import GroupNorm


@pytest.fixture(params=['by the kernel', 'in JAX'], autouse=True)
def _both(request, monkeypatch):
    if request.param == 'by the kernel' and not group_norm.serves(images()):
        pytest.skip('there is no C++ compiler, or this is no CPU')
    monkeypatch.setattr(library, '_in_use', request.param == 'by the kernel')


def images(seed=1):
    return np.random.default_rng(seed).standard_normal((2, 4, 5, 6), np.float32)


def norm():
    made = GroupNorm(6, groups=3)
    made.scale[...] = jnp.arange(1.0, 7.0)
    made.shift[...] = jnp.arange(-3.0, 3.0)
    return made


def expected(x):
    found = np.empty_like(x, np.float64)
    for image in range(2):
        for group in range(3):
            own = slice(2 * group, 2 * group + 2)
            values = x[image, :, :, own].astype(np.float64)
            found[image, :, :, own] = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
    return found * np.arange(1, 7) + np.arange(-3, 3)


def test_it_is_the_textbooks():
    x = 3 * images() + 2
    np.testing.assert_allclose(jax.jit(norm())(x), expected(x), rtol=1e-4, atol=1e-4)


def test_what_is_added_comes_before_what_is_negative_is_made_zero():
    x, added = 3 * images() + 2, images(2)
    found = jax.jit(lambda x, added: norm()(x, added, rectified=True))(x, added)
    assert (np.asarray(found) == 0).any()
    np.testing.assert_allclose(found, np.maximum(expected(x) + added, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('constant', [0.0, 0.3, 100.0])
def test_a_constant_becomes_its_shift(constant):
    of_shift = GroupNorm(6, groups=3)
    of_shift.shift[...] = jnp.arange(6.0)
    normalised = jax.jit(of_shift)(np.full((2, 4, 5, 6), constant, np.float32))
    np.testing.assert_allclose(normalised[1, 2, 3], np.arange(6.0), atol=0.05)


@pytest.mark.unchecked
def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match='channels=20 do not divide into groups=3'):
        GroupNorm(20, 3)
    with pytest.raises(ValueError, match=r'needs \[B H W 6\]'):
        norm()(jnp.zeros((2, 4, 5, 12)))
    with pytest.raises(ValueError, match=r'needs \[B H W 6\]'):
        norm()(jnp.zeros((4, 5, 6)))
    with pytest.raises(ValueError, match='must be like the images'):
        norm()(jnp.zeros((2, 4, 5, 6)), jnp.zeros((1, 4, 5, 6)))
