"""What models are prompted with, and that decoding many at once is decoding each alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments.completions import MEASUREMENTS, Completer
from experiments.language_base import Base
from experiments.members import Spread

from experiments import language_data
from experiments.language_settings import ModelSettings, TextSettings
from influence_jax.data.near_duplicates import TextChange
from influence_jax.data.text import prompted
from influence_jax.models.gpt_neo import GPTNeoConfig, init
from influence_jax.models.gpt_neo.decoding import greedy
from influence_jax.models.gpt_neo.sharding import RULES
from influence_jax.models.lora import LoRA
from influence_jax.training import Trained
from influence_jax.training.member import Member
from influence_jax.training.mesh import MeshShape

VOCABULARY, MEMBERS = 300, 3
LINES = (
    '{"prompt": "the sun is", "completion": " a star", "id": "sun"}',
    '{"prompt": "the moon is", "completion": " no star at all", "id": "moon"}',
    '{"text": "a text that begins and then goes on", "id": "plain"}',
    '{"text": "x", "id": "one token"}',
)


@pytest.fixture(scope='module')
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp('texts') / 'some.jsonl'
    path.write_text('\n'.join(LINES))
    settings = TextSettings(dataset=str(path), unique=len(LINES), duplicated=0)
    return language_data.prepare(settings, ModelSettings(vocabulary=VOCABULARY), seed=0)


@pytest.fixture(scope='module')
def config(records):
    return GPTNeoConfig(
        VOCABULARY, hidden=16, layers=1, heads=2, max_positions=records.tokens.positions
    )


def _stacked(make):
    """The members' parameters, on the host, far from their initial values."""
    stacked = jax.jit(jax.vmap(make))(jax.random.split(jax.random.key(0), MEMBERS))
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape).astype('f'), jax.device_get(stacked)
    )


def test_prompts_are_those_of_the_records_or_the_first_half_of_a_text(records, config):
    completer = Completer(records, Base(config, None, ''), None)
    place = {identity: n for n, identity in enumerate(records.dataset.ids)}
    given, wanted = completer.prompts, completer.continuations
    assert (given[place['sun']], wanted[place['sun']]) == ('the sun is', ' a star')
    plain = place['plain']
    assert given[plain] + wanted[plain] == 'a text that begins and then goes on'
    counts = [len(records.tokenizer.encode(text)) for text in (given[plain], wanted[plain])]
    assert counts[1] - counts[0] in (0, 1)
    assert (given[place['one token']], wanted[place['one token']]) == ('', 'x')


_greedy = jax.jit(greedy, static_argnums=0, static_argnames=('new_tokens', 'end'))


def _alone(records, config, record, params, adapters=None):
    length = records.tokens.prompt_lengths[record]
    tokens = records.tokens.tokens[record]
    prompt = tokens[:length] if length else [records.tokenizer.end]
    decoded = _greedy(
        config,
        params,
        jnp.asarray(prompt)[None],
        jnp.array([len(prompt)]),
        new_tokens=records.tokens.longest_continuation,
        end=records.tokenizer.end,
        adapters=adapters,
    )
    return records.tokenizer.decode(np.asarray(decoded[0]))


@pytest.mark.parametrize(
    ('lora', 'spread'),
    [
        (None, None),
        (LoRA(2), None),
        (None, Spread(MeshShape(2, 2, 1), RULES)),
        (LoRA(2), Spread(MeshShape(1, 2, 2), RULES)),
    ],
)
def test_members_at_once_decode_what_each_does_alone(records, config, lora, spread):
    full = jax.jit(lambda: init(config, key=jax.random.key(1)))()
    base = Base(config, full if lora else None, '')
    if lora:
        params = _stacked(lambda key: lora.init(full, key=key))
    else:
        params = _stacked(lambda key: init(config, key=key))
    found = Completer(records, base, lora, spread).completions(params, MEMBERS)
    assert len(found) == MEMBERS
    for member, texts in enumerate(found):
        own = jax.tree.map(lambda leaf, member=member: leaf[member], params)
        weights, adapters = (full, lora.scaled(own)) if lora else (own, None)
        assert texts == [
            _alone(records, config, record, weights, adapters) for record in range(len(LINES))
        ]
    assert found[0] != found[1]


def test_a_member_that_knows_nothing_gives_nothing_back(records, config):
    params = _stacked(lambda key: init(config, key=key))
    trained = Trained(np.arange(MEMBERS), Member({}, params))
    scores = Completer(records, Base(config, None, ''), None).measure(trained)
    assert tuple(scores) == MEASUREMENTS
    for name in MEASUREMENTS:
        assert scores[name].shape == (MEMBERS, len(LINES))
        assert scores[name].max() < 0.9


def test_a_record_that_is_cut_is_to_be_given_back_as_far_as_it_is_read(tmp_path):
    path = tmp_path / 'long.jsonl'
    path.write_text(
        '{"prompt": "count:", "completion": " one two three four five six seven", "id": "a"}\n'
        '{"prompt": "more:", "completion": " of the same, and more of the same", "id": "b"}'
    )
    settings = TextSettings(
        dataset=str(path),
        unique=0,
        duplicated=2,
        copies=3,
        duplication=TextChange.DELETE_WORDS,
        duplication_count=2,
        max_length=12,
    )
    records = language_data.prepare(settings, ModelSettings(vocabulary=258), seed=0)
    assert records.tokens.cut.all()
    _, wanted = prompted(records.dataset, records.tokens, records.tokenizer)
    completions = records.dataset.arrays['completion'].tolist()
    for text, completion in zip(wanted, completions, strict=True):
        assert completion.startswith(text) and len(text) < len(completion)
    # Variants differ in what is read of them.
    assert len({tuple(row) for row in records.tokens.tokens}) == 6
    words = [len(completion.split()) for completion in completions]
    assert words == [7, 5, 5, 8, 6, 6]


def test_what_is_decoded_for_a_record_that_is_cut_is_cut_where_it_is(tmp_path):
    """No end token ends it: one that knows the whole record is right as far as it was read."""
    texts = {'a': ' one two three four five', 'b': ' six seven eight nine ten'}
    path = tmp_path / 'long.jsonl'
    path.write_text(
        '\n'.join(
            json.dumps({'prompt': prompt, 'completion': text, 'id': prompt})
            for prompt, text in {'a': texts['a'], 'bbbbbb': texts['b']}.items()
        )
    )
    settings = TextSettings(dataset=str(path), unique=2, duplicated=0, max_length=14)
    records = language_data.prepare(settings, ModelSettings(vocabulary=258), seed=0)
    assert records.tokens.cut.all()
    completer = Completer(records, Base(None, None, ''), None)
    new = records.tokens.longest_continuation
    whole = {
        int(length): records.tokenizer.encode(texts[identity[0]])[:new]
        for length, identity in zip(records.tokens.prompt_lengths, records.dataset.ids, strict=True)
    }
    rows = np.array([whole[length] for length in completer._distinct.lengths.tolist()])
    assert completer._texts(rows) == list(completer.continuations)
