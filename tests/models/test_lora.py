"""Adapters against the matrices that they stand for, and what of them is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.models import gpt_neo
from influence_jax.models.lora import Adapter, LoRA
from influence_jax.trees import named
from tests.models.gpt_neo_cases import (
    SMALL,
    assert_trees_close,
    jit,
    logits,
    params,
    tokens,
    total_loss,
)

ALL = tuple(
    f'layers/{name}'
    for name in (
        'attention/query',
        'attention/key',
        'attention/value',
        'attention/output',
        'mlp/up',
        'mlp/down',
    )
)
LORA = LoRA(rank=3, alpha=6, matrices=ALL)
LENGTHS = np.array([12, 7], np.int32)


def _trained(lora=LORA, seed=0):
    """Adapters whose B is no longer zero."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: lora.init(gpt_neo.abstract(SMALL), key=jax.random.key(0)))
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32), shapes
    )


def _fresh(lora, base, seed=0):
    return jit(lambda: lora.init(base, key=jax.random.key(seed)))()


def test_fresh_adapters_change_nothing():
    adapters = _fresh(LORA, gpt_neo.abstract(SMALL))
    changed = logits(SMALL, params(), tokens(), LORA.scaled(adapters))
    np.testing.assert_array_equal(changed, logits(SMALL, params(), tokens(), None))
    for path, leaf in named(LORA.merge(params(), adapters)).items():
        np.testing.assert_array_equal(leaf, named(params())[path])


@pytest.mark.parametrize('matrices', [ALL, (ALL[0], ALL[-1])], ids=['all', 'two'])
def test_adapters_are_the_merged_weights(matrices):
    lora = dataclasses.replace(LORA, matrices=matrices)
    adapters = _trained(lora)
    merged = lora.merge(params(), adapters)
    changed = {p for p, leaf in named(merged).items() if (leaf != named(params())[p]).any()}
    assert changed == set(matrices)
    actual = logits(SMALL, params(), tokens(), lora.scaled(adapters))
    expected = logits(SMALL, merged, tokens(), None)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(actual - logits(SMALL, params(), tokens(), None)).max() > 0.1


def test_merged_is_w_plus_alpha_over_rank_a_b():
    adapters = _trained()
    adapter = adapters['layers']['mlp']['up']
    expected = params()['layers']['mlp']['up'][...] + 2 * np.einsum(
        'lir,lro->lio', adapter.a, adapter.b
    )
    merged = LORA.merge(params(), adapters)['layers']['mlp']['up'][...]
    np.testing.assert_allclose(merged, expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_merged_weights_also_through_a_scan():
    scanned = dataclasses.replace(SMALL, remat=True)

    def loss(adapters):
        return total_loss(scanned, params(), tokens(), LENGTHS, LORA.scaled(adapters))

    def loss_of_merged(adapters):
        return total_loss(SMALL, LORA.merge(params(), adapters), tokens(), LENGTHS)

    gradient, expected = (jit(jax.grad(f))(_trained()) for f in (loss, loss_of_merged))
    assert_trees_close(gradient, expected, rtol=1e-3, atol=1e-4)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradient))


def test_nothing_of_the_size_of_a_matrix_is_made_for_each_member():
    """K members share the base: no array holds K matrices, only K times the rank's width."""
    members, lora = 5, LoRA(rank=1, matrices=ALL)
    shapes = jax.eval_shape(lambda: lora.init(gpt_neo.abstract(SMALL), key=jax.random.key(0)))
    stacked = jax.tree.map(lambda s: jax.ShapeDtypeStruct((members, *s.shape), s.dtype), shapes)

    def gradient(adapters):
        return jax.grad(lambda a: total_loss(SMALL, params(), tokens(), LENGTHS, lora.scaled(a)))(
            adapters
        )

    jaxpr = str(jax.make_jaxpr(jax.vmap(gradient))(stacked))
    assert '[5,2,1,16]' in jaxpr  # B of the members
    for shape in ('16,16', '16,24', '24,16'):
        assert f'[5,{shape}]' not in jaxpr
        assert f'[5,2,{shape}]' not in jaxpr


def test_members_under_vmap_are_the_single_ones():
    members = [_trained(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    texts = np.stack([tokens(seed=seed) for seed in range(3)])
    together = jax.vmap(lambda a, t: logits.__wrapped__(SMALL, params(), t, LORA.scaled(a)))
    for a, member, text in zip(jit(together)(stacked, texts), members, texts, strict=True):
        alone = logits(SMALL, params(), text, LORA.scaled(member))
        np.testing.assert_allclose(a, alone, rtol=1e-4, atol=1e-5)


def test_decoding_with_adapters_is_decoding_with_merged_weights():
    prompts, lengths = tokens(batch=3, length=5), np.array([5, 2, 4])

    @jit
    def decoded(params, adapters):
        return gpt_neo.greedy(
            SMALL, params, prompts, lengths, new_tokens=6, end=0, adapters=adapters
        )

    expected = decoded(LORA.merge(params(), _trained()), None)
    np.testing.assert_array_equal(decoded(params(), LORA.scaled(_trained())), expected)
    assert (decoded(params(), None) != expected).any()


def test_init():
    lora = LoRA(rank=64, matrices=ALL)
    config = dataclasses.replace(SMALL, hidden=128, inner=512)
    adapters = _fresh(lora, gpt_neo.abstract(config))
    up = adapters['layers']['mlp']['up']
    assert (up.a.shape, up.b.shape) == ((2, 128, 64), (2, 64, 512))
    assert abs(np.std(up.a) * 128**0.5 - 1) < 0.02
    assert not up.b.any()
    count = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    assert lora.parameter_count(gpt_neo.abstract(config)) == count
    assert count == 2 * 64 * (4 * (128 + 128) + 2 * (128 + 512))


def test_a_matrix_begins_the_same_whichever_others_are_adapted():
    alone = LoRA(rank=3, matrices=('layers/mlp/up',))
    a, b = (_fresh(lora, gpt_neo.abstract(SMALL), seed=1) for lora in (LORA, alone))
    np.testing.assert_array_equal(a['layers']['mlp']['up'].a, b['layers']['mlp']['up'].a)
    key, query = (a['layers']['attention'][name].a for name in ('key', 'query'))
    assert np.abs(key - query).max() > 0.01


def test_an_adapter_is_a_low_rank_change():
    adapter = Adapter(np.ones((2, 1), np.float32), np.array([[1, 2, 3]], np.float32))
    np.testing.assert_array_equal(adapter(jnp.array([1.0, 10.0])), [11, 22, 33])


@pytest.mark.parametrize('path', ['layers/attention/keys', 'token_embedding', 'layers/mlp/up_bias'])
def test_what_is_no_matrix_of_a_layer_is_refused(path):
    with pytest.raises(ValueError, match=f"no matrix '{path}' to adapt.*layers/attention/key,"):
        LoRA(matrices=(path,)).init(gpt_neo.abstract(SMALL), key=jax.random.key(0))


@pytest.mark.parametrize('wrong', [{'rank': 0}, {'matrices': ()}])
def test_adapters_of_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r'rank must be|no matrix'):
        LoRA(**wrong)
