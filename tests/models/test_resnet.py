"""Shapes, resolution, and that images do not see each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from influence_jax.models.resnet import ResNet, ResNetConfig, halve

SMALL = ResNetConfig(num_classes=5, width=8, blocks=(1, 1), patch=2)


def _abstract(config=SMALL, channels=3):
    """Structure and shapes of the parameters; nothing is computed."""
    config = dataclasses.replace(config, channels=channels)
    return nnx.split(nnx.eval_shape(lambda: ResNet(config, rngs=nnx.Rngs(params=0))))


@functools.cache
def _params():
    """Drawn by numpy, which compiles nothing."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), _abstract()[1]
    )


def _logits(params, images):
    return nnx.merge(_abstract()[0], params)(images)


def _images(*shape):
    return np.random.default_rng(1).standard_normal(shape, np.float32)


@jax.jit
def _gradients(params, images, counted):
    """Of the counted images' squared logits, with respect to parameters and images."""

    def total(params, images):
        return (_logits(params, images) ** 2).sum(1) @ counted

    return jax.grad(total, argnums=(0, 1))(params, images)


@pytest.mark.parametrize(
    'config',
    [
        SMALL,
        ResNetConfig(num_classes=2, width=8, blocks=(1,), patch=1),
        ResNetConfig(num_classes=3, width=16, blocks=(2, 1, 3), patch=2, groups=4),
    ],
)
@pytest.mark.parametrize('size', [(16, 16), (7, 10), (1, 1)], ids=str)
@pytest.mark.parametrize('channels', [1, 3])
def test_shape_of_the_logits(config, size, channels):
    structure, params = _abstract(config, channels)
    logits = jax.eval_shape(
        lambda params, images: nnx.merge(structure, params)(images),
        params,
        jax.ShapeDtypeStruct((2, *size, channels), jnp.float32),
    )
    assert logits.shape == (2, config.num_classes)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize(('channels', 'stem'), [(1, 4), (3, 12)])
def test_every_stage_doubles_the_width_and_holds_its_blocks(channels, stem):
    config = ResNetConfig(num_classes=3, width=8, blocks=(2, 1), patch=2)
    leaves = jax.tree.leaves(_abstract(config, channels)[1])
    expected = [(3, 3, stem, 8)]  # 2x2 patches as channels
    expected += [(3, 3, 8, 8)] * 4  # two blocks of two convolutions
    expected += [(3, 3, 8, 16), (3, 3, 16, 16)]
    assert sorted(leaf.shape for leaf in leaves if len(leaf.shape) == 4) == sorted(expected)


def test_odd_sizes_are_padded_with_zeros_below_and_on_the_right():
    images = _images(2, 7, 6, 3)
    padded = np.pad(images, ((0, 0), (0, 1), (0, 2), (0, 0)))
    network = jax.jit(_logits)
    np.testing.assert_allclose(
        network(_params(), images), network(_params(), padded), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('image', range(3))
def test_logits_of_an_image_do_not_depend_on_the_others(image):
    """The gradient of an image's logits is exactly zero in all other images."""
    counted = np.arange(3) == image
    _, gradient = _gradients(_params(), _images(3, 8, 8, 3), counted.astype(np.float32))
    np.testing.assert_array_equal(np.abs(gradient).max((1, 2, 3)) > 0, counted)


def test_every_parameter_and_pixel_counts():
    of_params, of_images = _gradients(_params(), _images(3, 8, 8, 3), np.ones(3, np.float32))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(of_params))
    assert (np.abs(of_images).sum((0, 3)) > 0).all()


def test_halving_is_the_mean_of_four_pixels():
    x = _images(2, 4, 6, 3)
    expected = x.reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(jax.jit(halve)(x), expected, rtol=1e-5, atol=1e-6)


def test_no_images_have_no_logits():
    assert jax.jit(_logits)(_params(), jnp.zeros((0, 8, 8, 3))).shape == (0, 5)


def test_downsampling():
    assert ResNetConfig(2, blocks=(1, 1, 1), patch=4).downsampling == 16


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'width': 12}, 'width 12 does not divide into 8 groups; use a multiple of 8'),
        ({'width': 0}, 'at least 1'),
        ({'blocks': ()}, 'at least 1'),
        ({'blocks': (1, 0)}, 'at least 1'),
        ({'patch': 0}, 'at least 1'),
        ({'num_classes': 1}, 'at least 2'),
    ],
)
def test_impossible_shapes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ResNetConfig(**{'num_classes': 3, **wrong})
