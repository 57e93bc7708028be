"""Anyone's own `.jsonl`: the three forms, ids, and every way in which a line can be wrong."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_jax.data.sources import jsonl


def write(path, *lines):
    path = path / 'own.jsonl'
    path.write_text(''.join(line + '\n' for line in lines), encoding='utf-8')
    return path


def parse(*records):
    content = '\n'.join(json.dumps(record) for record in records).encode()
    return jsonl.parse(content, where='own.jsonl', name='own', provenance='')


def test_the_three_forms():
    dataset = parse(
        {'question': 'who ', 'answer': ' me'},
        {'question': 'who', 'answer': ['first', 'second']},
        {'prompt': 'Once', 'completion': ' upon\na time'},
        {'text': ' plain, as it is ', 'source': 'not read'},
    )
    assert dataset.arrays['prompt'].tolist() == ['Q: who A:', 'Q: who A:', 'Once', '']
    assert dataset.arrays['completion'].tolist() == [
        ' me', ' first', ' upon\na time', ' plain, as it is ',
    ]  # fmt: skip
    assert not dataset.has_near_duplicate.any()


def test_a_file_gives_its_name(tmp_path):
    dataset = jsonl.load(write(tmp_path, '{"text": "a"}', '', '  ', '{"text": "é\u2028b"}'))
    assert (dataset.name, dataset.provenance) == ('own', 'own.jsonl')
    assert dataset.texts == ('a', 'é\u2028b')


def test_other_line_ends_and_a_byte_order_mark():
    content = b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r{"text": "c"}'
    assert jsonl.parse(content, where='', name='own', provenance='').texts == ('a', 'b', 'c')


def test_given_ids():
    assert parse({'text': 'a', 'id': 7}, {'text': 'b', 'id': 'seven'}).ids == ('7', 'seven')


def test_ids_do_not_depend_on_the_other_lines():
    a, b, c = {'text': 'a'}, {'text': 'b', 'id': 'x'}, {'prompt': 'a', 'completion': 'b'}
    of_a = parse(a).ids[0]
    assert parse(c, b, a).ids == (parse(c).ids[0], 'x', of_a)
    assert of_a != parse(c).ids[0]


def test_ids_tell_where_the_prompt_ends():
    dataset = parse({'prompt': 'a', 'completion': 'bc'}, {'prompt': 'ab', 'completion': 'c'})
    assert not any(example_id.endswith('.2') for example_id in dataset.ids)


def test_the_same_text_twice_is_one_group_under_two_ids():
    dataset = parse({'text': 'a'}, {'text': 'b'}, {'text': 'a'})
    assert dataset.ids[2] == dataset.ids[0] + '.2'
    assert dataset.has_near_duplicate.tolist() == [True, False, True]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text().filter(str.strip)), min_size=1))
def test_any_texts_come_back_as_they_were(pairs):
    dataset = parse(*({'prompt': prompt, 'completion': text} for prompt, text in pairs))
    read = dataset.arrays['prompt'].tolist(), dataset.arrays['completion'].tolist()
    assert list(zip(*read, strict=True)) == pairs


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('{"text": "a"', r'not JSON \(Expecting .*\); each line must be one JSON object'),
        ('[' * 100_000, '.*64 levels'),
        ('{"text": ' + '1' * 5_000 + '}', '.*5000 digits'),
        ('{"text": "a", "text": "b"}', ".*the key 'text' twice"),
        ('{"text": "a", "n": NaN}', '.*NaN'),
        ('{' + '"a": 1,' * 5 + '"' + 'b' * 2**20 + '": 2}', ".*the key 'a' twice"),
        ('{"' + 'b' * 2**20 + '": 2}', "must hold one of .*; found: 'bbb"),
        ('["a"]', r'holds a list, but must be an object with \{"question", "answer"\}'),
        ('null', 'holds null'),
        ('3', 'holds a number'),
        ('{}', 'must hold one of .*; found: nothing'),
        ('{"question": "a"}', "must hold one of .*; found: 'question'"),
        (
            '{"text": "a", "prompt": "b", "completion": "c"}',
            "must hold one of .*; found: 'completion', 'prompt', 'text'",
        ),
        ('{"text": 3}', '"text" must be text, found a number'),
        ('{"text": null}', '"text" must be text, found null'),
        ('{"text": " \\n"}', '"text" is empty; leave the record out'),
        ('{"text": "\\ud800"}', '"text" is no valid text'),
        ('{"prompt": ["a"], "completion": "b"}', '"prompt" must be text, found a list'),
        ('{"prompt": "a", "completion": ""}', '"completion" is empty'),
        ('{"question": "", "answer": "b"}', '"question" is empty'),
        ('{"question": "a", "answer": []}', '"answer" is an empty list'),
        ('{"question": "a", "answer": [" "]}', '"answer" is empty'),
        ('{"question": "a", "answer": [true]}', '"answer" must be text, found true or false'),
        ('{"question": "a", "answer": {}}', '"answer" must be text, found an object'),
        ('{"text": "a", "id": ""}', '"id" is empty'),
        ('{"text": "a", "id": true}', '"id" must be text, found true or false'),
        ('{"text": "a", "id": "one"}', "the id 'one' occurs in line 1 already"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = write(tmp_path, '{"text": "first", "id": "one"}', '', line)
    with pytest.raises(ValueError, match=f'own.jsonl: line 3: {message}') as caught:
        jsonl.load(path)
    assert '\n' not in str(caught.value)
    assert len(str(caught.value)) < 1_000


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / 'own.jsonl'
    path.write_bytes('{"text": "a"}\n{"text": "é"}'.encode('latin-1'))
    with pytest.raises(ValueError, match=r'line 2: not UTF-8 \(byte 11 of the line\); convert'):
        jsonl.load(path)


@pytest.mark.parametrize('content', ['', '\n\n'])
def test_an_empty_file(tmp_path, content):
    with pytest.raises(ValueError, match=r'own\.jsonl: there are no records'):
        jsonl.load(write(tmp_path, content))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.jsonl: no such file'):
        jsonl.load(tmp_path / 'none.jsonl')


def test_a_given_id_that_equals_the_hash_of_another():
    hashed = parse({'text': 'a'}).ids[0]
    with pytest.raises(ValueError, match='occurs more than once'):
        parse({'text': 'a'}, {'text': 'b', 'id': hashed})


def test_a_pipe_and_a_folder_are_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jsonl')
    (tmp_path / 'folder.jsonl').mkdir()
    for name, kind in (('pipe', 'a pipe'), ('folder', 'a directory')):
        with pytest.raises(ValueError, match=rf'{name}\.jsonl is {kind}'):
            jsonl.load(tmp_path / f'{name}.jsonl')


def test_questions_are_written_as_in_the_paper():
    assert ''.join(jsonl.question_and_answer(' who is it\n', 'me ')) == 'Q: who is it A: me'


CONTENTS = st.lists(st.text(max_size=3), max_size=8)


@settings(max_examples=50, deadline=None)
@given(CONTENTS, st.randoms(use_true_random=False))
def test_ids_of_contents_depend_on_the_content_alone(contents, random):
    ids = jsonl.content_ids('stem', contents)
    assert len(set(ids)) == len(contents)
    shuffled = random.sample(contents, len(contents))
    of = dict(zip(jsonl.content_ids('stem', shuffled), shuffled, strict=True))
    assert of == dict(zip(ids, contents, strict=True))


def test_ids_of_contents_are_the_same_for_ever():
    # SHA-256 of 'a', as every tool prints it.
    assert jsonl.content_ids('x', 'aba') == (
        'x-ca978112ca1bbdca',
        'x-3e23e8160039594a',
        'x-ca978112ca1bbdca.2',
    )
