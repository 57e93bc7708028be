"""Winograd's convolutions are those of XLA, for any shape and number of threads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.kernels import convolutions, winograd
from influence_jax.kernels.winograd import WINOGRAD
from influence_jax.models.convolution import _by_images, _by_kernel, _convolve, conv3x3

pytestmark = pytest.mark.skipif(
    not winograd.serves(16, 16), reason='there is no C++ compiler, or the kernels are off'
)

SHAPES = {
    'the default network': (48, 8, 8, 32, 32),
    'odd sides, parts of vectors': (3, 7, 5, 9, 21),
    'inputs wider than outputs': (5, 4, 4, 64, 17),
    'one pixel': (1, 1, 1, 16, 8),
    'one row': (2, 1, 9, 8, 33),
    'fewer tiles than a block': (1, 3, 2, 48, 40),
    'no images': (0, 4, 4, 16, 16),
}


def problem(batch, height, width, inputs, outputs):
    normal = np.random.default_rng(0).standard_normal
    return (
        normal((batch, height, width, inputs), np.float32),
        normal((3, 3, inputs, outputs), np.float32),
        normal((batch, height, width, outputs), np.float32),
    )


def close(found, expected):
    scale = max(np.abs(expected).max(initial=0), 1e-30)
    np.testing.assert_allclose(found / scale, expected / scale, atol=5e-6)


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('threads', [False, True])
def test_convolution_and_gradients_are_those_of_xla(shape, threads, monkeypatch):
    monkeypatch.setattr(convolutions, 'threads', lambda: threads)
    images, kernel, cotangent = problem(*shape)
    close(WINOGRAD.convolution(images, kernel), _convolve(images, kernel))
    close(WINOGRAD.by_images(cotangent, kernel), _by_images(cotangent, kernel))
    close(WINOGRAD.by_kernel(images, cotangent), _by_kernel(images, cotangent))


def test_threads_change_no_digit(monkeypatch):
    images, kernel, cotangent = problem(*SHAPES['the default network'])
    found = {}
    for threads in (False, True):
        monkeypatch.setattr(convolutions, 'threads', lambda threads=threads: threads)
        found[threads] = (
            WINOGRAD.convolution(images, kernel),
            WINOGRAD.by_images(cotangent, kernel),
            WINOGRAD.by_kernel(images, cotangent),
        )
    for alone, shared in zip(found[False], found[True], strict=True):
        np.testing.assert_array_equal(alone, shared)


def test_several_problems_are_each_computed_alone():
    images, kernel, cotangent = (
        np.stack([x, -2 * x]) for x in problem(*SHAPES['odd sides, parts of vectors'])
    )
    for compute, a, b in (
        (WINOGRAD.convolution, images, kernel),
        (WINOGRAD.by_images, cotangent, kernel),
        (WINOGRAD.by_kernel, images, cotangent),
    ):
        alone = np.stack([compute(*pair) for pair in zip(a, b, strict=True)])
        np.testing.assert_array_equal(compute(a, b), alone)


def test_a_network_calls_it_for_the_convolution_and_both_gradients():
    images, kernel, cotangent = problem(*SHAPES['the default network'])
    gradients = jax.grad(lambda x, k: jnp.vdot(conv3x3(x, k), cotangent), argnums=(0, 1))
    text = jax.jit(lambda x, k: (conv3x3(x, k), gradients(x, k))).lower(images, kernel).as_text()
    assert 'stablehlo.convolution' not in text
    assert text.count('custom_call @influence_jax_convolve') == 2
    assert text.count('custom_call @influence_jax_kernel_gradient') == 1


def test_second_derivatives_are_those_of_xla():
    images, kernel, cotangent = problem(2, 5, 4, 9, 17)
    tangents = np.cos(images), np.sin(kernel)

    def product(convolve):
        gradients = jax.grad(
            lambda x, k: jnp.vdot(jnp.sin(convolve(x, k)), cotangent), argnums=(0, 1)
        )
        return jax.jit(lambda: jax.jvp(gradients, (images, kernel), tangents)[1])()

    for found, expected in zip(product(conv3x3), product(_convolve), strict=True):
        close(found, expected)


def test_few_channels_are_left_to_xla():
    assert not winograd.serves(3, 64)
    assert not winograd.serves(64, 4)
    assert not winograd.serves(8192, 64)
    images, kernel, _ = problem(1, 4, 4, 3, 64)
    assert 'custom_call' not in jax.jit(conv3x3).lower(images, kernel).as_text()


def test_a_memory_of_a_thread_serves_larger_and_smaller_problems():
    for channels in (8, 64, 16):
        images, kernel, cotangent = problem(2, 6, 6, channels, channels)
        close(WINOGRAD.by_kernel(images, cotangent), _by_kernel(images, cotangent))
        close(WINOGRAD.convolution(images, kernel), _convolve(images, kernel))
