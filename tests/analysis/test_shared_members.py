"""Members that two ensembles have in common."""

import numpy as np
import pytest

from influence_jax.analysis.shared_members import member_digests, shared_members

M = 30


@pytest.fixture
def digests():
    rng = np.random.default_rng(0)
    return member_digests(rng.random((M, 40)) < 0.5, rng.normal(size=(M, 7)).astype(np.float32))


def test_members_in_common_are_counted_in_any_order(digests):
    assert shared_members(digests, digests[::-1]) == (M, M, M, 0)
    assert not shared_members(digests, digests).is_testable
    part = shared_members(digests[5:15], digests)
    assert part == (10, M, 10, 0) and part.is_nested and part.is_testable
    some = shared_members(digests[:20], digests[15:])
    assert some == (20, 15, 5, 0) and not some.is_nested and some.is_testable
    apart = shared_members(digests[:20], digests[20:])
    assert apart == (20, 10, 0, 0) and apart.error_factor == 1


def test_the_same_subsets_with_other_losses_are_no_common_members(digests):
    retrained = digests.copy()
    retrained[:10, 1] += 1
    found = shared_members(digests, retrained)
    assert found == (M, M, 20, 20) and not found.is_testable


@pytest.mark.parametrize(('first', 'second'), [((0, 10), (0, 30)), ((0, 20), (10, 30))])
def test_the_error_of_a_difference_of_means_is_that_of_their_members(first, second, digests):
    found = shared_members(digests[slice(*first)], digests[slice(*second)])
    noise = np.random.default_rng(1).normal(size=(20_000, M))
    one, other = noise[:, slice(*first)], noise[:, slice(*second)]
    independent = np.sqrt(1 / one.shape[1] + 1 / other.shape[1])
    spread = (one.mean(axis=1) - other.mean(axis=1)).std()
    assert spread == pytest.approx(independent * found.error_factor, rel=0.03)


def test_digests_are_of_the_values_and_of_nothing_else(digests):
    rng = np.random.default_rng(0)
    masks = rng.random((M, 40)) < 0.5
    losses = rng.normal(size=(M, 7)).astype(np.float32)
    strided = np.asfortranarray(losses).astype(np.float64)
    np.testing.assert_array_equal(member_digests(np.asfortranarray(masks), strided), digests)
    assert member_digests(masks[:0], losses[:0]).shape == (0, 2)
    masks[3, 0] ^= True
    changed = member_digests(masks, losses) != digests
    assert changed[3].tolist() == [True, False] and changed.sum() == 1
