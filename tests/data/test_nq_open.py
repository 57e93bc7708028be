"""NQ-open from the dataset's own files: which file, the records, their ids and order."""

import json
import os
from pathlib import Path

import pytest

from influence_jax.data.sources import nq_open

RECORDS = (
    {'question': 'who is it', 'answer': ['Ann', 'Ann B.']},
    {'question': 'who is it', 'answer': ['Bob']},
    {'question': 'where is it ', 'answer': [' here']},
    {'question': 'when', 'answer': 'now'},
)


def write(path, records=RECORDS):
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return path


def contents(dataset):
    return dict(zip(dataset.ids, dataset.texts, strict=True))


def test_records(tmp_path):
    dataset = nq_open.load(write(tmp_path / 'any.jsonl'))
    assert (dataset.name, dataset.num_examples) == ('nq_open', 4)
    assert dataset.arrays['prompt'][dataset.texts.index('Q: who is it A: Ann')] == 'Q: who is it A:'
    assert set(dataset.texts) == {
        'Q: who is it A: Ann',
        'Q: who is it A: Bob',
        'Q: where is it A: here',
        'Q: when A: now',
    }
    assert 'CC BY-SA' in dataset.provenance


def test_ids_are_of_the_question_and_order_the_records(tmp_path):
    dataset = nq_open.load(write(tmp_path / 'any.jsonl'))
    assert list(dataset.ids) == sorted(dataset.ids)
    # SHA-256 of 'when', as every tool prints it.
    assert contents(dataset)['nq_open-15eaa75240aed625'] == 'Q: when A: now'
    other_answer = [{**record, 'answer': 'another'} for record in RECORDS]
    assert nq_open.load(write(tmp_path / 'other.jsonl', other_answer)).ids == dataset.ids
    fewer = nq_open.load(write(tmp_path / 'fewer.jsonl', RECORDS[2:]))
    assert contents(fewer).items() < contents(dataset).items()


def test_the_order_of_the_file_does_not_matter(tmp_path):
    dataset = nq_open.load(write(tmp_path / 'any.jsonl'))
    turned = nq_open.load(write(tmp_path / 'turned.jsonl', RECORDS[::-1]))
    assert turned.fingerprint == dataset.fingerprint


def test_white_space_around_a_question_does_not_matter(tmp_path):
    neat = [{**record, 'question': record['question'].strip()} for record in RECORDS]
    dataset = nq_open.load(write(tmp_path / 'any.jsonl'))
    assert nq_open.load(write(tmp_path / 'neat.jsonl', neat)).fingerprint == dataset.fingerprint


def test_records_of_one_question_are_near_duplicates(tmp_path):
    dataset = nq_open.load(write(tmp_path / 'any.jsonl'))
    asked = [prompt == 'Q: who is it A:' for prompt in dataset.arrays['prompt']]
    assert dataset.has_near_duplicate.tolist() == asked
    first, second = (i for i, text in contents(dataset).items() if 'who' in text)
    assert second == first + '.2'


def test_which_file_of_a_folder_is_read(tmp_path):
    def read():
        return nq_open.load(tmp_path).provenance.rsplit('; ')[-1]

    write(tmp_path / 'NQ-open.dev.first2.jsonl', RECORDS[:2])
    assert read() == 'NQ-open.dev.first2.jsonl'
    write(tmp_path / 'NQ-open.dev.jsonl')
    assert read() == 'NQ-open.dev.jsonl'
    write(tmp_path / 'NQ-open.train.jsonl')
    assert read() == 'NQ-open.train.jsonl'


def test_several_files_that_could_be_meant(tmp_path):
    write(tmp_path / 'NQ-open.a.jsonl')
    write(tmp_path / 'NQ-open.b.jsonl')
    with pytest.raises(ValueError, match=r'holds 2 files of it \(NQ-open\.a\.jsonl, .*\); give'):
        nq_open.load(tmp_path)


@pytest.mark.parametrize('exists', [True, False])
def test_nothing_there_says_what_to_put_where(tmp_path, exists):
    folder = tmp_path if exists else tmp_path / 'none'
    with pytest.raises(FileNotFoundError) as caught:
        nq_open.load(folder)
    for part in (str(folder), 'NQ-open.train.jsonl', 'tfds build natural_questions_open'):
        assert part in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('record', 'message'),
    [
        ({'question': 'who'}, """must hold {"question", "answer"}; found: 'question'"""),
        ({'question': 'who', 'answer': []}, '"answer" is an empty list'),
        ({'question': ['who'], 'answer': 'me'}, '"question" must be text, found a list'),
        ({'question': 'who', 'answer': [3]}, '"answer" must be text, found a number'),
        ({'question': ' ', 'answer': 'me'}, '"question" is empty'),
    ],
)
def test_bad_records_are_named(tmp_path, record, message):
    path = write(tmp_path / 'any.jsonl', [*RECORDS, record])
    with pytest.raises(ValueError, match=f'any.jsonl: line 5: {message}'):
        nq_open.load(path)


def test_the_real_records():
    folder = Path(__file__).parents[2].parent / 'shared' / 'data' / 'nq_open'
    if not folder.is_dir():
        pytest.skip(f'no {folder}')
    dataset = nq_open.load(folder)
    assert dataset.num_examples == 2_500
    assert (
        'Q: when was the last time anyone was on the moon A: 14 December 1972 UTC' in dataset.texts
    )
    assert not dataset.has_near_duplicate.any()


@pytest.mark.parametrize('name', ['NQ-open.train.jsonl', 'NQ-open.other.jsonl'])
def test_a_pipe_is_refused_by_name(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f'{name} is a pipe'):
        nq_open.load(tmp_path)
