"""TextDataset: what it refuses, its fingerprint, subsets of it, and ids made of contents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_jax.data.text import TextDataset
from influence_jax.data.text.dataset import content_ids, question_and_answer


def make(**changes):
    fields = {
        'name': 'toy',
        'prompts': ('Q: a A:', 'Q: a A:', '', 'Q: b A:'),
        'completions': (' x', ' y', 'plain', ' z'),
        'ids': ('a', 'a~1', 'b', 'c'),
        'groups': np.array([7, 7, 2, 0], np.int32),
        'changes': ('', 'another answer', '', ''),
        'provenance': 'made up',
    }
    return TextDataset(**{**fields, **changes})


def test_texts_and_counts():
    assert make().num_examples == 4
    assert make().texts == ('Q: a A: x', 'Q: a A: y', 'plain', 'Q: b A: z')


def test_by_default_no_record_is_a_near_duplicate():
    dataset = TextDataset(name='toy', prompts=('', ''), completions=('x', 'x'), ids=('a', 'b'))
    assert dataset.groups.tolist() == [0, 1]
    assert dataset.changes == ('', '')
    assert not dataset.has_near_duplicate.any()


def test_near_duplicates_are_records_of_one_group():
    assert make().has_near_duplicate.tolist() == [True, True, False, False]
    # Of a group, a single record is left.
    assert not make().take([1, 2]).has_near_duplicate.any()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'prompts': ('', '')}, 'prompts must number 4, one an id; found 2'),
        ({'completions': [' x'] * 4}, 'completions must be a tuple of str'),
        ({'completions': (' x', ' y', b'plain', ' z')}, 'completions must be a tuple of str'),
        ({'completions': (' x', ' \n', '', ' z')}, r"record 'a~1' is empty: .*\(2 such records\)"),
        ({'prompts': ('', '\ud800', '', '')}, r"prompts holds '\\ud800', which is no valid text"),
        ({'ids': ('a', 'b', 'c', 'a')}, "the id 'a' occurs more than once"),
        ({'ids': ()}, 'there are no records'),
        ({'changes': ('', '')}, 'changes must number 4'),
        ({'groups': np.arange(4)}, 'groups must be int32, found int64'),
        ({'groups': [0, 1, 2, 3]}, 'groups must be int32, found list'),
        ({'groups': np.zeros(3, np.int32)}, r'groups must number 4, found shape \(3,\)'),
    ],
)
def test_bad_parts_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=f"dataset 'toy': .*{message}") as caught:
        make(**changes)
    assert '\n' not in str(caught.value)


def test_groups_are_read_only_without_touching_the_callers():
    groups = np.zeros(4, np.int32)
    dataset = make(groups=groups)
    with pytest.raises(ValueError, match='read-only'):
        dataset.groups[0] = 1
    groups[0] = 5
    assert dataset.groups[0] == 0


@pytest.mark.parametrize(
    'changes',
    [
        {'completions': (' x', ' y', 'plain', ' w')},
        # The same texts and the same bytes in a row, cut elsewhere.
        {
            'prompts': ('Q: a A', 'Q: a A:', '', 'Q: b A:'),
            'completions': (': x', ' y', 'plain', ' z'),
        },
        {'ids': ('a', 'a~', '1b', 'c')},
        {'groups': np.array([7, 7, 2, 2], np.int32)},
        {'groups': np.arange(4, dtype=np.int32)},
    ],
)
def test_fingerprint_tells_contents_apart(changes):
    assert make(**changes).fingerprint != make().fingerprint


def test_fingerprint_leaves_out_what_changes_no_result():
    other = make(name='other', changes=(), provenance='')
    assert other.fingerprint == make().fingerprint
    assert len(other.fingerprint) == 64


def test_take_keeps_order_ids_groups_and_changes():
    taken = make().take(np.array([2, 1]))
    assert taken.ids == ('b', 'a~1')
    assert taken.texts == ('plain', 'Q: a A: y')
    assert taken.groups.tolist() == [2, 7]
    assert taken.changes == ('', 'another answer')
    assert (taken.name, taken.provenance) == ('toy', 'made up')
    assert make().take(range(4)).fingerprint == make().fingerprint


@pytest.mark.parametrize(
    ('indices', 'message'),
    [
        ([], 'non-empty vector of integers'),
        ([0.0], 'non-empty vector of integers'),
        ([[0]], 'non-empty vector of integers'),
        ([0, 4], 'from 0 to 4, .* has the records 0 to 3'),
        ([-1], 'from -1 to -1'),
        ([1, 1], "the id 'a~1' occurs more than once"),
    ],
)
def test_bad_indices(indices, message):
    with pytest.raises(ValueError, match=message):
        make().take(indices)


def test_questions_are_written_as_in_the_paper():
    assert ''.join(question_and_answer(' who is it\n', 'me ')) == 'Q: who is it A: me'


CONTENTS = st.lists(st.text(max_size=3), max_size=8)


@settings(max_examples=50, deadline=None)
@given(CONTENTS, st.randoms(use_true_random=False))
def test_ids_of_contents_depend_on_the_content_alone(contents, random):
    ids = content_ids('stem', contents)
    assert len(set(ids)) == len(contents)
    shuffled = random.sample(contents, len(contents))
    of = dict(zip(content_ids('stem', shuffled), shuffled, strict=True))
    assert of == dict(zip(ids, contents, strict=True))


def test_ids_of_contents_are_the_same_for_ever():
    # SHA-256 of 'a', as every tool prints it.
    assert content_ids('x', 'aba') == (
        'x-ca978112ca1bbdca',
        'x-3e23e8160039594a',
        'x-ca978112ca1bbdca.2',
    )
