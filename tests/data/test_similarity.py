"""Scores of texts, by hand and against slow definitions."""

import subprocess
import sys
from difflib import SequenceMatcher

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_jax.data.text.similarity import (
    edit_distance,
    longest_common_substring,
    normalized,
    scores,
    scores_of_members,
)

SHORT = st.text('ab c\u05e9\U0001f642', max_size=12)


def one(decoded, truth):
    found = scores([decoded], [truth])
    return tuple(part[0] for part in found)


@pytest.mark.parametrize(
    ('decoded', 'truth', 'bleu'),
    [
        # One and two words: right answers score 1, as there are no longer n-grams to miss.
        ('Paris', 'Paris', 1.0),
        ('New York', 'New York', 1.0),
        (' New York ', 'New York', 1.0),
        ('paris', 'Paris', 0.0),  # case told apart
        ('London', 'Paris', 0.0),
        ('', 'Paris', 0.0),
        # Of 3 words 1 is right; 2-grams and 3-grams smoothed: 1/3, 1/4, 1/4.
        ('Paris Paris Paris', 'Paris', (1 / 3 / 4 / 4) ** (1 / 3)),
        # Brevity: all right, 3 words of 4.
        ('New York City', 'in New York City', np.exp(1 - 4 / 3)),
        # The tokenizer parts punctuation.
        ('February 9 , 2018', 'February 9, 2018', 1.0),
        # A text in four words of which the 4-gram is wrong: 3/4, 2/3, 1/2, smoothed 1/2.
        ('a b c d', 'a b c e', (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),
    ],
)
def test_bleu_by_hand(decoded, truth, bleu):
    assert one(decoded, truth)[0] == pytest.approx(bleu, abs=1e-12)
    assert 0 <= one(decoded, truth)[0] <= 1


@pytest.mark.parametrize(
    ('decoded', 'truth', 'same'),
    [
        (' The  Beatles!', 'beatles', True),
        ('a "U.S." state', 'us state', True),
        ('Beatle', 'Beatles', False),
        ('', 'Beatles', False),
        # Nothing would be left of these but for themselves.
        ('', 'The', False),
        ('a', 'The', False),
        ('the ', 'The', True),
        ('?', '!', False),
        ('theme', 'me', False),
    ],
)
def test_exact_match(decoded, truth, same):
    assert one(decoded, truth)[1] == same
    assert (normalized(decoded) == normalized(truth)) == same


def test_longest_common_string_by_hand():
    assert one(' in New York', 'New York City')[2:] == (8, pytest.approx(8 / 13))
    assert one('xyz', 'abc')[2:] == (0, 0.0)
    assert one('Paris', ' Paris ')[2:] == (5, 1.0)
    assert one(' Paris', ' Paris London')[2:] == (5, pytest.approx(5 / 12))
    assert longest_common_substring('abcab', 'xab') == 'ab'


@given(SHORT, SHORT)
def test_longest_common_string_equals_that_of_difflib(decoded, truth):
    match = SequenceMatcher(None, decoded, truth, autojunk=False).find_longest_match()
    found = longest_common_substring(decoded, truth)
    assert len(found) == match.size
    assert found in decoded
    assert found in truth


def test_members_are_scored_as_each_alone():
    truths = ['New York', 'the moon', 'Paris']
    decoded = [['New York', 'moon', ''], ['York', 'moon', 'paris'], ['New York', 'sun', 'Paris']]
    together = scores_of_members(decoded, truths)
    for m, texts in enumerate(decoded):
        for whole, alone in zip(together, scores(texts, truths), strict=True):
            np.testing.assert_array_equal(whole[m], alone)
    assert together.bleu.shape == (3, 3)
    assert together.exact_match.dtype == bool
    assert together.longest_common.dtype == np.int32


def test_a_pair_that_returns_is_scored_once(monkeypatch):
    from sacrebleu.metrics import BLEU

    calls = []
    score = BLEU.sentence_score
    monkeypatch.setattr(
        BLEU, 'sentence_score', lambda self, *pair: calls.append(pair) or score(self, *pair)
    )
    scores_of_members([['a', 'b']] * 50, ['a', 'a'])
    assert len(calls) == 2


def test_importing_it_does_not_import_sacrebleu():
    code = (
        'import sys, influence_jax.analysis.extraction, influence_jax.data.text.similarity; '
        'sys.exit(any(name.split(".")[0] == "sacrebleu" for name in sys.modules))'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def _slow_distance(one, other):
    if not one or not other:
        return len(one) + len(other)
    return min(
        _slow_distance(one[1:], other) + 1,
        _slow_distance(one, other[1:]) + 1,
        _slow_distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(st.text('ab\U0001f642', max_size=5), st.text('ab\U0001f642', max_size=5))
def test_edit_distance_equals_the_recursion(one, other):
    assert edit_distance(one, other) == _slow_distance(one, other)
