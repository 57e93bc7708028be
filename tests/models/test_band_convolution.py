"""Convolutions as products with band matrices are the convolutions themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.models import band_convolution
from influence_jax.models.convolution import conv3x3
from influence_jax.training.compute_dtype import ComputeDtype, computing_in

WIDTHS = (1, 2, 6, 8, 11, 12, 16)


def _problem(width, members=()):
    normal = np.random.default_rng(width).standard_normal
    shapes = (*members, 3, 5, width, 4), (*members, 3, 3, 4, 7), (*members, 3, 5, width, 7)
    return [jnp.asarray(normal(shape, np.float32)) for shape in shapes]


@pytest.mark.parametrize('width', WIDTHS)
def test_product_with_the_band_is_the_convolution(width):
    images, kernel, _ = _problem(width)
    found = band_convolution.convolution(jnp.float32, images, kernel)
    np.testing.assert_allclose(found, conv3x3(images, kernel), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('width', WIDTHS)
def test_gradient_by_the_kernel_is_that_of_the_convolution(width):
    images, kernel, cotangent = _problem(width)
    expected = jax.vjp(lambda k: conv3x3(images, k), kernel)[1](cotangent)[0]
    found = band_convolution.by_kernel(jnp.float32, images, cotangent)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_rounded_factors_have_float32_sums():
    images, kernel, _ = _problem(8)
    found = band_convolution.convolution(jnp.bfloat16, images, kernel)
    rounded = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in (images, kernel)]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, conv3x3(*rounded), rtol=1e-4, atol=1e-4)
    assert not np.allclose(found, conv3x3(images, kernel), rtol=1e-4, atol=1e-4)


def _gradients(images, kernel, cotangent):
    return jax.grad(lambda x, k: jnp.vdot(conv3x3(x, k), cotangent), argnums=(0, 1))(images, kernel)


def _compiled_for(function, platform, *arguments):
    traced = jax.jit(function).trace(*arguments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_members_with_kernels_of_their_own_have_no_grouped_convolutions_on_nvidia():
    several = _problem(8, members=(2,))
    text = _compiled_for(jax.vmap(_gradients), 'cuda', *several)
    assert 'stablehlo.dot_general' in text and 'stablehlo.convolution' not in text
    # A kernel that all images share is a plain convolution, which its library runs well.
    assert 'stablehlo.convolution' in _compiled_for(_gradients, 'cuda', *_problem(8))
    assert 'stablehlo.convolution' in _compiled_for(jax.vmap(_gradients), 'tpu', *several)


@pytest.mark.parametrize('members', [(), (2,)])
def test_factors_are_of_bfloat16_on_accelerators_and_rounded_on_a_cpu(members):
    gradients = jax.vmap(_gradients) if members else _gradients
    rounded = computing_in(ComputeDtype.BFLOAT16, gradients)
    problem = _problem(8, members)
    for platform in ('cuda', 'tpu'):
        assert 'bf16' in _compiled_for(rounded, platform, *problem)
        assert 'bf16' not in _compiled_for(gradients, platform, *problem)
    text = _compiled_for(rounded, 'cpu', *problem)
    assert 'bf16' not in text and 'reduce_precision' in text
    whole = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in problem]
    for found, expected in zip(rounded(*problem), gradients(*whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
