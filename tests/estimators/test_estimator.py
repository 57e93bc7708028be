"""Estimators as callables: those of the package, and anybody's own function in their place."""

import inspect
import pydoc

import jax
import numpy as np
import pytest

from influence_jax import analysis
from influence_jax.analysis.convergence import precision, split_half
from influence_jax.analysis.groups import group_influence
from influence_jax.estimators import (
    BUILT_IN,
    Estimator,
    adjusted,
    as_estimator,
    by_name,
    difference_in_means,
    lasso,
    ridge,
    shrunk,
    summarize,
)
from influence_jax.types import Influence

KEY = jax.random.key(0)


def problem(members=60, examples=16, seed=0):
    generator = np.random.default_rng(seed)
    masks = generator.random((members, examples)) < 0.5
    return masks, (generator.normal(size=(members, examples)) - 2 * masks).astype(np.float32)


def mine(masks, losses, *, target_examples=None):
    """Twice the difference of means."""
    values, errors = difference_in_means(masks, losses, target_examples=target_examples)
    return Influence(2 * values, 2 * errors)


def values_alone(masks, losses, *, target_examples=None):
    return difference_in_means(masks, losses, target_examples=target_examples).values


def test_the_package_lists_its_estimators_once():
    assert (difference_in_means, adjusted, ridge, lasso, shrunk) == BUILT_IN
    names = ['difference', 'adjusted', 'ridge', 'lasso', 'shrunk']
    assert [one.name for one in BUILT_IN] == names
    assert by_name('RIDGE') is ridge
    with pytest.raises(ValueError, match=r"'mean'.*difference, adjusted, ridge, lasso, shrunk"):
        by_name('mean')


@pytest.mark.parametrize('estimator', BUILT_IN, ids=repr)
def test_an_estimator_has_the_help_of_a_function(estimator):
    text = pydoc.render_doc(estimator, renderer=pydoc.plaintext)
    assert 'Influence of every example on every target' in text
    assert 'target_examples' in inspect.signature(estimator).parameters
    assert estimator.description[0].islower()


@pytest.mark.parametrize('estimator', BUILT_IN, ids=repr)
def test_tiles_are_the_whole(estimator):
    masks, losses = problem()
    whole = estimator(masks, losses)
    for columns, block in estimator.tiles(masks, losses, tile=5):
        for part, of in zip(block, whole, strict=True):
            np.testing.assert_allclose(part, of[:, columns], rtol=2e-4, atol=2e-4)


def test_a_function_becomes_an_estimator():
    estimator = as_estimator(mine)
    assert isinstance(estimator, Estimator) and as_estimator(estimator) is estimator
    assert (estimator.name, estimator.least_members) == ('mine', 4)
    assert estimator.__doc__ == mine.__doc__

    def careful(masks, losses, *, target_examples=None):
        return mine(masks, losses)

    careful.least_members = 30
    assert as_estimator(careful).least_members == 30


@pytest.mark.unchecked
def test_a_name_is_no_estimator():
    with pytest.raises(TypeError, match=r'adjusted.*is no estimator'):
        as_estimator('adjusted')


def test_a_function_sees_complete_members_and_blocks_of_targets():
    masks, losses = problem()
    losses[3, 2] = np.nan
    seen = []

    def look(masks, losses, *, target_examples=None):
        seen.append((masks.shape, losses.shape, target_examples.tolist()))
        return np.zeros((masks.shape[1], losses.shape[1]))

    for _ in as_estimator(look).tiles(masks, losses, tile=10):
        pass
    assert seen == [
        ((59, 16), (59, 10), list(range(10))),
        ((59, 16), (59, 6), list(range(10, 16))),
    ]


@pytest.mark.parametrize('shape', [(16,), (16, 15), (5, 16)])
def test_a_function_that_returns_another_shape_is_refused(shape):
    def wrong(masks, losses, *, target_examples=None):
        return np.zeros(shape)

    with pytest.raises(ValueError, match=r'wrong returned values .*here \[16, 16\]'):
        as_estimator(wrong)(*problem())


def test_influences_that_are_not_finite_are_refused():
    def holed(masks, losses, *, target_examples=None):
        return np.full((masks.shape[1], losses.shape[1]), np.nan)

    with pytest.raises(ValueError, match='NaN or infinite'):
        summarize(*problem(), estimator=holed)


def test_a_function_works_everywhere_the_estimators_of_the_package_do():
    masks, losses = problem()
    plain = summarize(masks, losses, tile=7)
    found = summarize(masks, losses, estimator=mine, tile=7)
    assert found.estimator.name == 'mine'
    np.testing.assert_allclose(found.self_influence, 2 * plain.self_influence, rtol=1e-4)
    np.testing.assert_array_equal(found.top_examples, plain.top_examples)
    np.testing.assert_allclose(found.margin, plain.margin, rtol=1e-3)
    assert set(found.pairs.examples) <= set(plain.pairs.examples)

    overview = analysis.overview(masks, losses, key=KEY, estimator=mine)
    block = mine(masks, losses).values[np.ix_(overview.block_examples, overview.block_targets)]
    np.testing.assert_allclose(overview.matrix_block, block, rtol=1e-4, atol=1e-5)
    halves = split_half(masks, losses, key=KEY, estimator=mine, sizes=[30], repeats=2)
    plain_halves = split_half(masks, losses, key=KEY, sizes=[30], repeats=2)
    np.testing.assert_allclose(halves.off_diagonal, plain_halves.off_diagonal, rtol=1e-3)
    found, expected = (
        precision(masks, losses, key=KEY, estimator=e) for e in (mine, by_name('difference'))
    )
    assert found.standard_error == pytest.approx(2 * expected.standard_error, rel=1e-4)
    groups = np.arange(16)
    by_group = group_influence(masks, losses, groups, estimator=mine).influence
    np.testing.assert_allclose(by_group.values, mine(masks, losses).values, rtol=1e-5)


def test_values_without_errors_are_never_called_significant():
    masks, losses = problem()
    found = summarize(masks, losses, estimator=values_alone)
    plain = summarize(masks, losses)
    np.testing.assert_allclose(found.self_influence, plain.self_influence, rtol=1e-4)
    np.testing.assert_allclose(found.mean, plain.mean, atol=1e-5)
    np.testing.assert_allclose(found.skewness, plain.skewness, rtol=1e-3)
    for name in ('self_standard_error', 'top_standard_errors', 'floored_margin', 'z_margin'):
        assert np.isnan(getattr(found, name)).all(), name
    assert not found.top_stands_out.any() and not found.other_stands_out.any()
    assert found.pairs.tests == len(found.pairs.examples) == found.z_histogram.sum() == 0
    assert precision(masks, losses, key=KEY, estimator=values_alone).standard_error == np.inf
    assert not analysis.overview(masks, losses, key=KEY, estimator=values_alone).summary.pairs.tests
