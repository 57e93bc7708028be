"""The hand-written gradients are those that JAX derives, also where members are trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.models import convolution
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


def test_products_with_hessians_are_the_automatic_ones():
    images, kernel, weights = _problem()
    tangents = (np.cos(images), np.sin(kernel))

    def product(convolve):
        gradients = _gradients(convolve)
        forward_over_reverse = jax.jvp(
            lambda x, k: gradients(x, k, weights), (images, kernel), tangents
        )[1]

        def along(x, k):
            pairs = zip(gradients(x, k, weights), tangents, strict=True)
            return sum(jnp.vdot(gradient, tangent) for gradient, tangent in pairs)

        reverse_over_reverse = jax.grad(along, argnums=(0, 1))(images, kernel)
        return forward_over_reverse, reverse_over_reverse

    _assert_close(*_both(product))


@pytest.mark.parametrize('axes', [(0, 0), (0, None), (None, 0), (1, 3)], ids=str)
def test_second_derivatives_under_vmap_twice(axes):
    """Over members and over tangents, each with one or both arguments its own."""
    images, kernel, weights = _problem()

    def stacked(x, axis):
        return x if axis is None else np.stack([x, -2 * x, np.sin(x)], axis)

    def product(convolve):
        def of_member(x, k):
            def of_tangent(dx, dk):
                gradients = _gradients(convolve)
                return jax.jvp(lambda *p: gradients(*p, weights), (x, k), (dx, dk))[1]

            pair = (jnp.stack([x, jnp.cos(x)]), jnp.stack([k, jnp.cos(k)]))
            return jax.vmap(of_tangent)(*pair), jax.vmap(of_tangent, (None, 0))(x, pair[1])

        return jax.vmap(of_member, axes)(stacked(images, axes[0]), stacked(kernel, axes[1]))

    _assert_close(*_both(product))


def test_second_derivatives_are_convolutions_of_the_fast_form():
    """On a CPU no convolution has other dimension numbers than the plain ones."""
    images, kernel, weights = _problem()

    def loss(kernel):
        return jnp.vdot(jnp.sin(conv3x3(images, kernel)), weights)

    def product(kernel, tangent):
        return jax.jvp(jax.grad(loss), (kernel,), (tangent,))[1]

    text = jax.jit(product).lower(kernel, kernel).as_text()
    found = [line for line in text.splitlines() if 'stablehlo.convolution' in line]
    assert len(found) == 3  # of the images alone, of the tangent, of its gradient
    assert all('[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]' in line for line in found)


def test_forms_of_other_platforms_are_the_same_maps():
    images, kernel, cotangent = _problem()
    _assert_close(
        convolution._by_images(cotangent, kernel),
        convolution._automatic_by_images(cotangent, kernel),
    )
    _assert_close(
        convolution._by_kernel(images, cotangent),
        convolution._automatic_by_kernel(images, cotangent),
    )
    lowered = jax.jit(_gradients(conv3x3)).trace(images, kernel, cotangent)
    text = lowered.lower(lowering_platforms=('cuda',)).as_text()
    assert 'optimization_barrier' not in text
