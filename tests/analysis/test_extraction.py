import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_jax.analysis.extraction import (
    by_membership,
    nearest_siblings,
    scores,
    scores_of_members,
)

SHORT = st.text('ab c\u05e9\U0001f642', max_size=12)


def test_nearest_siblings_by_hand():
    truths = ['in New York', 'in York City', 'in new york', 'Paris', ' Paris ', 'Rome', 'London']
    decoded = ['in York City', 'in York City', 'in New York', 'Paris', 'x', '', 'Rome']
    found = nearest_siblings(decoded, truths, np.array([7, 7, 7, 3, 3, 5, -1]))
    assert found.nearest.tolist() == [1, 0, 0, -1, -1, -1, -1]  # an equal text is no sibling
    assert found.nearer.tolist() == [True, False, True, *[False] * 4]
    assert found.exact_match.tolist() == [True, False, True, *[False] * 4]
    assert not found.as_near.any()
    assert found.bleu[0] == pytest.approx(1) and found.bleu[2] == pytest.approx(1)
    assert found.bleu[1] == scores(['in York City'], ['in New York']).bleu[0]
    assert np.isnan(found.bleu[3:]).all()


def test_edit_distance_tells_siblings_of_the_same_bleu():
    truths = ['Lima', 'Lyon', 'Kyiv']
    found = nearest_siblings(['Lyo', 'Limas', 'Zagreb'], truths, np.zeros(3, int))
    np.testing.assert_array_equal(found.bleu, 0)
    assert found.nearest.tolist() == [1, 0, 0]
    assert found.nearer.tolist() == [True, True, False]
    assert found.as_near.tolist() == [False, False, True]  # six letters off both


def test_what_holds_neither_change_is_as_near_to_both():
    found = nearest_siblings(['May 4'] * 2, ['May 4 1970', 'May 4 1980'], np.zeros(2, int))
    assert found.as_near.all() and not found.nearer.any()
    assert found.nearest.tolist() == [1, 0]


@given(
    st.lists(
        st.tuples(st.text('ab ', max_size=5), st.text('ab', min_size=1, max_size=5)),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_a_text_is_nearest_to_itself_and_the_nearest_sibling_is_none_but_a_sibling(pairs, data):
    decoded, truths = map(list, zip(*pairs, strict=True))
    count = len(truths)
    groups = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    own = nearest_siblings(truths, truths, groups)
    assert not own.nearer.any() and not own.as_near.any()
    found = nearest_siblings(decoded, truths, groups)
    for t, nearest in enumerate(found.nearest):
        others = [s for s in range(count) if groups[s] == groups[t] and truths[s] != truths[t]]
        assert nearest in others if others else nearest == -1
        if others:
            assert found.bleu[t] == max(scores([decoded[t]], [truths[s]]).bleu[0] for s in others)
            assert not (found.nearer[t] and found.as_near[t])
        else:
            assert not found.nearer[t] and not found.as_near[t]


def test_averages_over_members_equal_the_loops():
    rng = np.random.default_rng(0)
    masks = rng.random((30, 8)) < 0.5
    values = rng.random((30, 5))
    values[3] = np.nan
    values[7, 2] = np.nan
    own = np.array([4, 0, 7, -1, 2])
    found = by_membership(masks, values, own)
    for side, average in ((True, found.held), (False, found.left_out)):
        for t in range(5):
            of = [
                values[m, t]
                for m in range(30)
                if not np.isnan(values[m, t]) and (own[t] >= 0 and masks[m, own[t]]) == side
            ]
            assert average.members[t] == len(of)
            if len(of):
                assert average.mean[t] == pytest.approx(np.mean(of))
                error = np.std(of, ddof=1) / np.sqrt(len(of))
                assert average.standard_error[t] == pytest.approx(error)
            else:
                assert np.isnan(average.mean[t])
    assert found.held.members[3] == 0
    assert found.left_out.members[3] == 29


def test_averages_of_few_members_say_what_they_do_not_know():
    found = by_membership(np.array([[True], [False], [False]]), np.array([[1.0], [0.0], [np.nan]]))
    assert found.held.mean == [1.0]
    assert np.isnan(found.held.standard_error).all()
    assert found.left_out.members == [1]
    none = by_membership(np.array([[True]]), np.array([[1.0]]))
    assert np.isnan(none.left_out.mean).all()


def test_averages_take_exact_matches():
    masks = np.array([[True, False], [True, True], [False, True]])
    matches = np.array([[True, True], [False, True], [True, False]])
    found = by_membership(masks, matches)
    np.testing.assert_array_equal(found.held.mean, [0.5, 0.5])
    np.testing.assert_array_equal(found.left_out.mean, [1.0, 1.0])


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: scores(['a'], ['a', 'b']), '1 decoded texts for 2 truths'),
        (
            lambda: scores(['a', 'b'], ['a', ' \n']),
            '1 of 2 truths are empty, the first is target 1',
        ),
        (lambda: scores_of_members([['a'], []], ['a']), '0 decoded texts for 1 truths'),
        (lambda: nearest_siblings(['a'], ['a', 'b'], np.zeros(2, int)), '1 decoded texts for 2'),
        (lambda: nearest_siblings(['a'], [' '], np.zeros(1, int)), '1 of 1 truths are empty'),
        (lambda: nearest_siblings(['a'], ['a'], np.zeros(2, int)), r'groups must be 1 .*\[2\]'),
        (lambda: nearest_siblings(['a'], ['a'], np.zeros(1)), 'groups must be 1 .*float64'),
        (lambda: by_membership(np.zeros((2, 2)), np.zeros((2, 2))), 'masks must be bool'),
        (lambda: by_membership(np.zeros((2, 2), bool), np.zeros((3, 2))), r'real numbers \[2 mem'),
        (lambda: by_membership(np.zeros((2, 2), bool), np.zeros(2)), 'real numbers'),
        (lambda: by_membership(np.zeros((2, 2), bool), np.array([['a'], ['b']])), 'real numbers'),
        (
            lambda: by_membership(np.zeros((2, 2), bool), np.zeros((2, 2)), np.array([0, 2])),
            'target_examples must lie in',
        ),
    ],
)
@pytest.mark.unchecked
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refused:
        call()
    assert '\n' not in str(refused.value)
