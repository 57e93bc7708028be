"""A base that is pretrained on other texts: made once, kept, another for each of its settings."""

import dataclasses
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from influence_jax.data.text.tokenizer import train_byte_bpe
from influence_jax.models.gpt_neo import GPTNeoConfig, hugging_face
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


class Waits(logging.Handler):
    """Says when somebody waits for a lock."""

    def __init__(self):
        super().__init__()
        self.seen = threading.Event()

    def emit(self, record):
        if 'waiting for it to end' in record.getMessage():
            self.seen.set()


@pytest.fixture
def waits():
    handler, logger = Waits(), logging.getLogger('influence_jax.store.files')
    logger.addHandler(handler)
    yield handler.seen
    logger.removeHandler(handler)


@pytest.fixture
def trained(task, based, monkeypatch):
    """Instead of training: the base that was trained once; the calls."""
    first, calls = based[0], []

    def pretrain(*arguments):
        calls.append(arguments)
        return first.params

    monkeypatch.setattr(pretraining, '_pretrain', pretrain)
    return calls


def test_of_two_that_find_no_base_one_makes_it(task, based, trained, waits, tmp_path, monkeypatch):
    save = hugging_face.save

    def slow(*arguments, **options):
        save(*arguments, **options)
        assert waits.wait(20)
        assert not (tmp_path / based[0].identity).exists()  # half of it is nowhere to be read

    monkeypatch.setattr(hugging_face, 'save', slow)
    with ThreadPoolExecutor(2) as pool:
        made = list(
            pool.map(
                lambda _: pretrained(task, TEXTS, recipe=RECIPE, folder=tmp_path, seed=0), range(2)
            )
        )
    assert len(trained) == 1
    for one in made:
        jax.tree.map(np.testing.assert_array_equal, one.params, based[0].params)
    assert [path.name for path in tmp_path.iterdir()] == [based[0].identity]


@pytest.mark.parametrize('hidden', [True, False])
def test_what_a_kill_has_left_of_a_base_is_removed(task, based, trained, tmp_path, hidden):
    first, folder = based
    remains = tmp_path / (f'.{first.identity}.partial' if hidden else first.identity)
    remains.mkdir()
    for name in ('model.safetensors.0badcafe.partial', '.tokenizer.json.0badcafe'):
        (remains / name).write_text('half')
    pretrained(task, TEXTS, recipe=RECIPE, folder=tmp_path, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == [first.identity]
    whole = {path.name for path in (folder / first.identity).iterdir()}
    assert {path.name for path in (tmp_path / first.identity).iterdir()} == whole
    assert len(trained) == 1


def test_an_error_leaves_nothing_of_a_base(task, trained, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError('full')

    monkeypatch.setattr(hugging_face, 'save', full)
    with pytest.raises(OSError, match='full'):
        pretrained(task, TEXTS, recipe=RECIPE, folder=tmp_path, seed=0)
    assert trained and not list(tmp_path.iterdir())


def test_what_cannot_be_pretrained(task, tmp_path):
    with pytest.raises(ValueError, match='1 texts are too few'):
        pretrained(task, TEXTS[:1], recipe=RECIPE, folder=tmp_path, seed=0)
    wild = dataclasses.replace(RECIPE, learning_rate=1e30)
    with pytest.raises(ValueError, match='diverged in its pretraining; lower learning_rate'):
        pretrained(task, TEXTS, recipe=wild, folder=tmp_path, seed=0)
    assert not list(tmp_path.iterdir())
