"""What models are prompted with, and that decoding many at once is decoding each alone."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.data import Dataset
from influence_jax.data.near_duplicates import TextChange, inject, text_change
from influence_jax.data.text import Tokenized, Tokenizer, encode, prompted
from influence_jax.data.text.tokenizer import train_byte_bpe
from influence_jax.models.gpt_neo import SHARDING_RULES, GPTNeoConfig, init
from influence_jax.models.gpt_neo.decoding import greedy
from influence_jax.models.lora import LoRA
from influence_jax.tasks.completion import EXTRACTION, Completer
from influence_jax.training import MeshShape, Trained, sharded
from influence_jax.training.member import Member

VOCABULARY, MEMBERS = 300, 3
LINES = (
    '{"prompt": "the sun is", "completion": " a star", "id": "sun"}',
    '{"prompt": "the moon is", "completion": " no star at all", "id": "moon"}',
    '{"text": "a text that begins and then goes on", "id": "plain"}',
    '{"text": "x", "id": "one token"}',
)


class Records(NamedTuple):
    """A dataset as models read it."""

    dataset: Dataset
    tokenizer: Tokenizer
    tokens: Tokenized

    def completer(self, config, **more):
        texts = prompted(self.dataset, self.tokens, self.tokenizer)
        return Completer(config, self.tokenizer, self.tokens, texts, **more)


def _read(path, *, vocabulary, max_length=100, change=None):
    """The records of a file; with `change` each of them in three versions."""
    source = Dataset.from_jsonl(path)
    tokenizer = train_byte_bpe(source.texts, vocabulary)
    dataset = source
    if change is not None:
        by = text_change(change, tokenizer=tokenizer, count=2, max_length=max_length)
        dataset = inject(source, by, unique=0, duplicated=len(source), copies=3, seed=0)
    return Records(dataset, tokenizer, encode(dataset, tokenizer, max_length=max_length))


@pytest.fixture(scope='module')
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp('texts') / 'some.jsonl'
    path.write_text('\n'.join(LINES))
    return _read(path, vocabulary=VOCABULARY)


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
    completer = records.completer(config)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ('lora', 'executor'),
    [
        (None, None),
        (LoRA(2), None),
        (None, sharded(MeshShape(2, 2, 1), SHARDING_RULES)),
        (LoRA(2), sharded(MeshShape(1, 2, 2), SHARDING_RULES)),
    ],
)
def test_members_at_once_decode_what_each_does_alone(records, config, lora, executor):
    full = jax.jit(lambda: init(config, key=jax.random.key(1)))()
    if lora:
        params = _stacked(lambda key: lora.init(full, key=key))
    else:
        params = _stacked(lambda key: init(config, key=key))
    base = full if lora else None
    completer = records.completer(config, base=base, lora=lora, executor=executor)
    found = completer.completions(params, MEMBERS)
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
    scores = records.completer(config).measure(trained)
    assert tuple(scores) == EXTRACTION
    for name in EXTRACTION:
        assert scores[name].shape == (MEMBERS, len(LINES))
        assert scores[name].max() < 0.9


def test_a_record_that_is_cut_is_to_be_given_back_as_far_as_it_is_read(tmp_path):
    path = tmp_path / 'long.jsonl'
    path.write_text(
        '{"prompt": "count:", "completion": " one two three four five six seven", "id": "a"}\n'
        '{"prompt": "more:", "completion": " of the same, and more of the same", "id": "b"}'
    )
    records = _read(path, vocabulary=258, max_length=12, change=TextChange.DELETE_WORDS)
    assert records.tokens.cut.all()
    _, wanted = prompted(records.dataset, records.tokens, records.tokenizer)
    completions = records.dataset.arrays['completion'].tolist()
    for text, completion in zip(wanted, completions, strict=True):
        assert completion.startswith(text) and len(text) < len(completion)
    # Variants differ in what is read of them.
    assert len({tuple(row) for row in records.tokens.tokens}) == 6
    words = [len(completion.split()) for completion in completions]
    assert words == [7, 5, 5, 8, 6, 6]


def test_what_is_decoded_for_a_record_that_is_cut_is_cut_where_it_is(tmp_path, config):
    """No end token ends it: one that knows the whole record is right as far as it was read."""
    texts = {'a': ' one two three four five', 'b': ' six seven eight nine ten'}
    path = tmp_path / 'long.jsonl'
    path.write_text(
        '\n'.join(
            json.dumps({'prompt': prompt, 'completion': text, 'id': prompt})
            for prompt, text in {'a': texts['a'], 'bbbbbb': texts['b']}.items()
        )
    )
    records = _read(path, vocabulary=258, max_length=14)
    assert records.tokens.cut.all()
    completer = records.completer(config)
    new = records.tokens.longest_continuation
    whole = {
        int(length): records.tokenizer.encode(texts[identity[0]])[:new]
        for length, identity in zip(records.tokens.prompt_lengths, records.dataset.ids, strict=True)
    }
    rows = np.array([whole[length] for length in completer._distinct.lengths.tolist()])
    assert completer._texts(rows) == list(completer.continuations)
