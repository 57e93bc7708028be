"""Layers found in the trace of a loss, and gradients of each example made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.attribution.trace import Kind
from influence_jax.trees import named


def test_gradients_are_those_of_each_example_alone(network):
    model, examples = network
    found = jax.jit(model.network(examples, 'loss').gradients)(model.chosen, examples)
    expected = jax.vmap(
        lambda row: jax.grad(lambda params: model.measure(params, row, 'loss'))(model.chosen)
    )(examples)
    assert list(found) == list(model.chosen)
    for path, leaf in named(expected).items():
        scale = float(jnp.abs(leaf).max()) + 1e-6
        np.testing.assert_allclose(found[path], leaf, atol=2e-5 * scale, err_msg=path)


@pytest.mark.parametrize(
    ('name', 'kinds', 'biases'),
    [
        ('mlp', [Kind.DENSE] * 2, 2),
        ('resnet', [Kind.CONVOLUTION] * 5 + [Kind.DENSE] * 2, 1),
        ('strided', [Kind.CONVOLUTION] + [Kind.DENSE] * 3, 4),
        ('gpt_neo', [Kind.EMBEDDING] + [Kind.DENSE] * 13, 6),
    ],
)
def test_every_layer_is_found(networks, name, kinds, biases):
    model, examples = networks[name]()
    layers = model.network(examples, 'loss').layers
    assert [layer.kind for layer in layers] == kinds
    assert sum(layer.bias is not None for layer in layers) == biases
    assert len({layer.name for layer in layers}) == len(layers)


def test_what_no_layer_uses_is_named(network):
    model, examples = network
    found = model.network(examples, 'loss')
    in_layers = {path for layer in found.layers for path in (layer.path, layer.bias)}
    assert in_layers | set(found.others) >= set(model.chosen)
    assert all('norm' in path or 'position' in path for path in found.others)


def test_a_block_and_its_leaves_are_transposes(network):
    model, examples = network
    found = model.network(examples, 'loss')
    generator = np.random.default_rng(0)
    params = {
        path: jnp.asarray(generator.normal(size=leaf.shape), jnp.float32)
        for path, leaf in model.chosen.items()
    }
    for layer in found.layers:
        block = jnp.asarray(generator.normal(size=(layer.inputs, layer.outputs)), jnp.float32)
        leaves = layer.leaves(block, found.shapes)
        there = sum(float((params[path] * leaf).sum()) for path, leaf in leaves.items())
        np.testing.assert_allclose((layer.block(params) * block).sum(), there, rtol=1e-4)
