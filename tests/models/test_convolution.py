"""The hand-written gradients are those that JAX derives, also where members are trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.models.convolution import conv3x3


def _automatic(images, kernel):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def _problem(batch=3, height=6, width=5, inputs=4, outputs=7):
    normal = np.random.default_rng(0).standard_normal
    return (
        normal((batch, height, width, inputs), np.float32),
        normal((3, 3, inputs, outputs), np.float32),
        normal((batch, height, width, outputs), np.float32),
    )


def _gradients(convolve):
    def weighted_sum(images, kernel, weights):
        return jnp.vdot(jnp.sin(convolve(images, kernel)), weights)

    return jax.grad(weighted_sum, argnums=(0, 1))


def _both(compute):
    """What `compute` makes of the hand-written convolution and of JAX's own."""
    return jax.jit(lambda: (compute(conv3x3), compute(_automatic)))()


def _assert_close(actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


def test_convolution_is_a_sum_over_shifted_pixels():
    images, kernel, _ = _problem()
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(
        padded[:, row : row + 6, column : column + 5] @ kernel[row, column]
        for row in range(3)
        for column in range(3)
    )
    np.testing.assert_allclose(conv3x3(images, kernel), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'shape', [{}, {'batch': 1, 'inputs': 1}, {'height': 1, 'width': 1}], ids=str
)
def test_gradients_are_the_automatic_ones(shape):
    _assert_close(*_both(lambda convolve: _gradients(convolve)(*_problem(**shape))))


def test_gradients_under_vmap_over_members():
    members = [np.stack([x, -2 * x]) for x in _problem()]
    _assert_close(*_both(lambda convolve: jax.vmap(_gradients(convolve))(*members)))


def test_gradients_within_a_scan():
    images, kernel, weights = _problem()

    def descend(convolve):
        def step(kernel, _):
            gradient = _gradients(convolve)(images, kernel, weights)[1]
            return kernel - 1e-2 * gradient, gradient

        return jax.lax.scan(step, kernel, length=4)

    _assert_close(*_both(descend))
