"""What a config refuses, and its way to Hugging Face's fields and back."""

import dataclasses
import time

import jax.numpy as jnp
import pytest

from influence_jax.models.gpt_neo import Attention, GPTNeoConfig
from tests.models.gpt_neo_cases import SMALL

G, L = Attention.GLOBAL, Attention.LOCAL


def test_defaults():
    config = GPTNeoConfig(vocab_size=10, layers=3)
    assert config.inner == 256
    assert config.attention == (G, L, G)
    assert config.windows == (128, 256, 128)
    assert config == GPTNeoConfig(vocab_size=10, layers=3, inner=256, attention=(G, L, G))
    assert hash(config) == hash(GPTNeoConfig(10, layers=3, compute_dtype='float32'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'heads': 3}, 'hidden=16 does not divide into heads=3'),
        ({'attention': (G,)}, 'attention names 1 layers, but layers=2'),
        ({'window': 0}, 'window must be at least 1 .*, not 0'),
        ({'layers': -1}, 'layers must be at least 1 .*, not -1'),
        ({'layers': 10**12}, 'layers must be .*, not 1000000000000'),
        ({'vocab_size': 2**40}, 'vocab_size must be'),
        ({'hidden': 2**40}, 'hidden must be|inner must be'),
        ({'max_positions': 2**40}, 'max_positions must be'),
        ({'window': 2**31}, 'window must be'),
        ({'norm_epsilon': float('nan')}, 'norm_epsilon must be .*, not nan'),
        ({'norm_epsilon': float('inf')}, 'norm_epsilon must be .*, not inf'),
        ({'norm_epsilon': 0.0}, r'norm_epsilon must be .*, not 0\.0'),
        ({'compute_dtype': jnp.float16}, 'float32 or bfloat16, not float16'),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize('kinds', [(G, L, G, L), (G, G), (L,), (G, L, L, G, L, L), (G, L, G)])
def test_there_and_back(kinds):
    config = dataclasses.replace(SMALL, layers=len(kinds), attention=kinds)
    assert GPTNeoConfig.from_hugging_face(config.to_hugging_face()) == config


def test_kinds_of_attention_are_written_in_short():
    config = GPTNeoConfig(vocab_size=10, layers=24)
    assert config.to_hugging_face()['attention_types'] == [[['global', 'local'], 12]]


def test_the_config_of_gpt_neo_1_3b():
    fields = {
        'model_type': 'gpt_neo',
        'activation_function': 'gelu_new',
        'attention_types': [[['global', 'local'], 12]],
        'hidden_size': 2048,
        'intermediate_size': None,
        'layer_norm_epsilon': 1e-05,
        'max_position_embeddings': 2048,
        'num_heads': 16,
        'num_layers': 24,
        'vocab_size': 50257,
        'window_size': 256,
    }
    expected = GPTNeoConfig(50257, 2048, 24, 16, 8192, 2048, 256, (G, L) * 12, 1e-5, 'bfloat16')
    config = GPTNeoConfig.from_hugging_face(fields, compute_dtype=jnp.bfloat16)
    assert config == expected


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model_type': 'gpt2'}, "model_type is 'gpt2', but only gpt_neo"),
        ({'activation_function': 'relu'}, "activation_function is 'relu'"),
        ({'attention_types': [['global', 1]]}, 'attention_types is'),
        ({'attention_types': [[['sparse'], 3]]}, 'attention_types is'),
        ({'attention_types': [[['global'], 3]]}, 'attention names 3 layers, but layers=2'),
        ({'num_layers': None}, 'num_layers'),
        ({'num_heads': '4'}, "num_heads is '4'"),
        ({'num_layers': 10**12}, 'layers=1000000000000'),
        ({'num_layers': 10**9, 'attention_types': [[['global'], 10**9]]}, 'num_layers'),
        ({'num_layers': -1, 'attention_types': [[['global'], -1]]}, 'attention_types is'),
        ({'attention_types': [[['global'], 10**9]]}, 'attention names 1000000000 layers'),
        ({'attention_types': [[['global', 'local'], 3], [['global'], -4]]}, 'attention_types is'),
        ({'attention_types': [[['global'], True], [['local'], 1]]}, 'attention_types is'),
        ({'attention_types': [[['x\x1b' * 10**6], 2]]}, r'attention_types is .*x1b'),
        ({'attention_types': 10**9}, 'attention_types is'),
        ({'attention_types': [[['global'], 2], [[], 10**12]]}, 'attention_types is'),
        ({'layer_norm_epsilon': float('nan')}, 'layer_norm_epsilon is nan'),
        ({'layer_norm_epsilon': 10**400}, 'layer_norm_epsilon is 1000'),
        ({'layer_norm_epsilon': '1e-5'}, "layer_norm_epsilon is '1e-5'"),
        ({'layer_norm_epsilon': True}, 'layer_norm_epsilon is True'),
        ({'layer_norm_epsilon': -1.0}, r'layer_norm_epsilon is -1\.0'),
        ({'vocab_size': 10**300}, 'vocab_size must be'),
        ({'hidden_size': 2**60, 'num_heads': 2**60}, 'inner must be|hidden must be'),
    ],
)
def test_fields_that_ask_for_another_network_are_refused(change, message):
    fields = SMALL.to_hugging_face() | change
    start = time.monotonic()
    with pytest.raises(ValueError, match=message) as refused:
        GPTNeoConfig.from_hugging_face(fields)
    assert time.monotonic() - start < 1
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500


def test_a_missing_field_is_named():
    fields = SMALL.to_hugging_face()
    del fields['hidden_size']
    with pytest.raises(ValueError, match="field 'hidden_size' is missing"):
        GPTNeoConfig.from_hugging_face(fields)
