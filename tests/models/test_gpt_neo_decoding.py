"""Greedy decoding with a cache against decoding that computes everything anew each time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.models.gpt_neo import decoding, greedy
from tests.models.gpt_neo_cases import SMALL, jit, logits, params, tokens

LENGTHS = np.array([7, 1, 3, 6], np.int32)
PROMPTS = tokens(batch=4, length=7)
NEW = 8
NEVER = -1

_greedy = functools.partial(jit, static_argnames=('config', 'new_tokens'))(greedy)


def _decoded_anew(config, weights, prompts=PROMPTS, lengths=LENGTHS, end=NEVER):
    """Row after row, token after token; rows are padded to one length to compile once."""
    texts = np.zeros((len(prompts), config.max_positions), np.int32)
    texts[:, : prompts.shape[1]] = prompts
    rows = np.arange(len(texts))
    decoded = []
    for number in range(NEW):
        following = np.argmax(logits(config, weights, texts)[rows, lengths + number - 1], -1)
        if number:
            following = np.where(decoded[-1] == end, end, following)
        decoded.append(following)
        texts[rows, lengths + number] = following
    return np.stack(decoded, axis=1)


@pytest.mark.parametrize('window', [2, 3, 20])
def test_the_cache_changes_nothing(window):
    config = dataclasses.replace(SMALL, window=window)
    decoded = _greedy(config, params(), PROMPTS, LENGTHS, new_tokens=NEW, end=NEVER)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, _decoded_anew(config, params()))


def test_with_scanned_layers(monkeypatch):
    expected = _decoded_anew(SMALL, params())
    monkeypatch.setattr(decoding, '_UNROLLED_LAYERS', 0)

    def decoded(weights):
        return greedy(SMALL, weights, PROMPTS, LENGTHS, new_tokens=NEW, end=NEVER)

    # Over prompts, over tokens, and over layers within these.
    assert str(jax.make_jaxpr(decoded)(params())).count('scan[') == 3
    np.testing.assert_array_equal(jit(decoded)(params()), expected)


def test_what_pads_the_prompts_does_not_matter():
    others = PROMPTS.copy()
    for row, length in zip(others, LENGTHS, strict=True):
        row[length:] = (row[length:] + 7) % SMALL.vocab_size
    assert (others != PROMPTS).any()
    a, b = (
        _greedy(SMALL, params(), prompts, LENGTHS, new_tokens=NEW, end=NEVER)
        for prompts in (PROMPTS, others)
    )
    np.testing.assert_array_equal(a, b)


def test_nothing_follows_the_end():
    free = np.asarray(_greedy(SMALL, params(), PROMPTS, LENGTHS, new_tokens=NEW, end=NEVER))
    end = int(free[0, 2])
    decoded = np.asarray(_greedy(SMALL, params(), PROMPTS, LENGTHS, new_tokens=NEW, end=end))
    np.testing.assert_array_equal(decoded, _decoded_anew(SMALL, params(), end=end))
    first = int(np.argmax(free[0] == end))
    np.testing.assert_array_equal(decoded[0, :first], free[0, :first])
    np.testing.assert_array_equal(decoded[0, first:], end)


def test_members_under_vmap():
    members = [params(seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    decoded = jit(
        jax.vmap(lambda p: greedy(SMALL, p, PROMPTS, LENGTHS, new_tokens=NEW, end=NEVER))
    )(stacked)
    for number, member in enumerate(members):
        np.testing.assert_array_equal(decoded[number], _decoded_anew(SMALL, member))
    assert (decoded[0] != decoded[1]).any()


def test_one_token_after_prompts_that_fill_all_positions():
    full = tokens(batch=4, length=SMALL.max_positions)
    lengths = np.array([1, 5, 16, 9])
    decoded = _greedy(SMALL, params(), full, lengths, new_tokens=1, end=NEVER)
    expected = np.argmax(logits(SMALL, params(), full)[np.arange(4), lengths - 1], axis=-1)
    np.testing.assert_array_equal(decoded, expected[:, None])


@pytest.mark.parametrize(
    ('new', 'message'), [(11, r'need 17 positions.*max_positions=16'), (0, 'at least 1, not 0')]
)
def test_too_many_or_too_few_tokens_are_refused(new, message):
    with pytest.raises(ValueError, match=message):
        greedy(SMALL, params(), PROMPTS, LENGTHS, new_tokens=new, end=NEVER)
