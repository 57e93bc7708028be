"""Subsets: what each design promises, reproducibility, groups, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_jax import subsets
from influence_jax.subsets import Design

ROW_BY_ROW = (subsets.independent, subsets.exact_size)
ALL = (*ROW_BY_ROW, subsets.balanced)


def key(seed=0):
    return jax.random.key(seed)


@pytest.mark.parametrize('design', ALL)
def test_masks_are_numpy_bools_of_the_shape_asked_for(design):
    masks = design(key=key(), members=12, examples=30)
    assert isinstance(masks, np.ndarray)
    assert masks.dtype == np.bool_
    assert masks.shape == (12, 30)
    assert masks.flags.c_contiguous


@pytest.mark.parametrize('keep', [0.2, 0.5, 0.9])
def test_independent_includes_each_entry_with_its_probability(keep):
    masks = subsets.independent(key=key(), members=400, examples=400, inclusion_prob=keep)
    standard_error = np.sqrt(keep * (1 - keep) / masks.size)
    assert abs(masks.mean() - keep) < 4 * standard_error
    # Sizes vary as a binomial's do, which an exact or a balanced design would not show.
    assert masks.sum(1).var() == pytest.approx(400 * keep * (1 - keep), rel=0.35)
    assert masks.sum(0).var() == pytest.approx(400 * keep * (1 - keep), rel=0.35)


@pytest.mark.parametrize('design', ALL)
def test_entries_are_uncorrelated_between_members_and_between_examples(design):
    masks = design(key=key(), members=400, examples=400).astype(float)
    for centred in (masks - masks.mean(0), (masks - masks.mean(0)).T):
        correlation = np.corrcoef(centred)
        off_diagonal = correlation[~np.eye(400, dtype=bool)]
        assert abs(off_diagonal.mean()) < 0.01
        assert np.abs(off_diagonal).max() < 0.35  # 7 standard deviations of chance


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 29))
def test_exact_size_is_exact_in_every_member(seed, size):
    masks = subsets.exact_size(key=key(seed), members=12, examples=30, inclusion_prob=size / 30)
    np.testing.assert_array_equal(masks.sum(1), size)


def test_exact_size_rounds_to_the_nearest_size():
    masks = subsets.exact_size(key=key(), members=2, examples=7, inclusion_prob=0.4)
    np.testing.assert_array_equal(masks.sum(1), 3)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), times=st.integers(1, 11))
def test_balanced_puts_every_example_into_as_many_members(seed, times):
    masks = subsets.balanced(key=key(seed), members=12, examples=30, inclusion_prob=times / 12)
    np.testing.assert_array_equal(masks.sum(0), times)


@pytest.mark.parametrize('design', ALL)
def test_every_example_and_every_member_is_equally_likely(design):
    counts = sum(design(key=key(seed), members=12, examples=30).astype(int) for seed in range(300))
    # 150 +- 8.7 a cell; 5 standard deviations.
    assert np.abs(counts - 150).max() < 44


def test_equal_random_numbers_do_not_change_the_size():
    bits = jnp.array([5, 3, 5, 5, 1, 5], jnp.uint32)
    for size in range(1, 7):
        assert subsets._smallest(bits, size).sum() == size
    np.testing.assert_array_equal(subsets._smallest(bits, 3), [1, 1, 0, 0, 1, 0])


@pytest.mark.parametrize('design', ALL)
def test_the_key_decides(design):
    first, again, other = (design(key=key(s), members=12, examples=30) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(np.unique(first, axis=0)) == 12


@pytest.mark.parametrize('design', ROW_BY_ROW)
def test_more_members_keep_the_earlier_ones(design):
    few, many = (design(key=key(), members=m, examples=30) for m in (5, 12))
    np.testing.assert_array_equal(few, many[:5])


@pytest.mark.parametrize('design', ALL)
def test_tiling_changes_nothing(design, monkeypatch):
    whole = design(key=key(), members=12, examples=30)
    monkeypatch.setattr(subsets, '_TILE_ENTRIES', 150)  # 5 or 12 rows at a time, the last cut
    np.testing.assert_array_equal(whole, design(key=key(), members=12, examples=30))


def test_a_row_is_drawn_from_its_folded_key_alone():
    masks = subsets.independent(key=key(), members=12, examples=30, inclusion_prob=0.3)
    row = jax.random.bernoulli(jax.random.fold_in(key(), 3), 0.3, (30,))
    np.testing.assert_array_equal(masks[3], row)


@pytest.mark.parametrize(
    ('design', 'function'),
    [
        (Design.INDEPENDENT, subsets.independent),
        (Design.EXACT_SIZE, subsets.exact_size),
        (Design.BALANCED, subsets.balanced),
    ],
)
def test_draw_calls_the_design(design, function):
    arguments = {'key': key(), 'members': 12, 'examples': 30, 'inclusion_prob': 0.25}
    np.testing.assert_array_equal(subsets.draw(design, **arguments), function(**arguments))


def test_designs_are_named_as_on_the_command_line():
    assert Design('exact_size') is Design.EXACT_SIZE


@pytest.mark.parametrize('design', Design)
@settings(max_examples=20, deadline=None)
@given(
    ids=st.lists(st.integers(-9, 2**40), min_size=5, max_size=5, unique=True),
    order=st.lists(st.integers(0, 4), max_size=25),
)
def test_groups_enter_and_leave_together(design, ids, order):
    groups = np.array([*ids, *(ids[i] for i in order)])
    distinct, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    masks = subsets.draw(design, key=key(), members=6, examples=len(groups), groups=groups)
    assert masks.shape == (6, len(groups))
    assert masks.flags.c_contiguous
    np.testing.assert_array_equal(masks, masks[:, first][:, inverse])
    # They are the design's masks over the groups: as many numbers as there are groups.
    over_groups = subsets.draw(design, key=key(), members=6, examples=len(distinct))
    np.testing.assert_array_equal(masks[:, first], over_groups)


@pytest.mark.parametrize('design', ALL)
@pytest.mark.parametrize('keep', [0, 1, -0.1, 1.5, float('nan')])
def test_keep_must_be_a_probability(design, keep):
    with pytest.raises(ValueError, match=r'inclusion_prob=.* must lie strictly between 0 and 1'):
        design(key=key(), members=4, examples=10, inclusion_prob=keep)


@pytest.mark.parametrize('design', ALL)
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'members': 0, 'examples': 10}, 'members=0 must be at least 1'),
        ({'members': 4, 'examples': 1}, 'examples=1 must be at least 2'),
        ({'members': 4, 'examples': 10, 'inclusion_prob': 0.01}, 'rounds to 0 in a subset'),
        ({'members': 4, 'examples': 10, 'inclusion_prob': 0.99}, 'rounds to 10 in a subset'),
    ],
)
def test_sizes_must_make_sense(design, arguments, message):
    with pytest.raises(ValueError, match=message):
        design(key=key(), **arguments)


@pytest.mark.parametrize(('members', 'keep'), [(5, 0.5), (1, 0.5), (10, 0.33)])
def test_balanced_needs_a_whole_number_of_members(members, keep):
    with pytest.raises(ValueError, match='must be a whole number'):
        subsets.balanced(key=key(), members=members, examples=10, inclusion_prob=keep)


def test_balanced_takes_fractions_that_are_whole_but_for_rounding():
    masks = subsets.balanced(key=key(), members=100, examples=10, inclusion_prob=0.07)
    assert 0.07 * 100 != 7
    np.testing.assert_array_equal(masks.sum(0), 7)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    'groups', [np.zeros(9, int), np.zeros((10, 1), int), np.zeros(10), np.zeros(10, bool)]
)
def test_groups_must_be_one_integer_an_example(groups):
    with pytest.raises(ValueError, match='one integer id for each of the 10 examples'):
        subsets.draw(Design.INDEPENDENT, key=key(), members=4, examples=10, groups=groups)


def test_one_group_alone_cannot_be_drawn():
    with pytest.raises(ValueError, match='masks over 1 groups'):
        subsets.draw(
            Design.INDEPENDENT, key=key(), members=4, examples=10, groups=np.zeros(10, int)
        )


def test_repeats_share_their_mask():
    one = subsets.independent(key=key(), members=5, examples=20)
    masks = subsets.draw(Design.INDEPENDENT, key=key(), members=15, examples=20, repeats=3)
    np.testing.assert_array_equal(masks, np.repeat(one, 3, axis=0))
    with pytest.raises(ValueError, match='members=16 must be a multiple of repeats=3'):
        subsets.draw(Design.INDEPENDENT, key=key(), members=16, examples=20, repeats=3)
