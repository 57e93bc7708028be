"""Synonyms: the embedded table, and what is put in place of what."""

import gzip
import importlib.resources

import numpy as np
import pytest

from influence_jax.data.near_duplicates.word_changes import Passage, paraphrase, synonyms


def results(text, count=1, times=200):
    rng = np.random.default_rng(0)
    found = [paraphrase(Passage(text, 'text'), count=count, rng=rng) for _ in range(times)]
    return {variant and variant.text for variant in found}


def test_the_table():
    table = synonyms()
    assert len(table) == 4632
    assert table['abdomen'] == ('stomach', 'belly')
    assert table['big'] == ('large',)
    assert table['child'] == ('kid', 'youngster', 'minor')
    for word, others in table.items():
        assert word not in others
        assert all(w.isascii() and w.isalpha() and w.islower() for w in (word, *others))
        assert len(set(others)) == len(others) > 0


def test_its_licence_travels_with_it():
    file = importlib.resources.files('influence_jax.data') / 'embedded' / 'synonyms.txt.gz'
    data = file.read_bytes()
    assert len(data) < 150_000
    head = gzip.decompress(data).decode()
    assert 'WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved.' in head
    assert 'Debian (wordnet-base' in head


def test_one_word_at_a_time_and_all_of_its_synonyms():
    assert results('the child saw big dogs') == {
        'the kid saw big dogs',
        'the youngster saw big dogs',
        'the minor saw big dogs',
        'the child saw large dogs',
    }


def test_so_many_words():
    assert results('big, small', count=2) == {'large, little'}
    assert results('big cats', count=2) == {None}


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (' (big)', {' (large)'}),
        ('"big".', {'"large".'}),
        ('Big dogs', {'Large dogs'}),
        ('it is Big', {None}),
        ('Big Bang', {None}),
        ('Big', {None}),
        ('BIG dogs', {None}),
        ('cities', {None}),
        ('big-time', {None}),
        ("big's", {None}),
        ('', {None}),
    ],
)
def test_case_punctuation_and_inflection(text, expected):
    assert results(text, times=20) == expected


def test_the_article_stays_right():
    assert synonyms()['idea'] == ('thought',)
    assert results('an idea', times=20) == {None}
    assert results('the idea', times=20) == {'the thought'}
    assert results('a big', times=20) == {'a large'}
    assert results('An effort') == {'An attempt', 'An endeavor'}
    assert 'try' in synonyms()['effort']


def test_the_sentence():
    variant = paraphrase(Passage(' a big dog', 'answer'), count=1, rng=np.random.default_rng(0))
    assert variant.change == "synonym for word 2 of the answer: 'big' -> 'large'"
