"""The network against itself: causality, padding, scans, precision, many members at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from influence_jax.models import gpt_neo
from influence_jax.models.gpt_neo import Attention, GPTNeoConfig, network
from influence_jax.trees import named
from tests.models.gpt_neo_cases import (
    SMALL,
    assert_trees_close,
    jit,
    logits,
    loss_and_gradient,
    params,
    tokens,
    value_and_gradient,
)

LENGTHS = np.array([12, 7], np.int32)


def _dependence(config):
    """`[S S]`: whether what is known at a row's position depends on the token at a column's."""
    weights = params(config)

    def hidden(table):
        model = gpt_neo.bind(config, weights)
        model.token_embedding = nnx.Param(table)
        return model.hidden(jnp.arange(12)[None])[0]  # token s is row s of the table

    jacobian = jit(jax.jacrev(hidden))(weights['token_embedding'][...])[:, :, :12]
    return np.abs(jacobian).sum((1, 3)) > 0


def test_no_token_depends_on_a_later_one_and_all_on_every_earlier_one():
    depends = _dependence(SMALL)
    np.testing.assert_array_equal(depends, np.tri(12, dtype=bool))


@pytest.mark.parametrize('layers', [1, 2])
def test_a_local_layer_reaches_one_window_back(layers):
    config = dataclasses.replace(SMALL, layers=layers, attention=(Attention.LOCAL,) * layers)
    distance = np.subtract.outer(np.arange(12), np.arange(12))
    reach = layers * (config.window - 1)
    np.testing.assert_array_equal(_dependence(config), (distance >= 0) & (distance <= reach))


def test_padding_changes_nothing():
    weights, short = params(), tokens(length=9)
    room, lengths = ((0, 0), (0, 3)), np.array([9, 5], np.int32)
    zeros, others = (np.pad(short, room, constant_values=value) for value in (0, 17))
    others[1, 5:] = 3
    expected = logits(SMALL, weights, short)
    for padded in (zeros, others):
        of_padded = logits(SMALL, weights, padded)
        np.testing.assert_allclose(of_padded[0, :9], expected[0], atol=1e-5)
        np.testing.assert_allclose(of_padded[1, :5], expected[1, :5], atol=1e-5)
    assert_trees_close(
        loss_and_gradient(SMALL, weights, others, lengths),
        loss_and_gradient(SMALL, weights, zeros, lengths),
        1e-4,
        1e-5,
    )


def test_a_text_depends_on_no_other():
    first, second = tokens(), tokens()
    second[1] = (second[1] + 5) % SMALL.vocab_size
    a, b = (logits(SMALL, params(), text) for text in (first, second))
    np.testing.assert_array_equal(a[0], b[0])
    assert np.abs(a[1] - b[1]).max() > 0.1


@pytest.mark.parametrize('layers', [3, 4])
@pytest.mark.parametrize('way', ['scan', 'remat'])
def test_scan_and_remat_give_what_unrolled_layers_give(way, layers, monkeypatch):
    deeper = dataclasses.replace(SMALL, layers=layers, attention=())
    expected = loss_and_gradient(deeper, params(deeper), tokens(), LENGTHS)
    if way == 'scan':  # few layers are computed again one at a time, too: it saves no memory else
        monkeypatch.setattr(network, 'UNROLLED_LAYERS', 0)
    config = dataclasses.replace(deeper, remat=way == 'remat')

    def of_layers_in_turn(weights):  # a function of its own, which jit has not seen
        return value_and_gradient(config, weights, tokens(), LENGTHS)

    program = str(jax.make_jaxpr(of_layers_in_turn)(params(deeper)))
    assert program.count('scan[') == 2  # forwards and backwards
    assert any(name in program for name in ('remat', 'checkpoint')) == (way == 'remat')
    assert_trees_close(jit(of_layers_in_turn)(params(deeper)), expected, 1e-4, 1e-5)


def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters():
    config = dataclasses.replace(SMALL, compute_dtype=jnp.bfloat16)
    weights = params(scale=0.1)
    _, expected = loss_and_gradient(SMALL, weights, tokens(), LENGTHS)
    _, gradient = loss_and_gradient(config, weights, tokens(), LENGTHS)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype(np.float32)}
    for (path, a), e in zip(named(gradient).items(), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(a - e) < 0.05 * np.linalg.norm(e) + 1e-4, path
    exact, rounded = (logits(c, weights, tokens()) for c in (SMALL, config))
    assert rounded.dtype == np.float32
    assert 1e-5 < np.abs(exact - rounded).max() < 0.02 * np.abs(exact).max()
    hidden = jax.eval_shape(lambda p: gpt_neo.bind(config, p).hidden(tokens()), weights)
    assert hidden.dtype == jnp.bfloat16


def test_members_under_vmap_are_the_single_ones():
    members = [params(seed=seed) for seed in range(3)]
    texts = np.stack([tokens(seed=seed) for seed in range(3)])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jit(jax.vmap(lambda p, t: value_and_gradient(SMALL, p, t, LENGTHS)))(stacked, texts)
    for number, member in enumerate(members):
        alone = loss_and_gradient(SMALL, member, texts[number], LENGTHS)
        assert_trees_close(jax.tree.map(lambda x, n=number: x[n], together), alone, 1e-4, 1e-5)


def test_initial_parameters():
    config = GPTNeoConfig(vocab_size=500, hidden=64, layers=6, max_positions=50)
    leaves = named(jit(lambda: gpt_neo.init(config, key=jax.random.key(0)))())
    for path, leaf in leaves.items():
        assert leaf.dtype == np.float32
        if path.endswith('scale'):
            np.testing.assert_array_equal(leaf, 1)
        elif path.endswith('bias'):
            np.testing.assert_array_equal(leaf, 0)
        else:
            assert abs(np.std(leaf) / 0.02 - 1) < 0.05, path
            assert abs(np.mean(leaf)) < 1e-3, path
    query = leaves['layers/attention/query']
    assert np.abs(np.corrcoef(query.reshape(6, -1)) - np.eye(6)).max() < 0.06, 'layers differ'
    assert np.abs(query - leaves['layers/attention/key']).max() > 0.01


def test_the_documented_tree_is_the_tree():
    shapes = {path: leaf.shape for path, leaf in named(gpt_neo.abstract(SMALL)).items()}
    assert shapes == {
        'token_embedding': (31, 16),
        'position_embedding': (16, 16),
        'layers/attention_norm/scale': (2, 16),
        'layers/attention_norm/bias': (2, 16),
        'layers/attention/query': (2, 16, 16),
        'layers/attention/key': (2, 16, 16),
        'layers/attention/value': (2, 16, 16),
        'layers/attention/output': (2, 16, 16),
        'layers/attention/output_bias': (2, 16),
        'layers/mlp_norm/scale': (2, 16),
        'layers/mlp_norm/bias': (2, 16),
        'layers/mlp/up': (2, 16, 24),
        'layers/mlp/up_bias': (2, 24),
        'layers/mlp/down': (2, 24, 16),
        'layers/mlp/down_bias': (2, 16),
        'final_norm/scale': (16,),
        'final_norm/bias': (16,),
    }


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match=r'17 tokens, .*max_positions=16'):
        logits(SMALL, params(), tokens(length=17))
