"""Which records members train on, and what is said of those that are left out or hardly read."""

import json
from typing import NamedTuple

import pytest
import tokenizers

from experiments import language_data, language_settings
from experiments.language_settings import ModelSettings, TextSettings
from influence_jax.data import Dataset
from influence_jax.data.text import Tokenizer
from influence_jax.training import Recipe

WORDS = ('red', 'green', 'blue', 'black', 'white', 'grey', 'pink', 'gold', 'teal', 'lime')


def lines(*texts):
    return [{'text': text} for text in texts]


def word_level(folder, words):
    """A tokenizer that knows these words alone, saved."""
    vocabulary = {word: i for i, word in enumerate(('<end>', '<unk>', *words))}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token='<unk>'))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    Tokenizer(backend, 0).save(folder)
    return str(folder)


class Prepared(NamedTuple):
    """The records of a launch, and what it prints of them."""

    dataset: Dataset
    notes: tuple[str, ...]


@pytest.fixture
def prepare(tmp_path):
    def prepare(records, words=None, **text):
        path = tmp_path / 'own.jsonl'
        path.write_text('\n'.join(map(json.dumps, records)))
        chosen = {'unique': 5, 'duplicated': 0, 'max_length': 20} | text
        tokenizer = None if words is None else word_level(tmp_path / 'tokenizer', words)
        settings = TextSettings(dataset=str(path), **chosen)
        model = ModelSettings(vocabulary=300, tokenizer=tokenizer)
        found = language_data.prepare(settings, model, seed=0)
        task = language_data.task_of(
            model,
            found,
            Recipe(),
            default_dir=tmp_path,
            max_length=settings.max_length,
            extract=False,
            seed=0,
        )
        return Prepared(found.dataset, (*found.dataset.notes, *task.notes(found.dataset)))

    return prepare


def test_repeated_records_are_counted_and_the_first_is_kept(prepare):
    records = [{'text': f'{word} door', 'id': word} for word in WORDS[:5]]
    again = [{'text': f'{word} door', 'id': f'{word} again'} for word in WORDS[:3]]
    prepared = prepare([*records, *again])
    assert tuple(prepared.dataset.ids) == WORDS[:5]
    (note,) = prepared.notes
    assert '3 of 8 records repeat' in note and 'first of each is kept' in note


def test_nothing_is_said_where_all_is_well(prepare):
    assert prepare(lines(*WORDS[:5])).notes == ()
    assert prepare(lines(*WORDS[:5]), words=WORDS).notes == ()


@pytest.mark.parametrize('words', [(), ('door',)])
def test_a_tokenizer_that_knows_no_word_is_refused(prepare, words):
    records = lines(*(f'{word} {word[::-1]} is over there' for word in WORDS))
    with pytest.raises(ValueError, match=r'no token for 100% of the characters'):
        prepare(records, words=words)


def test_a_tokenizer_that_knows_some_words_is_cautioned_against(prepare):
    prepared = prepare(lines(*(f'the big {word} door' for word in WORDS[:5])), words=('the', 'big',
                       'door', *WORDS[:3]))  # fmt: skip
    unknown = sum(map(len, WORDS[3:5]))
    all_characters = sum(len(f'thebig{word}door') for word in WORDS[:5])
    first, second = prepared.notes
    assert f'{unknown / all_characters:.1%} of the characters; 2 of 5 records' in first
    assert '1 of 5 records have the very tokens of another' in second


def test_records_that_all_read_alike_are_refused(prepare):
    with pytest.raises(ValueError, match=r'all 5 records have the same 4 tokens'):
        prepare(lines(*(f'a b c d e {word}' for word in WORDS[:5])), max_length=4,
                words=('a', 'b', 'c', 'd', 'e', *WORDS))  # fmt: skip


def test_characters_that_a_tokenizer_drops_count_as_unknown():
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({'<end>': 0, 'a': 1, 'b': 2}, []))
    tokenizer = Tokenizer(backend, 0)
    assert tokenizer.unknown_characters('ab\N{GREEK SMALL LETTER PI}c ') == (2, 4)
    assert tokenizer.encode('a\N{GREEK SMALL LETTER PI}') == [1]


def records_of(path, *, ids=None, **text):
    settings = TextSettings(dataset=str(path), max_length=20, **text)
    return language_data.prepare(settings, ModelSettings(vocabulary=300), seed=0, ids=ids).dataset


@pytest.fixture
def own(tmp_path):
    """A file of forty records, two of them the same text."""
    path = tmp_path / 'mine.jsonl'
    texts = [
        f'{a} {b} is here' for a in WORDS[:8] for b in ('hall', 'gate', 'roof', 'yard', 'pier')
    ]
    texts[-1] = texts[0]
    path.write_text('\n'.join(json.dumps({'text': text}) for text in texts))
    return path


def test_own_texts_are_used_as_they_are(own):
    as_it_is = records_of(own)
    assert len(as_it_is) == 40 and not any(as_it_is.changes) and not as_it_is.notes
    assert as_it_is.has_near_duplicate.sum() == 2  # what repeats itself in the file
    assert records_of(own, unique=0).ids == as_it_is.ids
    assert records_of(own, unique=0, duplicated=0).ids == as_it_is.ids


def test_unique_is_of_the_others_where_near_duplicates_are_asked_for(own):
    every = records_of(own, duplicated=3, copies=2)
    assert len(every) == 39 - 3 + 3 * 2 and every.has_near_duplicate.sum() == 6
    assert records_of(own, duplicated=3, copies=2, unique=0).ids == every.ids
    some = records_of(own, duplicated=3, copies=2, unique=5)
    assert len(some) == 5 + 3 * 2


def test_the_embedded_records_are_chosen_as_before():
    assert TextSettings().counts() == (1000, 100) == TextSettings(dataset='nq_open').counts()
    assert TextSettings(unique=0).counts() == (None, 100)
    dataset = language_data.prepare(
        TextSettings(unique=0, duplicated=2, copies=2), ModelSettings(), seed=0
    ).dataset
    assert len(dataset) > 1000 and dataset.has_near_duplicate.sum() == 4


def test_a_run_of_before_is_continued_with_its_own_records(own, monkeypatch):
    monkeypatch.setattr(language_settings, '_OF_THE_PAPER', (10, 2))
    before = records_of(own, unique=10, duplicated=2, copies=3)
    assert records_of(own, copies=3, ids=before.ids).ids == before.ids
    alone = records_of(own, unique=10, duplicated=0)
    for ids in (None, alone.ids):  # no run, or one of other records
        assert len(records_of(own, ids=ids)) == 40
    monkeypatch.setattr(language_settings, '_OF_THE_PAPER', (1000, 100))
    assert len(records_of(own, ids=before.ids)) == 40  # too few for what it meant before


@pytest.mark.parametrize('flag', ['copies', 'duplication_count'])
def test_flags_of_near_duplicates_that_are_not_made_are_refused(own, flag):
    with pytest.raises(ValueError, match=f'--{flag} is of near-duplicates'):
        records_of(own, **{flag: 3})


@pytest.mark.parametrize('flag', ['unique', 'duplicated'])
def test_negative_counts_are_refused(flag):
    with pytest.raises(ValueError, match=f'{flag} must be 0'):
        TextSettings(**{flag: -1})
