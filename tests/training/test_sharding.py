"""Rules over paths, and the optimiser's state that follows them."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from influence_jax.models.gpt_neo import SHARDING_RULES, GPTNeoConfig, abstract
from influence_jax.models.lora import LoRA
from influence_jax.training.member import State
from influence_jax.training.mesh import REPLICATED, MeshShape, specs, state_specs
from influence_jax.trees import named

CONFIG = GPTNeoConfig(51, hidden=16, layers=2, heads=4, max_positions=8)
SHAPE = MeshShape(1, 2, 4)


def _zeros(**shapes):
    return {name: jnp.zeros(shape) for name, shape in shapes.items()}


def test_the_first_rule_that_is_found_holds():
    rules = (('kernel$', P('data', 'model')), ('dense/', P('model')), ('', P()))
    params = {'dense': _zeros(kernel=(4, 8), bias=(8,)), 'scale': jnp.zeros(3)}
    assert named(specs(params, rules, SHAPE)) == {
        'dense/bias': P('model'),
        'dense/kernel': P('data', 'model'),
        'scale': P(),
    }


def test_a_parameter_that_no_rule_knows():
    with pytest.raises(ValueError, match=r'no rule says where the parameter b/w \[3\] lies'):
        specs({'a': _zeros(w=(3,)), 'b': _zeros(w=(3,))}, (('^a/', P()),), SHAPE)


def test_an_axis_that_does_not_divide():
    message = r'axis 1 of w, 6 long, does not divide over data x model = 8 of the mesh \(1, 2, 4\)'
    with pytest.raises(ValueError, match=message):
        specs(_zeros(w=(4, 6)), (('w', P(None, ('data', 'model'))),), SHAPE)


def test_a_rule_with_too_many_axes():
    with pytest.raises(ValueError, match='rule of w has 2 axes, but the parameter has 1'):
        specs(_zeros(w=(4,)), (('w', P(None, 'data')),), SHAPE)


@pytest.mark.parametrize('shape', [MeshShape(8), MeshShape(2, 2, 2), SHAPE, MeshShape(1, 16)])
def test_every_parameter_of_gpt_neo_has_its_place(shape):
    found = named(specs(abstract(CONFIG), SHARDING_RULES, shape))
    assert found['token_embedding'] == P(None, ('model', 'data'))
    assert found['layers/attention/value'] == P(None, 'data', 'model')
    assert found['layers/mlp/down'] == P(None, 'model', 'data')
    # Nothing large is on every device.
    large = [path for path, leaf in named(abstract(CONFIG)).items() if leaf.size > 128]
    assert all('data' in jax.tree.leaves(tuple(found[path])) for path in large)


def test_adapters_are_everywhere():
    lora = LoRA(2, matrices=('layers/attention/query', 'layers/mlp/up'))
    adapters = jax.eval_shape(lambda: lora.init(abstract(CONFIG), key=jax.random.key(0)))
    assert set(named(specs(adapters, SHARDING_RULES, SHAPE)).values()) == {P()}
    assert len(named(adapters)) == 4


@pytest.mark.parametrize('optimizer', [optax.adamw(1e-3), optax.sgd(0.1, momentum=0.9)])
def test_the_state_follows_its_parameter(optimizer):
    params = abstract(CONFIG)
    state = State(params, jax.eval_shape(optimizer.init, params))
    placed = state_specs(state, SHARDING_RULES, SHAPE)
    of_params = named(placed.params)
    of_state = named(placed.optimizer_state)
    followed = 0
    for path, spec in of_state.items():
        owner = [name for name in of_params if path.endswith(f'/{name}')]
        assert spec == (of_params[owner[0]] if owner else P()), path
        followed += len(owner)
    assert followed % len(of_params) == 0
    assert followed


def test_the_state_follows_the_longest_path_and_only_in_its_shape():
    params = {'w': jnp.zeros((4, 8)), 'layer': {'w': jnp.zeros((4, 8))}}
    rules = (('^w$', P('data')), ('^layer/w$', P('model')))
    placed = state_specs(State(params, {'mu': params, 'sum': {'w': jnp.zeros(4)}}), rules, SHAPE)
    assert named(placed.optimizer_state) == {
        'mu/layer/w': P('model'),
        'mu/w': P('data'),
        'sum/w': P(),
    }


def test_replicated_takes_anything():
    assert specs(_zeros(a=(3, 5)), REPLICATED, SHAPE) == {'a': P()}
