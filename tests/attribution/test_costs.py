"""What scores cost before they are computed: FLOPs by sizes, bytes, networks that are shapes."""

import dataclasses

import jax
import numpy as np
import pytest

from influence_jax import attribution, kernels
from influence_jax.attribution import (
    KFAC,
    TRAK,
    Compressed,
    GradientNorm,
    Gradients,
    Model,
    Records,
)


def flops_of(found):
    return {stage.name: stage.flops for stage in found.stages}


@pytest.mark.parametrize(
    'method', [Gradients(), KFAC(), KFAC(corrected=False), TRAK(2), Compressed()]
)
def test_shapes_cost_what_the_network_itself_does(networks, method):
    model, examples = networks['mlp']()
    records = Records(examples, examples)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model.params)
    of_shapes = attribution.cost(method, dataclasses.replace(model, variables=shapes), records)
    assert of_shapes == attribution.cost(method, model, records)
    assert of_shapes.flops == sum(flops_of(of_shapes).values()) > 0
    assert of_shapes.bytes >= method.bytes_needed([model], records)


def test_convolutions_are_counted_whoever_computes_them(networks):
    model, examples = networks['resnet']()
    records = Records(examples, examples)
    found = attribution.cost(Gradients(), model, records)
    try:
        kernels.use(False)
        jax.clear_caches()
        assert attribution.cost(Gradients(), model, records) == found
    finally:
        kernels.use(True)
    # Two convolutions at least between 8 channels and more, of 4x4 pixels, forward alone.
    assert found.flops > 2 * records.num_examples * 2 * 9 * 8 * 8 * 16


def test_products_and_gradients_grow_with_records_and_width(networks):
    model, examples = networks['mlp']()
    records = Records(examples, examples)
    found = flops_of(attribution.cost(Gradients(), model, records))
    count = records.num_examples
    assert found['products'] == 2 * count**2 * model.size
    # Of two products in a layer, forward and backward: at least 4 FLOPs a weight and record.
    assert found["examples' features"] >= 4 * 0.7 * count * model.size
    twice = dataclasses.replace(
        records, examples=jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), examples)
    )
    longer = flops_of(attribution.cost(Gradients(), model, twice))
    assert longer['products'] == 2 * found['products']
    assert longer["examples' features"] == 2 * found["examples' features"]
    assert longer["targets' features"] == found["targets' features"]


def test_features_that_do_not_fit_are_counted_once_for_each_block(networks):
    model, examples = networks['mlp']()
    records = Records(examples, examples, block=2, batch=1)
    whole = attribution.cost(Gradients(), model, records)
    tight = attribution.cost(
        Gradients(), model, dataclasses.replace(records, memory=whole.bytes - 1)
    )
    assert whole.kept and not tight.kept
    ratio = flops_of(tight)["examples' features"] / flops_of(whole)["examples' features"]
    assert ratio == np.ceil(records.num_targets / 2)


def test_eigenvectors_follow_from_the_sides_of_layers(networks):
    model, examples = networks['mlp']()
    found = flops_of(attribution.cost(KFAC(), model, Records(examples, examples)))
    assert found['eigenvectors'] == 9 * (7**3 + 5**3 + 6**3 + 3**3)  # biases are inputs


def test_parameters_outside_of_blocks_may_be_shapes_too(networks):
    model, examples = networks['gpt_neo']()
    shapes = jax.eval_shape(lambda: model.task.init(key=jax.random.key(0)))
    chosen = Model(model.task, shapes, ('mlp',))
    found = attribution.cost(Compressed(), chosen, Records(examples, examples))
    # Of two blocks, up and down: 8 inputs and a bias by 16 of 32, 16 of 33 by 8 outputs.
    assert found.width == 2 * (9 * 16 + 16 * 8)


def test_a_method_of_unknown_cost_says_so(networks):
    model, examples = networks['mlp']()
    with pytest.raises(TypeError, match='gradient norm'):
        attribution.cost(GradientNorm(), model, Records(examples, examples))
