"""Layers found in the trace of a loss, and gradients of each example made of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.attribution import Model, Network
from influence_jax.attribution.trace import Kind
from influence_jax.tasks.language_modeling import LanguageModeling
from influence_jax.trees import named


def test_gradients_are_those_of_each_example_alone(network):
    model, examples = network
    found = jax.jit(model.network(examples, 'loss').gradients)(model.chosen, examples)
    slope = jax.grad(lambda params, row: model.measure(params, row, 'loss'))
    expected = jax.jit(jax.vmap(slope, (None, 0)))(model.chosen, examples)
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


@pytest.mark.parametrize('reverse', [False, True])
def test_layers_in_a_scan_are_those_of_each_step(reverse):
    generator = np.random.default_rng(0)
    params = {
        'kernel': jnp.asarray(generator.normal(size=(3, 4, 4)), jnp.float32),
        'bias': jnp.asarray(generator.normal(size=(3, 4)), jnp.float32),
    }
    rows = jnp.asarray(generator.normal(size=(2, 4)), jnp.float32)

    def step(x, now):
        x = jnp.tanh(x @ now['kernel'] + now['bias'])
        return x, x.sum()

    def scanned(params, row):
        x, sums = jax.lax.scan(jax.checkpoint(step), row, params, reverse=reverse)
        return x.sum() + (jnp.arange(3) * sums).sum()

    def unrolled(params, row):
        x, total = row, jnp.zeros(())
        for number in (2, 1, 0) if reverse else (0, 1, 2):
            x, sums = step(x, jax.tree.map(lambda leaf, number=number: leaf[number], params))
            total += number * sums
        return x.sum() + total

    one, other = (Network(loss, params, rows[0]) for loss in (scanned, unrolled))
    assert [layer.name for layer in one.layers] == ['kernel#0', 'kernel#1', 'kernel#2']
    assert not one.others and all(layer.bias == 'bias' for layer in one.layers)
    both = (jax.jit(network.blocks)(params, rows) for network in (one, other))
    for found, expected in zip(*both, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_deep_language_model_has_the_layers_of_every_block(networks):
    model, examples = networks['gpt_neo']()
    deep = dataclasses.replace(model.task.config, remat=True)
    scanned = Model(LanguageModeling(deep), model.params).network(examples, 'loss')
    unrolled = model.network(examples, 'loss')
    assert [layer.name for layer in scanned.layers] == [layer.name for layer in unrolled.layers]
    found, expected = (
        jax.jit(network.blocks)(model.chosen, examples) for network in (scanned, unrolled)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_weights_in_a_loop_that_is_not_looked_into_are_refused():
    def loss(params, row):
        return jax.lax.while_loop(lambda x: x.sum() > 1, lambda x: x @ params['kernel'], row).sum()

    params, rows = {'kernel': jnp.eye(3) / 2}, jnp.ones((2, 3))
    with pytest.raises(ValueError, match='kernel enters a while'):
        Network(loss, params, rows[0]).blocks(params, rows)


LOSSES = {
    'a weight that is penalized': lambda p, x: (
        jnp.tanh(x @ p['w'] + p['b']).sum() + 0.5 * (p['w'] ** 2).sum()
    ),
    'a table that is scaled and tied': lambda p, x: jnp.tanh(x @ (2 * p['w']) @ p['w'].T).sum(),
    'an output that is used before its bias': lambda p, x: (
        lambda h: (jnp.tanh(h + p['b']) * h).sum()
    )(x @ p['w']),
    'a parameter without a use': lambda p, x: jnp.tanh(x @ p['w']).sum(),
}


@pytest.mark.parametrize('name', LOSSES)
def test_what_a_layer_and_others_use_counts_once(name):
    generator = np.random.default_rng(0)
    params = {
        'w': jnp.asarray(generator.normal(size=(3, 4)), jnp.float32),
        'b': jnp.asarray(generator.normal(size=4), jnp.float32),
    }
    rows = jnp.asarray(generator.normal(size=(2, 3)), jnp.float32)
    loss = LOSSES[name]
    found = jax.jit(Network(loss, params, rows[0]).gradients)(params, rows)
    expected = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, rows)
    for path in params:
        np.testing.assert_allclose(found[path], expected[path], rtol=1e-5, atol=1e-6)


def test_a_bias_that_is_a_part_of_its_weight_counts_in_full():
    def loss(params, row):
        return jnp.sum(jnp.tanh(row @ params['w'] + params['w'][0]) ** 2)

    params = {'w': jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)}
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
    found = Network(loss, params, rows[0])
    (layer,) = found.layers
    assert layer.bias is None
    expected = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, rows)
    found = jax.jit(found.gradients)(params, rows)
    np.testing.assert_allclose(found['w'], expected['w'], rtol=1e-5)
