"""Every epoch is a permutation of the member's subset, and of nothing else."""

import functools

import jax
import numpy as np
import pytest

from influence_jax.training.member import batches as draw

MASK = np.random.default_rng(0).random(23) < 0.5
SUBSET = np.flatnonzero(MASK)  # 12 or so


@functools.partial(jax.jit, static_argnames=('steps', 'batch_size', 'smallest'))
def _jitted(mask, key, *, steps, batch_size, smallest):
    return draw(mask, key=key, steps=steps, batch_size=batch_size, smallest=smallest)


def _batches(mask=MASK, *, seed=0, steps=9, batch_size=5, smallest=None):
    smallest = int(mask.sum()) if smallest is None else smallest
    key = jax.random.key(seed)
    batches = _jitted(mask, key, steps=steps, batch_size=batch_size, smallest=smallest)
    return np.asarray(batches)


@pytest.mark.parametrize('batch_size', [1, 5, len(SUBSET), len(SUBSET) + 3])
def test_each_epoch_sees_each_example_of_the_subset_once(batch_size):
    batches = _batches(batch_size=batch_size, steps=-(-3 * len(SUBSET) // batch_size))
    assert batches.shape[1] == batch_size
    seen = batches.ravel()
    epochs = [seen[i * len(SUBSET) : (i + 1) * len(SUBSET)] for i in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), SUBSET)
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[1] != epochs[2]).any()


def test_no_batch_holds_an_example_that_was_left_out():
    for seed in range(5):
        assert MASK[_batches(seed=seed, smallest=3)].all()


def test_masked_is_physically_cut():
    cut = _batches(np.ones(len(SUBSET), bool))
    np.testing.assert_array_equal(_batches(), SUBSET[cut])


def test_examples_that_come_in_between_change_nothing():
    spread = np.zeros(200, bool)
    spread[3 * SUBSET + 1] = True
    np.testing.assert_array_equal(_batches(spread), 3 * _batches() + 1)


@pytest.mark.parametrize('smallest', [1, 4, len(SUBSET) - 1])
def test_the_bound_on_the_size_changes_nothing(smallest):
    np.testing.assert_array_equal(_batches(smallest=smallest), _batches())


def test_a_longer_training_begins_as_a_shorter_one():
    np.testing.assert_array_equal(_batches(steps=9)[:4], _batches(steps=4))


def test_keys_give_other_orders():
    np.testing.assert_array_equal(_batches(seed=1), _batches(seed=1))
    assert (_batches(seed=1) != _batches(seed=2)).any()


def test_under_vmap_each_member_has_its_own_order():
    keys = jax.random.split(jax.random.key(0), 3)
    masks = np.random.default_rng(1).random((3, 23)) < 0.5
    settings = {'steps': 7, 'batch_size': 5, 'smallest': 4}
    together = jax.vmap(lambda mask, key: _jitted(mask, key, **settings))(masks, keys)
    for member in range(3):
        alone = _jitted(masks[member], keys[member], **settings)
        np.testing.assert_array_equal(together[member], alone)


def test_every_example_is_as_likely_to_come_first():
    draws = 4000
    keys = jax.random.split(jax.random.key(0), draws)
    first = jax.vmap(lambda key: _jitted(MASK, key, steps=1, batch_size=1, smallest=4))(keys)
    counts = np.bincount(np.ravel(first), minlength=len(MASK))[SUBSET]
    share = 1 / len(SUBSET)
    deviation = np.sqrt(draws * share * (1 - share))
    assert np.abs(counts - draws * share).max() < 5 * deviation
