"""Changes of words: what each keeps, what it changes, what it says."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_jax.data import Dataset
from influence_jax.data.near_duplicates import TextChange, text_change
from influence_jax.data.near_duplicates import word_changes as changes
from influence_jax.data.near_duplicates.word_changes import Passage

TEXT = ' Bobby  Scott and\tBob Russell, 1969 '
WORDS = TEXT.split()


def passage(text=TEXT):
    return Passage(text, 'answer')


def variants(change, text=TEXT, times=200, **strength):
    rng = np.random.default_rng(0)
    return [change(passage(text), rng=rng, **strength) for _ in range(times)]


def record(text):
    return Dataset({'prompt': np.array(['Q:']), 'completion': np.array([text])})


def differing(text, before=WORDS):
    after = text.split()
    assert len(after) == len(before)
    return [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]


def spaces(text):
    return changes.with_words(text, dict.fromkeys(range(99), 'x')).split('x')


def edits(a, b):
    """Optimal string alignment distance: the slow, obvious truth."""
    d = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(
                d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            )
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[len(a), len(b)]


@pytest.mark.parametrize('count', [1, 2, 5])
def test_deleted_words_are_gone_and_the_others_stay_in_order(count):
    seen = set()
    for variant in variants(changes.delete_words, count=count):
        kept = variant.text.split()
        assert len(kept) == len(WORDS) - count
        rest = iter(WORDS)
        assert all(word in rest for word in kept)
        for word in (Counter(WORDS) - Counter(kept)).elements():
            assert repr(word) in variant.change
        assert variant.text.startswith(' ')
        assert variant.text.endswith(' ')
        seen.add(variant.text)
    assert len(seen) == {1: 6, 2: 15, 5: 6}[count]


def test_what_a_deletion_does_to_white_space():
    texts = {variant.text: variant.change for variant in variants(changes.delete_words, count=1)}
    assert texts[' Scott and\tBob Russell, 1969 '] == "word 1 of the answer deleted: 'Bobby'"
    assert texts[' Bobby  Scott and\tBob Russell, '] == "word 6 of the answer deleted: '1969'"
    assert texts[' Bobby  Scott and Russell, 1969 '] == "word 4 of the answer deleted: 'Bob'"


@pytest.mark.parametrize('count', [1, 2, 3])
def test_swaps_move_two_words_each(count):
    for variant in variants(changes.swap_words, count=count):
        assert len(differing(variant.text)) == 2 * count
        assert Counter(variant.text.split()) == Counter(WORDS)
        assert spaces(variant.text) == spaces(TEXT)
        assert variant.change.count('swapped') == count


def test_a_swap_says_which():
    (i, j), change = next(
        (differing(variant.text), variant.change)
        for variant in variants(changes.swap_words, count=1)
    )
    assert change == (
        f'words {i + 1} and {j + 1} of the answer swapped: {WORDS[i]!r}, {WORDS[j]!r}'
    )


def test_equal_words_are_not_swapped():
    for variant in variants(changes.swap_words, 'a a b', count=1):
        assert variant.text in ('b a a', 'a b a')


@given(st.lists(st.sampled_from(['a', 'b', 'c', 'dd']), max_size=6), st.integers(0, 10))
def test_reordering_keeps_the_words_and_changes_their_order(words, seed):
    text = ' '.join(words)
    variant = changes.reorder_words(Passage(text, 'text'), rng=np.random.default_rng(seed))
    if len(set(words)) < 2:
        assert variant is None
        return
    assert sorted(variant.text.split()) == sorted(words)
    assert variant.text.split() != words
    order = [int(n) - 1 for n in variant.change.split('order ')[1].split(', ')]
    assert [words[i] for i in order] == variant.text.split()


def test_every_order_is_reached():
    texts = {variant.text for variant in variants(changes.reorder_words, ' a b c')}
    assert texts == {' a c b', ' b a c', ' b c a', ' c a b', ' c b a'}


@pytest.mark.parametrize('count', [1, 2, 4])
def test_case_changes_no_letter_and_so_many_words(count):
    styles = set()
    for variant in variants(changes.change_case, count=count):
        assert len(differing(variant.text)) == count
        assert variant.text.lower() == TEXT.lower()
        assert variant.change.count('case of word') == count
        styles |= {word for word in variant.text.split() if word.lower() == 'scott'}
    assert styles == {'Scott', 'SCOTT', 'scott'}


@pytest.mark.parametrize('count', [1, 2, 6])
def test_a_typo_is_one_edit_of_a_word(count):
    for variant in variants(changes.add_typos, count=count):
        places = differing(variant.text)
        assert len(places) == count
        for i in places:
            assert edits(WORDS[i], variant.text.split()[i]) == 1
        assert variant.change == '; '.join(
            f'typo in word {i + 1} of the answer: {WORDS[i]!r} -> {variant.text.split()[i]!r}'
            for i in places
        )


def test_all_kinds_of_typos_occur():
    texts = {variant.text for variant in variants(changes.add_typos, 'Qat', 500, count=1)}
    doubled, left_out, swapped = {'QQat', 'Qaat', 'Qatt'}, {'at', 'Qt', 'Qa'}, {'aQt', 'Qta'}
    struck = {'Wat', 'Qst', 'Qar', 'Qay'}
    assert texts == doubled | left_out | swapped | struck


def test_punctuation_gets_no_typo():
    for variant in variants(changes.add_typos, '(a) --', count=1):
        assert variant.text in {'(aa) --', '(s) --'}


IMPOSSIBLE = [
    (TextChange.DELETE_WORDS, ' Scott', None),
    (TextChange.DELETE_WORDS, ' Bobby Scott', 2),
    (TextChange.SWAP_WORDS, ' Scott', None),
    (TextChange.SWAP_WORDS, ' no no no', None),
    (TextChange.SWAP_WORDS, ' a b c', 2),
    (TextChange.REORDER_WORDS, ' Scott', None),
    (TextChange.REORDER_WORDS, ' no no', None),
    (TextChange.CHANGE_CASE, ' 14 1972', None),
    (TextChange.CHANGE_CASE, ' 14 December', 2),
    (TextChange.TYPOS, ' -- ...', None),
    (TextChange.TYPOS, ' one', 2),
    (TextChange.PARAPHRASE, ' Bobby Scott', None),
]


@pytest.mark.parametrize(('change', 'text', 'count'), IMPOSSIBLE)
def test_the_impossible_gives_none(change, text, count):
    rng = np.random.default_rng(0)
    make = text_change(change, count=count)
    assert all(make.vary(record(text), 0, rng) is None for _ in range(20))


@pytest.mark.parametrize('change', [c for c in TextChange if not c.value.startswith('replace')])
def test_a_change_is_a_pure_function_of_example_and_generator(change):
    make = text_change(change)
    dataset = record(' the big child has a small effort')
    first = [make.vary(dataset, 0, np.random.default_rng(seed)) for seed in range(8)]
    again = [make.vary(dataset, 0, np.random.default_rng(seed)) for seed in range(8)]
    assert first == again
    assert len({variant.entries['completion'] for variant in first}) > 2


def test_bad_strength_is_refused():
    with pytest.raises(ValueError, match='count=0 must be at least 1: typos'):
        text_change(TextChange.TYPOS, count=0)
    with pytest.raises(ValueError, match='reorder_words takes no count'):
        text_change(TextChange.REORDER_WORDS, count=2)
    with pytest.raises(ValueError, match='replace_token takes no count'):
        text_change(TextChange.REPLACE_TOKEN, count=1)
    with pytest.raises(ValueError, match='replace_tokens needs the tokenizer'):
        text_change(TextChange.REPLACE_TOKENS)
    with pytest.raises(ValueError, match='max_length=9 is counted in tokens'):
        text_change(TextChange.TYPOS, max_length=9)
