"""Replaced tokens: what is read back has exactly the intended tokens."""

from pathlib import Path

import numpy as np
import pytest

from influence_jax.data import Dataset
from influence_jax.data.near_duplicates.text_changes import replace_tokens
from influence_jax.data.near_duplicates.word_changes import Passage
from influence_jax.data.text import tokenizer
from influence_jax.data.text.tokenizer import train_byte_bpe

SHARED = Path(__file__).parents[2].parent / 'shared' / 'data'
CORPUS = (
    'the united states of america, the states and the cities of the united kingdom',
    'Bobby Scott and Bob Russell wrote it in December 1972, and in December it was sung again',
    'München, Köln und Zürich: drei schöne Städte 東京 東京都 京都',
)


@pytest.fixture(scope='module')
def small():
    # Far more ids than the corpus gives merges: most of them are special and must not be chosen.
    return train_byte_bpe(CORPUS * 20, 700)


def differences(tokenizer, before, after):
    old, new = tokenizer.encode(before), tokenizer.encode(after)
    assert len(old) == len(new)
    return [i for i, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]]


@pytest.mark.parametrize('count', [1, 2, 3])
@pytest.mark.parametrize('text', [f' {line}' for line in CORPUS])
def test_exactly_so_many_tokens_differ_after_encoding(small, text, count):
    rng = np.random.default_rng(0)
    for _ in range(100):
        variant = replace_tokens(Passage(text, 'answer'), tokenizer=small, count=count, rng=rng)
        assert len(differences(small, text, variant.text)) == count
        assert '\N{REPLACEMENT CHARACTER}' not in variant.text
        assert variant.text.strip()


def test_neither_special_tokens_nor_their_names_are_put_in(small):
    used = set(range(small.vocab_size)) - {small.end}
    ordinary = {i for i in used if small.decode([i])}
    assert len(ordinary) < small.vocab_size - 100
    rng = np.random.default_rng(1)
    passage = Passage(' Bob', 'answer')
    for _ in range(300):
        variant = replace_tokens(passage, tokenizer=small, count=1, rng=rng)
        assert set(small.encode(variant.text)) <= ordinary
        assert '<|' not in variant.text


def test_every_position_is_hit_and_the_tokens_are_many(small):
    text = ' Bob wrote it'
    tokens = small.encode(text)
    rng = np.random.default_rng(2)
    positions, chosen = [], []
    for _ in range(400):
        variant = replace_tokens(Passage(text, 'answer'), tokenizer=small, count=1, rng=rng)
        (position,) = differences(small, text, variant.text)
        positions.append(position)
        chosen.append(small.encode(variant.text)[position])
    expected = 400 / len(tokens)
    counts = np.bincount(positions, minlength=len(tokens))
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert len(set(chosen)) > 60


def test_the_sentence_tells_position_and_tokens(small):
    text = ' Bobby Scott wrote it'
    rng = np.random.default_rng(3)
    for count in (1, 2):
        variant = replace_tokens(Passage(text, 'answer'), tokenizer=small, count=count, rng=rng)
        old, new = small.encode(text), small.encode(variant.text)
        assert variant.change == '; '.join(
            f'token {i + 1} of the answer: '
            f'{small.token_text(old[i])!r} -> {small.token_text(new[i])!r}'
            for i in differences(small, text, variant.text)
        )


def test_too_short_a_passage_gives_none(small):
    rng = np.random.default_rng(4)
    assert len(small.encode(' December')) == 1
    passage = Passage(' December', 'answer')
    assert replace_tokens(passage, tokenizer=small, count=2, rng=rng) is None
    assert replace_tokens(passage, tokenizer=small, count=1, rng=rng) is not None


def test_a_single_token_is_never_replaced_by_a_blank(small):
    rng = np.random.default_rng(5)
    texts = {
        replace_tokens(Passage('a', 'text'), tokenizer=small, count=1, rng=rng).text
        for _ in range(1000)
    }
    assert all(text.strip() for text in texts)
    assert len(texts) > 100


def test_on_real_answers_with_the_tokenizer_of_gpt_neo():
    if not SHARED.is_dir():
        pytest.skip(f'{SHARED} is not there')
    gpt2 = tokenizer.from_pretrained(SHARED / 'gpt2_tokenizer')
    records = Dataset.from_jsonl(SHARED / 'nq_open' / 'NQ-open.dev.first2500.jsonl')
    rng = np.random.default_rng(6)
    for answer in records.arrays['completion'][:300]:
        variant = replace_tokens(Passage(answer, 'answer'), tokenizer=gpt2, count=1, rng=rng)
        assert len(differences(gpt2, answer, variant.text)) == 1
        assert gpt2.end not in gpt2.encode(variant.text)
