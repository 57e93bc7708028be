"""A base that is pretrained on other texts: made once, kept, another for each of its settings."""

import dataclasses

import jax
import numpy as np
import pytest

from influence_jax.data.text.tokenizer import train_byte_bpe
from influence_jax.models.gpt_neo import GPTNeoConfig
from influence_jax.tasks import CausalLM, pretrained, pretraining
from influence_jax.training import Recipe

TEXTS = tuple(f'the {name} door is {name}' for name in ('red', 'green', 'blue', 'black'))
RECIPE = Recipe(epochs=40, batch_size=4, learning_rate=1e-2)


@pytest.fixture(scope='module')
def task():
    tokenizer = train_byte_bpe(TEXTS, 270)
    config = GPTNeoConfig(270, hidden=8, layers=1, heads=2, max_positions=32)
    return CausalLM(config, tokenizer, max_length=32)


@pytest.fixture(scope='module')
def based(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp('bases')
    return pretrained(task, TEXTS, recipe=RECIPE, folder=folder, seed=0), folder


def test_a_base_is_kept_and_found_again(task, based, monkeypatch):
    first, folder = based
    monkeypatch.setattr(pretraining, '_pretrain', None)
    again = pretrained(task, TEXTS, recipe=RECIPE, folder=folder, seed=0)
    assert first.identity == again.identity != 'none'
    assert [path.name for path in folder.iterdir()] == [first.identity]
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)


@pytest.mark.parametrize(
    'change',
    [
        {'texts': TEXTS[:3]},
        {'recipe': dataclasses.replace(RECIPE, epochs=2)},
        {'seed': 1},
    ],
)
def test_another_base_has_another_name(task, based, monkeypatch, change):
    first, folder = based
    made = []

    def stop(*arguments):
        made.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, '_pretrain', stop)
    settings = {'texts': TEXTS, 'recipe': RECIPE, 'seed': 0} | change
    texts = settings.pop('texts')
    with pytest.raises(KeyboardInterrupt):
        pretrained(task, texts, folder=folder, **settings)
    assert made and [path.name for path in folder.iterdir()] == [first.identity]


def test_what_cannot_be_pretrained(task, tmp_path):
    with pytest.raises(ValueError, match='1 texts are too few'):
        pretrained(task, TEXTS[:1], recipe=RECIPE, folder=tmp_path, seed=0)
    wild = dataclasses.replace(RECIPE, learning_rate=1e30)
    with pytest.raises(ValueError, match='diverged in its pretraining; lower learning_rate'):
        pretrained(task, TEXTS, recipe=wild, folder=tmp_path, seed=0)
    assert not list(tmp_path.iterdir())
