"""Planting in texts: who is chosen, the truth that is kept, and what is refused."""

import dataclasses

import numpy as np
import pytest

from influence_jax.data.near_duplicates import TextChange, plant, unused
from influence_jax.data.near_duplicates.choose import Counts, choose
from influence_jax.data.text import TextDataset, byte_bpe

NAMES = ['ada', 'alan', 'grace', 'john', 'emmy', 'kurt', 'alonzo', 'edsger', 'barbara']


def records(number=60):
    rng = np.random.default_rng(0)
    answers = [' '.join(rng.choice(NAMES, rng.integers(1, 6))) for _ in range(number)]
    return TextDataset(
        name='toy',
        prompts=tuple(f'Q: who is number {i} A:' for i in range(number)),
        completions=tuple(f' {answer}' for answer in answers),
        ids=tuple(f'r{i}' for i in range(number)),
        provenance='made up',
    )


@pytest.fixture(scope='module')
def tokenizer():
    return byte_bpe.train(records().texts, 300)


@pytest.fixture(scope='module')
def planted(tokenizer):
    return plant(records(), TextChange.REPLACE_TOKEN, **COUNTS, seed=3, tokenizer=tokenizer)


COUNTS = {'unique': 20, 'duplicated': 7, 'copies': 5}


def test_unique_records_first_then_clusters(planted):
    assert planted.num_examples == 20 + 7 * 5
    np.testing.assert_array_equal(
        planted.groups, [*range(20), *np.repeat(np.arange(20, 27), 5).tolist()]
    )
    assert planted.groups.dtype == np.int32
    np.testing.assert_array_equal(planted.has_near_duplicate, np.arange(55) >= 20)
    for start in range(20, 55, 5):
        original = planted.ids[start]
        assert planted.ids[start : start + 5] == (
            original,
            *(f'{original}~{n}' for n in (1, 2, 3, 4)),
        )
        assert planted.changes[start] == ''
        assert all(planted.changes[start + 1 : start + 5])
    assert not any(planted.changes[:20])


def test_originals_are_distinct_records_as_they_were(planted):
    source = records()
    row = {name: i for i, name in enumerate(source.ids)}
    originals = [i for i, name in enumerate(planted.ids) if '~' not in name]
    assert len({planted.ids[i] for i in originals}) == 27
    for i in originals:
        j = row[planted.ids[i]]
        assert planted.prompts[i] == source.prompts[j]
        assert planted.completions[i] == source.completions[j]
    for ids in (planted.ids[:20], planted.ids[20::5]):
        assert list(ids) == sorted(ids, key=row.get)


def test_variants_keep_the_question_and_differ_in_one_token(planted, tokenizer):
    for start in range(20, 55, 5):
        cluster = range(start, start + 5)
        assert len({planted.prompts[i] for i in cluster}) == 1
        assert len({planted.completions[i] for i in cluster}) == 5
        original = tokenizer.encode(planted.completions[start])
        for i in list(cluster)[1:]:
            variant = tokenizer.encode(planted.completions[i])
            different = [a for a, b in zip(original, variant, strict=True) if a != b]
            assert len(different) == 1
            assert planted.changes[i].startswith('token ')


@pytest.mark.parametrize('change', list(TextChange))
def test_every_kind_makes_distinct_variants(change, tokenizer):
    source = records()
    if change is TextChange.PARAPHRASE:
        texts = tuple(f' the big city number {i} has a small house' for i in range(60))
        source = dataclasses.replace(source, completions=texts)
    result = plant(source, change, unique=5, duplicated=3, copies=4, seed=0, tokenizer=tokenizer)
    for start in range(5, 17, 4):
        assert len(set(result.completions[start : start + 4])) == 4
    assert 'made up; chosen at random (seed 0): 5 unique records and 3 in 4' in result.provenance
    assert change.value in result.provenance


def test_the_seed_decides_everything(tokenizer):
    def again(seed):
        return plant(records(), TextChange.REPLACE_TOKEN, **COUNTS, seed=seed, tokenizer=tokenizer)

    first, same, other = again(3), again(3), again(4)
    assert first.fingerprint == same.fingerprint
    assert first.changes == same.changes
    assert first.ids != other.ids


def test_variants_of_a_record_depend_on_seed_and_id_alone(tokenizer):
    def texts(source, *, seed=3, **counts):
        result = plant(source, TextChange.REPLACE_TOKEN, **counts, seed=seed, tokenizer=tokenizer)
        return dict(zip(result.ids, result.completions, strict=True))

    few = texts(records(), unique=3, duplicated=7, copies=3)
    many = texts(records(), unique=20, duplicated=9, copies=5)
    moved = texts(records().take(np.arange(60)[::-1]), unique=0, duplicated=60, copies=3)
    for name in (name for name in few if '~' in name):
        assert few[name] == many[name] == moved[name]
    other = texts(records(), unique=0, duplicated=60, copies=3, seed=4)
    assert sum(other[name] == moved[name] for name in moved if '~' in name) < 10


def test_every_record_is_chosen_about_as_often(tokenizer):
    times = np.zeros((2, 60))
    for seed in range(300):
        result = plant(records(), TextChange.TYPOS, unique=12, duplicated=6, copies=2, seed=seed)
        for i, name in enumerate(result.ids):
            if '~' not in name:
                times[int(i >= 12), int(name[1:])] += 1
    for row, expected in zip(times, (60, 30), strict=True):
        assert np.abs(row - expected).max() < 5 * np.sqrt(expected)


def test_only_records_that_can_be_changed_are_duplicated():
    source = records()
    words = np.array([len(set(text.split())) for text in source.completions])
    possible = {name for name, count in zip(source.ids, words, strict=True) if count > 1}
    assert 30 < len(possible) < 60
    result = plant(
        source,
        TextChange.REORDER_WORDS,
        unique=60 - len(possible),
        duplicated=len(possible),
        copies=2,
        seed=0,
    )
    assert set(result.ids[60 - len(possible) :: 2]) == possible


def test_too_few_that_can_be_changed_is_said():
    source = records(3)
    source = dataclasses.replace(source, completions=(' one', ' two words', ' a b c'))
    with pytest.raises(
        ValueError,
        match=r"dataset 'toy', reorder_words: only 1 of 3 records can be written in 5 "
        'different versions, but 2 are to be duplicated',
    ) as caught:
        plant(source, TextChange.REORDER_WORDS, unique=0, duplicated=2, copies=5, seed=0)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'copies': 1}, 'copies=1 must be at least 2'),
        ({'unique': -1}, 'unique=-1 and duplicated=7 must be 0 or more'),
        ({'duplicated': -2}, 'duplicated=-2 must be 0 or more'),
        ({'unique': 0, 'duplicated': 0}, 'not both of them 0'),
        ({'unique': 54}, '54 unique and 7 duplicated are 61 different records, .* only 60'),
        ({'seed': -1}, 'seed=-1 must be 0 or more'),
    ],
)
def test_bad_counts_are_refused_in_one_line(changed, message):
    with pytest.raises(ValueError, match=f"dataset 'toy', typos: .*{message}") as caught:
        plant(records(), TextChange.TYPOS, **{**COUNTS, 'seed': 0, **changed})
    assert '\n' not in str(caught.value)


def test_copies_are_of_no_account_where_nothing_is_copied():
    result = plant(records(), TextChange.TYPOS, unique=3, duplicated=0, copies=1, seed=0)
    assert result.num_examples == 3


def test_groups_that_are_there_already_are_refused(planted):
    with pytest.raises(ValueError, match='has groups of near-duplicates already'):
        plant(planted, TextChange.TYPOS, unique=1, duplicated=1, copies=2, seed=0)


def test_of_equal_records_only_one_is_chosen():
    source = records(10)
    twice = dataclasses.replace(
        source,
        prompts=source.prompts[:9] + source.prompts[:1],
        completions=source.completions[:9] + source.completions[:1],
    )
    result = plant(twice, TextChange.TYPOS, unique=8, duplicated=1, copies=2, seed=0)
    assert len(set(result.texts)) == result.num_examples
    with pytest.raises(ValueError, match='only 9'):
        plant(twice, TextChange.TYPOS, unique=9, duplicated=1, copies=2, seed=0)


def test_what_is_unused(planted):
    source = records()
    left = unused(source, planted)
    assert len(left) == 60 - 27
    assert left.dtype == np.int64
    rest = source.take(left)
    assert not set(rest.ids) & set(planted.ids)
    assert not set(rest.texts) & set(planted.texts)
    assert len(unused(source, source)) == 0


def test_a_record_equal_to_a_used_one_is_not_unused():
    source = records(4)
    again = dataclasses.replace(source, ids=('a', 'b', 'c', 'd'))
    assert unused(again, source.take(np.array([0, 2]))).tolist() == [1, 3]


def test_a_plain_text_is_changed_as_a_whole():
    source = dataclasses.replace(records(), prompts=('',) * 60)
    source = dataclasses.replace(
        source, completions=tuple(f'{text} {i}' for i, text in enumerate(source.completions))
    )
    result = plant(source, TextChange.TYPOS, unique=1, duplicated=2, copies=2, seed=0)
    assert ' of the text: ' in result.changes[2]
    answered = plant(records(), TextChange.TYPOS, unique=1, duplicated=2, copies=2, seed=0)
    assert ' of the answer: ' in answered.changes[2]


@pytest.mark.parametrize(('possible', 'wanted'), [(4, 4), (10, 9), (40, 38)])
def test_variants_are_found_where_few_are_possible(possible, wanted):
    for seed in range(100):
        choice = choose(
            ('x',),
            Counts(unique=0, duplicated=1, copies=1 + wanted),
            vary=lambda _, rng: int(rng.integers(possible + 1)) or None,
            identity=lambda variant: variant,
            original=lambda _: 0,
            seed=seed,
            what='numbers',
        )
        assert len(set(choice.clusters[0])) == wanted
