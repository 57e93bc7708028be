import numpy as np
import pytest

from influence_jax.estimators.histogram import GrowingHistogram


@pytest.mark.parametrize('bins', [4, 12, 100, 256])
def test_counts_as_if_the_last_edges_had_been_known(bins):
    generator = np.random.default_rng(0)
    histogram = GrowingHistogram(bins)
    everything = []
    for scale in (0.01, 3.0, 0.2, 50.0):
        rows = np.sort((scale * generator.normal(size=(3, 200))).astype(np.float32), axis=1)
        histogram.reach(np.abs(rows).max())
        histogram.count(rows)
        everything.append(rows.ravel())
    expected, _ = np.histogram(np.concatenate(everything), histogram.edges)
    np.testing.assert_array_equal(histogram.counts, expected)
    assert histogram.counts.sum() == 4 * 600


def test_range_is_the_next_power_of_two():
    histogram = GrowingHistogram(8)
    histogram.reach(0.3)
    assert histogram.edges[0] == -0.5
    assert histogram.edges[-1] == 0.5
    histogram.reach(4.0)  # the upper edge is open
    assert histogram.edges[-1] == 8.0
    histogram.reach(0.1)
    assert histogram.edges[-1] == 8.0


def test_what_is_outside_is_ignored_and_taking_out_undoes():
    histogram = GrowingHistogram(8)
    histogram.reach(0.9)
    rows = np.array([[-5.0, -1.0, 0.0, 0.5, 1.0, 7.0]])
    histogram.count(rows)
    np.testing.assert_array_equal(histogram.counts, [1, 0, 0, 0, 1, 0, 1, 0])
    histogram.count(rows, weight=-1)
    assert not histogram.counts.any()
