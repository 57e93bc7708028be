"""Injection: which examples are chosen, the truth that is kept, and what is refused."""

import dataclasses
import hashlib
import json
from typing import NamedTuple

import numpy as np
import pytest

from influence_jax.data import Dataset
from influence_jax.data.near_duplicates import (
    Change,
    ImageChange,
    TextChange,
    Variant,
    image_change,
    inject,
    text_change,
    unused,
    without_repeats,
)
from influence_jax.data.text.tokenizer import train_byte_bpe

NAMES = ['ada', 'alan', 'grace', 'john', 'emmy', 'kurt', 'alonzo', 'edsger', 'barbara']
COUNTS = {'unique': 20, 'duplicated': 7, 'copies': 5}
TYPOS = text_change(TextChange.TYPOS)


def texts(completions, prompts=None, **fields):
    count = len(completions)
    prompts = [f'Q: who is number {i} A:' for i in range(count)] if prompts is None else prompts
    arrays = {'prompt': np.array(prompts), 'completion': np.array(completions)}
    given = {'name': 'toy', 'ids': [f'r{i}' for i in range(count)], 'provenance': 'made up'}
    return Dataset(arrays, **(given | fields))


def records(number=60, **fields):
    rng = np.random.default_rng(0)
    answers = [' '.join(rng.choice(NAMES, rng.integers(1, 6))) for _ in range(number)]
    return texts([f' {answer}' for answer in answers], **fields)


def completions(dataset):
    return dataset.arrays['completion'].tolist()


@pytest.fixture(scope='module')
def tokenizer():
    return train_byte_bpe(records().texts, 300)


@pytest.fixture(scope='module')
def one_token(tokenizer):
    return text_change(TextChange.REPLACE_TOKEN, tokenizer=tokenizer)


@pytest.fixture(scope='module')
def injected(one_token):
    return inject(records(), one_token, **COUNTS, seed=3)


def test_unique_records_first_then_clusters(injected):
    assert injected.num_examples == 20 + 7 * 5
    np.testing.assert_array_equal(
        injected.groups, [*range(20), *np.repeat(np.arange(20, 27), 5).tolist()]
    )
    np.testing.assert_array_equal(injected.has_near_duplicate, np.arange(55) >= 20)
    for start in range(20, 55, 5):
        original = injected.ids[start]
        assert injected.ids[start : start + 5] == (
            original,
            *(f'{original}~{n}' for n in (1, 2, 3, 4)),
        )
        assert injected.is_original[start : start + 5].tolist() == [True] + [False] * 4
    assert injected.is_original[:20].all()


def test_originals_are_distinct_records_as_they_were(injected):
    source = records()
    row = {name: i for i, name in enumerate(source.ids)}
    originals = np.flatnonzero(injected.is_original)
    assert len({injected.ids[i] for i in originals}) == 27
    for i in originals:
        assert injected.texts[i] == source.texts[row[injected.ids[i]]]
    for ids in (injected.ids[:20], injected.ids[20::5]):
        assert list(ids) == sorted(ids, key=row.get)


def test_variants_keep_the_question_and_differ_in_one_token(injected, tokenizer):
    for start in range(20, 55, 5):
        cluster = range(start, start + 5)
        assert len({injected.arrays['prompt'][i] for i in cluster}) == 1
        answers = [completions(injected)[i] for i in cluster]
        assert len(set(answers)) == 5
        original = tokenizer.encode(answers[0])
        for answer in answers[1:]:
            variant = tokenizer.encode(answer)
            different = [a for a, b in zip(original, variant, strict=True) if a != b]
            assert len(different) == 1
        assert all(injected.changes[i].startswith('token ') for i in list(cluster)[1:])


@pytest.mark.parametrize('change', list(TextChange))
def test_every_kind_makes_distinct_variants(change, tokenizer):
    source = records()
    if change is TextChange.PARAPHRASE:
        source = texts([f' the big city number {i} has a small house' for i in range(60)])
    made = text_change(change, tokenizer=tokenizer)
    result = inject(source, made, unique=5, duplicated=3, copies=4, seed=0)
    for start in range(5, 17, 4):
        assert len(set(completions(result)[start : start + 4])) == 4
    assert 'made up; chosen at random (seed 0): 5 unique examples and 3 in 4' in result.provenance
    assert change.value in result.provenance


def _hash(dataset, *arrays):
    digest = hashlib.sha256()
    for part in (list(dataset.ids), dataset.groups.tolist(), list(dataset.changes), *arrays):
        digest.update(part if isinstance(part, bytes) else json.dumps(part).encode())
    return digest.hexdigest()[:16]


RECORDED = {
    # Before images and texts were injected by the same function.
    ImageChange.SHIFT: '706b40d914f2fba6',
    ImageChange.FLIP: 'aa25b18ab49d6c6f',
    ImageChange.NOISE: '2e15489c2f2401be',
    TextChange.REPLACE_TOKEN: 'cf6a6c4485f73f21',
    TextChange.REPLACE_TOKENS: '0105eabe2e17da0e',
    TextChange.DELETE_WORDS: '062a687a2216ad2d',
    TextChange.SWAP_WORDS: 'fb610f7f6db8ae5c',
    TextChange.REORDER_WORDS: 'cf30e44f6ade5e97',
    TextChange.PARAPHRASE: '7fd0796968de8ba2',
    TextChange.CHANGE_CASE: '2a153e985c8e65ec',
    TextChange.TYPOS: '38a4cc9fb0b5e583',
}


@pytest.mark.parametrize(
    ('kind', 'expected'), RECORDED.items(), ids=lambda x: getattr(x, 'name', '')
)
def test_a_seed_means_the_same_in_every_version(kind, expected):
    counts = {'unique': 20, 'duplicated': 8, 'copies': 4, 'seed': 5}
    if isinstance(kind, ImageChange):
        source = Dataset.clipart().take(np.arange(0, 1567, 10))
        result = inject(source, image_change(kind), **counts)
        arrays = result.arrays['label'].tolist(), result.arrays['image'].tobytes()
    else:
        source = Dataset.wordnet().take(np.arange(200))
        tokenizer = train_byte_bpe(source.texts, 400)
        result = inject(source, text_change(kind, tokenizer=tokenizer, max_length=30), **counts)
        arrays = result.arrays['prompt'].tolist(), completions(result)
    assert _hash(result, *arrays) == expected


def test_the_seed_decides_everything(one_token):
    first, same, other = (inject(records(), one_token, **COUNTS, seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint == same.fingerprint
    assert first.changes == same.changes
    assert first.ids != other.ids


def test_variants_of_a_record_depend_on_seed_and_id_alone(one_token):
    def variants(source, *, seed=3, **counts):
        result = inject(source, one_token, **counts, seed=seed)
        every = zip(result.ids, completions(result), result.is_original, strict=True)
        return {name: text for name, text, is_original in every if not is_original}

    few = variants(records(), unique=3, duplicated=7, copies=3)
    many = variants(records(), unique=20, duplicated=9, copies=5)
    moved = variants(records().take(np.arange(60)[::-1]), unique=0, duplicated=60, copies=3)
    for name in few:
        assert few[name] == many[name] == moved[name]
    other = variants(records(), unique=0, duplicated=60, copies=3, seed=4)
    assert sum(other[name] == moved[name] for name in moved) < 10


def test_every_record_is_chosen_about_as_often():
    times = np.zeros((2, 60))
    source = records()
    for seed in range(300):
        result = inject(source, TYPOS, unique=12, duplicated=6, copies=2, seed=seed)
        for i in np.flatnonzero(result.is_original):
            times[int(i >= 12), int(result.ids[i][1:])] += 1
    for row, expected in zip(times, (60, 30), strict=True):
        assert np.abs(row - expected).max() < 5 * np.sqrt(expected)


def test_only_records_that_can_be_changed_are_duplicated():
    source = records()
    words = [len(set(text.split())) for text in completions(source)]
    possible = {name for name, count in zip(source.ids, words, strict=True) if count > 1}
    assert 30 < len(possible) < 60
    counts = {'unique': 60 - len(possible), 'duplicated': len(possible), 'copies': 2}
    result = inject(source, text_change(TextChange.REORDER_WORDS), **counts, seed=0)
    assert set(result.ids[60 - len(possible) :: 2]) == possible


def test_too_few_that_can_be_changed():
    source = texts([' one', ' two words', ' a b c'])
    with pytest.raises(
        ValueError,
        match=r"dataset 'toy', reorder_words: only 1 of 3 examples can be written in 5 "
        'different versions, but 2 are to be duplicated',
    ) as caught:
        reorder = text_change(TextChange.REORDER_WORDS)
        inject(source, reorder, unique=0, duplicated=2, copies=5, seed=0)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'copies': 1}, 'copies=1 must be at least 2'),
        ({'unique': -1}, 'unique=-1 and duplicated=7 must be 0 or more'),
        ({'duplicated': -2}, 'duplicated=-2 must be 0 or more'),
        ({'unique': 0, 'duplicated': 0}, 'not both of them 0'),
        ({'unique': 54}, 'unique=54 and duplicated=7 take 61 different examples, .* only 60'),
        ({'seed': -1}, 'seed=-1 must be 0 or more'),
    ],
)
def test_bad_counts_are_refused_in_one_line(changed, message):
    with pytest.raises(ValueError, match=f"dataset 'toy', typos: .*{message}") as caught:
        inject(records(), TYPOS, **{**COUNTS, 'seed': 0, **changed})
    assert '\n' not in str(caught.value)


def test_copies_are_of_no_account_where_nothing_is_copied():
    result = inject(records(), TYPOS, unique=3, duplicated=0, copies=1, seed=0)
    assert result.num_examples == 3


def test_groups_that_are_there_already_are_refused(injected):
    with pytest.raises(ValueError, match='has groups of near-duplicates already'):
        inject(injected, TYPOS, unique=1, duplicated=1, copies=2, seed=0)


def test_repeats_are_left_out_and_counted():
    source = texts([' x', ' y', ' x', ' z', ' w'], prompts=['a', 'b', 'a', 'c', 'd'])
    kept = without_repeats(source)
    assert kept.ids == ('r0', 'r1', 'r3', 'r4')
    (note,) = kept.notes
    assert '1 of 5 records repeat' in note and 'first of each is kept' in note
    assert without_repeats(kept).notes == kept.notes
    assert without_repeats(kept).fingerprint == kept.fingerprint


def test_of_each_group_the_first_is_kept_in_the_order_of_the_groups():
    source = Dataset({'x': np.arange(5)}, groups=[7, 2, 7, 0, 2])
    kept = without_repeats(source)
    assert kept.arrays['x'].tolist() == [3, 1, 0]
    assert '2 of 5' in kept.notes[0]
    again = without_repeats(dataclasses.replace(records(), groups=np.arange(60)[::-1]))
    assert (again.ids, again.notes) == (records().ids[::-1], ())


def test_what_is_unused(injected):
    source = records()
    left = unused(source, injected)
    assert len(left) == 60 - 27
    assert left.dtype == np.int64
    rest = source.take(left)
    assert not set(rest.ids) & set(injected.ids)
    assert not set(rest.texts) & set(injected.texts)
    assert len(unused(source, source)) == 0


def test_a_record_equal_to_a_used_one_is_not_unused():
    again = records(4, ids=('a', 'b', 'c', 'd'))
    assert unused(again, records(4).take(np.array([0, 2]))).tolist() == [1, 3]


def test_a_plain_text_is_changed_as_a_whole():
    plain = texts([f'some plain text {i}' for i in range(9)], prompts=[''] * 9)
    result = inject(plain, TYPOS, unique=1, duplicated=2, copies=2, seed=0)
    assert ' of the text: ' in result.changes[2]
    answered = inject(records(), TYPOS, unique=1, duplicated=2, copies=2, seed=0)
    assert ' of the answer: ' in answered.changes[2]


class Shifted(NamedTuple):
    """A user's own change: one of so many numbers above the original."""

    possible: int
    name: str = 'shifted'

    def identity(self, dataset, index):
        return 0

    def vary(self, dataset, index, rng):
        step = int(rng.integers(self.possible + 1))
        return Variant({'x': dataset.arrays['x'][index] + step}, f'+{step}', step)


@pytest.mark.parametrize(('possible', 'wanted'), [(4, 4), (10, 9), (40, 38)])
def test_variants_of_ones_own_are_found_where_few_are_possible(possible, wanted):
    change = Shifted(possible)
    assert isinstance(change, Change)
    source = Dataset({'x': np.array([100.0]), 'y': np.array([5])})
    for seed in range(100):
        result = inject(source, change, unique=0, duplicated=1, copies=1 + wanted, seed=seed)
        assert len(set(result.arrays['x'].tolist())) == 1 + wanted
        assert result.arrays['x'][0] == 100 and (result.arrays['y'] == 5).all()
        steps = (result.arrays['x'] - 100)[1:].astype(int).tolist()
        assert result.changes == ('', *(f'+{step}' for step in steps))
