import numpy as np
import pytest
import reference

from influence_jax.analysis import self_influence, top1_margin
from influence_jax.types import Influence

MATRIX = np.random.default_rng(0).normal(size=(9, 9)).astype(np.float32)


@pytest.mark.parametrize('wrap', [np.asarray, lambda values: Influence(values, values)])
def test_equal_the_loops_for_arrays_and_influences(wrap):
    np.testing.assert_array_equal(
        self_influence(wrap(MATRIX)), reference.self_influence(MATRIX, range(9))
    )
    np.testing.assert_allclose(top1_margin(wrap(MATRIX)), reference.top1_margin(MATRIX), rtol=1e-6)


def test_self_influence_of_targets_in_another_order():
    own = np.array([4, -1, 0, 4])
    actual = self_influence(MATRIX[:, :4], own)
    np.testing.assert_array_equal(actual, reference.self_influence(MATRIX[:, :4], own))
    assert np.isnan(actual[1])


@pytest.mark.parametrize(
    ('column', 'margin'),
    [
        ([1, 4, 2], 2),
        ([3, 3, 1], 1),
        ([3, 0, -1], np.inf),
        ([3, -2, -1], np.inf),
        ([0, -2, -1], np.nan),
        ([-3, -2, -1], np.nan),
        ([0, 0, 0], np.nan),
        ([5, np.nan, 1], np.nan),
        ([np.nan, np.nan, np.nan], np.nan),
    ],
)
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_margin_by_hand(column, margin, dtype):
    actual = top1_margin(np.array(column, dtype)[:, None])
    np.testing.assert_array_equal(actual, [margin])
    assert actual.dtype == dtype


def test_margin_of_whole_numbers():
    np.testing.assert_array_equal(top1_margin(np.array([[6], [4]])), [1.5])


def test_margin_is_unchanged_by_order_and_scale():
    margin = top1_margin(MATRIX)
    np.testing.assert_array_equal(top1_margin(MATRIX[::-1]), margin)
    np.testing.assert_allclose(top1_margin(7 * MATRIX), margin, rtol=1e-6)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: self_influence(MATRIX[:, :4]), '9 examples are not the 4 targets'),
        (lambda: self_influence(MATRIX, np.arange(4)), 'must be 9 integers'),
        (lambda: self_influence(MATRIX, np.arange(9) + 1), r'must lie in -1 \.\. 8'),
        (lambda: self_influence(MATRIX[0]), r'real numbers \[examples targets\].*\[9\]'),
        (lambda: top1_margin(MATRIX[0]), r'real numbers \[examples targets\].*\[9\]'),
        (lambda: top1_margin(MATRIX[:1]), 'at least 2 examples'),
        (lambda: top1_margin(MATRIX > 0), 'real numbers .*bool'),
        (lambda: top1_margin(MATRIX[:, :0]), 'real numbers'),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refused:
        call()
    assert '\n' not in str(refused.value)
