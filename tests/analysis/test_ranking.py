import numpy as np
import pytest
import reference

from influence_jax.analysis import auroc, top_influencers
from influence_jax.analysis.ranking import average_precision, precision_at_k
from influence_jax.analysis.resampling import Ranking
from influence_jax.types import Influence

GENERATOR = np.random.default_rng(0)
MATRIX = GENERATOR.normal(size=(9, 5))
SCORES = GENERATOR.integers(6, size=40).astype(float)  # many ties
POSITIVES = GENERATOR.random(40) < 0.3


@pytest.mark.parametrize('k', [1, 4, 9, 50])
def test_top_influencers_equal_the_loops(k):
    top = top_influencers(Influence(MATRIX, MATRIX), k)
    np.testing.assert_array_equal(top.examples, reference.top_influencers(MATRIX, k))
    assert top.examples.shape == top.values.shape == (5, min(k, 9))
    for t in range(5):
        np.testing.assert_array_equal(top.values[t], MATRIX[top.examples[t], t])


def test_ties_go_to_the_earlier_example():
    np.testing.assert_array_equal(
        top_influencers(np.array([[1.0], [2.0], [2.0], [2.0]]), 3).examples, [[1, 2, 3]]
    )


def test_auroc_equals_the_loops():
    assert auroc(SCORES, POSITIVES) == pytest.approx(reference.auroc(SCORES, POSITIVES))


def test_auroc_by_hand():
    positives = np.array([False, False, True, True])
    assert auroc(np.array([1, 2, 3, np.inf]), positives) == 1
    assert auroc(np.array([4, 3, 2, 1]), positives) == 0
    assert auroc(np.array([5, 5, 5, 5]), positives) == 0.5
    assert auroc(np.array([1, 3, 2, 4]), positives) == 0.75
    assert auroc(-SCORES, POSITIVES) == pytest.approx(1 - auroc(SCORES, POSITIVES))


def test_average_precision_equals_the_loops():
    expected = reference.average_precision(SCORES, POSITIVES)
    assert average_precision(SCORES, POSITIVES) == pytest.approx(expected)
    distinct = SCORES + GENERATOR.random(40)
    expected = reference.average_precision(distinct, POSITIVES)
    assert average_precision(distinct, POSITIVES) == pytest.approx(expected)


def test_average_precision_by_hand():
    positives = np.array([True, False, True, False])
    assert average_precision(np.array([4, 3, 2, 1]), positives) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([4, 2, 3, 1]), positives) == 1
    assert average_precision(np.array([np.inf, 5, -np.inf, 5]), positives) == pytest.approx(
        (1 + 1 / 2) / 2
    )
    assert average_precision(np.array([7, 7, 7, 7]), positives) == 0.5
    assert average_precision(np.array([1, 2]), np.array([True, True])) == 1


@pytest.mark.parametrize('k', [1, 2, 7, 20, 39, 40])
def test_precision_at_k_equals_the_loops(k):
    expected = reference.precision_at_k(SCORES, POSITIVES, k)
    assert precision_at_k(SCORES, POSITIVES, k) == pytest.approx(expected)


def test_precision_at_k_by_hand():
    positives = np.array([True, False, True, False])
    assert precision_at_k(np.array([4, 3, 2, 1]), positives, 1) == 1
    assert precision_at_k(np.array([4, 3, 2, 1]), positives, 3) == pytest.approx(2 / 3)
    assert precision_at_k(np.array([4, 3, 3, 1]), positives, 2) == pytest.approx(3 / 4)


def test_weights_count_targets_so_many_times():
    times = np.random.default_rng(1).integers(4, size=40)
    scores, positives = np.repeat(SCORES, times), np.repeat(POSITIVES, times)
    for statistic in (auroc, average_precision):
        weighted = statistic(SCORES, POSITIVES, weights=times)
        assert weighted == pytest.approx(statistic(scores, positives))
    weighted = precision_at_k(SCORES, POSITIVES, 9, weights=times)
    assert weighted == pytest.approx(precision_at_k(scores, positives, 9))


def test_the_auroc_of_resamples_is_that_of_the_weights():
    times = np.random.default_rng(2).integers(3, size=(5, 40)).astype(float)
    areas = Ranking(SCORES).auroc(times, POSITIVES)
    expected = [auroc(SCORES, POSITIVES, weights=row) for row in times]
    np.testing.assert_allclose(areas, expected)
    assert np.isnan(Ranking(SCORES).auroc(POSITIVES[None] * 1.0, POSITIVES)).all()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: top_influencers(MATRIX, 0), 'k=0 must be at least 1'),
        (lambda: top_influencers(MATRIX[0], 1), 'real numbers'),
        (lambda: top_influencers(np.full((2, 2), np.nan), 1), 'holds NaN'),
        (
            lambda: auroc(np.array([1, np.nan, np.nan]), np.array([True, False, True])),
            '2 of 3 scores are NaN',
        ),
        (lambda: auroc(np.array([1, 2]), np.array([True, True])), '2 of 2 are positive'),
        (lambda: auroc(np.array([1, 2]), np.array([False, False])), '0 of 2 are positive'),
        (lambda: auroc(np.array([1, 2]), np.array([0, 1])), 'bool positives'),
        (lambda: auroc(np.array([1, 2, 3]), np.array([True, False])), r'not \[3\] and bool \[2\]'),
        (lambda: auroc(np.array([[1, 2]]), np.array([[True, False]])), 'bool positives'),
        (
            lambda: average_precision(np.array([1, 2]), np.array([1, 0])),
            'average_precision needs scores',
        ),
        (lambda: average_precision(np.array([1, 2]), np.array([False, False])), 'none is positive'),
        (
            lambda: average_precision(np.array([1, np.nan]), np.array([False, True])),
            '1 of 2 scores are NaN',
        ),
        (
            lambda: precision_at_k(np.array([1, 2]), np.array([False, True]), 3),
            'k=3 must lie in 1 .. 2',
        ),
        (
            lambda: precision_at_k(np.array([1, 2]), np.array([False, True]), 0),
            'k=0 must lie in 1 .. 2',
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refused:
        call()
    assert '\n' not in str(refused.value)
