"""The typical standard error, its law, and what an ensemble too small for it gives."""

import jax
import numpy as np
import pytest
import reference

from influence_jax.analysis.convergence import members_needed, precision, standard_error_curve
from influence_jax.analysis.convergence.standard_errors import sampled_targets
from influence_jax.estimators import adjusted, by_name, difference_in_means

KEY = jax.random.key(0)


def noisy(members=60, examples=12, seed=0):
    generator = np.random.default_rng(seed)
    masks = generator.random((members, examples)) < 0.5
    losses = generator.normal(size=masks.shape) - 3.0 * masks
    return masks, losses.astype(np.float32)


def test_equals_the_loops():
    masks, losses = noisy()
    found = precision(masks, losses, key=KEY)
    expected = reference.median_standard_error(masks, losses, range(12))
    assert found.standard_error == pytest.approx(expected, rel=1e-5)
    assert (found.members, found.unknown_examples) == (60, 0)
    # A target that is another example, and one that is none.
    own = np.array([3, -1])
    found = precision(masks, losses[:, :2], key=KEY, target_examples=own)
    expected = reference.median_standard_error(masks, losses[:, :2], own)
    assert found.standard_error == pytest.approx(expected, rel=1e-5)


def test_is_that_of_the_estimator():
    masks, losses = noisy()
    found = precision(masks, losses, key=KEY, estimator=adjusted)
    errors = adjusted(masks, losses).standard_error
    expected = np.median(reference.off_diagonal(errors, range(12)))
    assert found.standard_error == pytest.approx(expected, rel=1e-6)
    assert found.standard_error < 0.8 * precision(masks, losses, key=KEY).standard_error


def test_members_that_diverged_do_not_count():
    masks, losses = noisy()
    kept = np.delete(np.arange(60), [4, 9])
    losses[4], losses[9, 3] = np.nan, np.inf
    assert precision(masks, losses, key=KEY) == precision(masks[kept], losses[kept], key=KEY)


@pytest.mark.parametrize(('estimator', 'least'), [('difference', 4), ('adjusted', 24)])
def test_too_few_members_are_just_not_precise(estimator, least):
    masks, losses = noisy()
    masks[:least] = np.arange(least)[:, None] % 2 == np.arange(12)[None, :] % 2
    few = precision(masks[: least - 1], losses[: least - 1], key=KEY, estimator=by_name(estimator))
    assert few.members == least - 1
    assert few.standard_error == np.inf
    enough = precision(masks[:least], losses[:least], key=KEY, estimator=by_name(estimator))
    assert np.isfinite(enough.standard_error)


def test_examples_always_in_are_not_known():
    masks, losses = noisy()
    whole = precision(masks, losses, key=KEY)
    masks[1:, 2] = True
    found = precision(masks, losses, key=KEY)
    assert found.unknown_examples == 1
    assert whole.standard_error < found.standard_error < 1.3 * whole.standard_error
    masks[1:, :8] = True
    most = precision(masks, losses, key=KEY)
    assert most.unknown_examples == 8
    assert most.standard_error == np.inf
    masks[:] = True
    none = precision(masks, losses, key=KEY)
    assert (none.unknown_examples, none.standard_error) == (12, np.inf)


def test_a_sample_of_many_targets_is_like_all_of_them():
    generator = np.random.default_rng(0)
    masks = generator.random((40, 600)) < 0.5
    losses = generator.normal(size=masks.shape)
    first, second = (precision(masks, losses, key=jax.random.key(k)) for k in (0, 1))
    assert first != second
    assert first.standard_error == pytest.approx(second.standard_error, rel=0.03)
    assert first == precision(masks, losses, key=KEY)


@pytest.mark.parametrize('estimator', [difference_in_means, adjusted])
def test_few_members_tell_how_many_are_needed(estimator):
    masks, losses = noisy(1600)
    curve = standard_error_curve(masks, losses, key=KEY, sizes=[1600, 100], estimator=estimator)
    np.testing.assert_array_equal(curve.members, [100, 1600])
    told = members_needed(
        curve.standard_error[0], members=100, wanted=float(curve.standard_error[1])
    )
    assert told == pytest.approx(1600, rel=0.12)


def test_the_largest_set_is_all_members():
    masks, losses = noisy()
    (error,) = standard_error_curve(masks, losses, key=KEY, sizes=[60]).standard_error
    assert error == pytest.approx(precision(masks, losses, key=KEY).standard_error)


def test_members_needed():
    assert members_needed(0.2, members=100, wanted=0.1) == 400
    assert members_needed(0.1, members=100, wanted=0.1) == 100
    assert members_needed(0.3, members=4, wanted=0.3 * (1 + 1e-12)) == 4
    assert members_needed(0.1001, members=100, wanted=0.1) == 101
    assert members_needed(0.0, members=100, wanted=0.1) == 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((np.inf, 10, 0.1), 'standard_error=inf must be finite'),
        ((np.nan, 10, 0.1), 'standard_error=nan must be finite'),
        ((-1.0, 10, 0.1), 'not negative'),
        ((0.1, 0, 0.1), 'members=0 must be at least 1'),
        ((0.1, 10, 0.0), 'wanted=0.0 must be finite and positive'),
        ((0.1, 10, np.nan), 'wanted=nan must be finite'),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    error, members, wanted = arguments
    with pytest.raises(ValueError, match=message):
        members_needed(error, members=members, wanted=wanted)


@pytest.mark.parametrize('sizes', [[], [0, 3], [61]])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=r'sizes must lie in 1 \.\. 60'):
        standard_error_curve(*noisy(), key=KEY, sizes=sizes)


@pytest.mark.parametrize(('times', 'unknown'), [(0, 1), (1, 1), (2, 0), (58, 0), (59, 1), (60, 1)])
def test_two_members_on_either_side_are_needed(times, unknown):
    masks, losses = noisy()
    masks[:, 2] = np.arange(60) < times
    assert precision(masks, losses, key=KEY).unknown_examples == unknown


@pytest.mark.parametrize(
    ('examples', 'targets'), [(10, 256), (2**17, 256), (2**18, 128), (10**6, 33), (10**9, 32)]
)
def test_fewer_targets_stand_for_all_where_columns_are_long(examples, targets):
    """All of their columns are held at once."""
    assert sampled_targets(examples) == targets
