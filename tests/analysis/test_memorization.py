"""The split by sign, and retraining without what it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.analysis.judge import remove_group
from influence_jax.analysis.memorization import split_by_sign
from influence_jax.estimators import Columns, difference_in_means


def test_signs_of_a_known_matrix():
    values = np.array(
        [
            [2.0, 1.0, -0.5, 1.0],  # helps itself and others
            [-1.0, 3.0, 0.5, 0.0],  # helps itself alone
            [-1.0, -1.0, -0.1, -1.0],  # helps nobody
            [1.0, 1.0, -4.0, 1.0],  # no target
        ]
    )
    found = split_by_sign(Columns.of_matrix(values), np.array([0, 1, 2, -1]))
    np.testing.assert_allclose(found.on_self, [2, 3, -0.1, np.nan])
    np.testing.assert_allclose(found.on_others, [0.5, -1 / 6, -1, -0.25], rtol=1e-6)
    np.testing.assert_array_equal(found.generalized, [True, False, False, False])
    np.testing.assert_array_equal(found.memorized, [False, True, False, False])
    with pytest.raises(ValueError, match='1 targets'):
        split_by_sign(Columns.of_matrix(np.ones((2, 1))), np.array([0]))


def test_tiles_add_up():
    values = np.random.default_rng(0).normal(size=(30, 1200)).astype(np.float32)
    own = np.full(1200, -1)
    own[[3, 700]] = 4, 29
    found = split_by_sign(Columns.of_matrix(values), own)
    rest = values.astype(np.float64)
    rest[4, 3] = rest[29, 700] = np.nan
    np.testing.assert_allclose(found.on_others, np.nanmean(rest, axis=1), atol=1e-6)
    assert np.isnan(found.on_self).sum() == 28


N = 60


@pytest.fixture(scope='module')
def planted():
    """Logistic regression on two clouds, a sixth of the labels wrong; how it is trained."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, N)
    x = generator.normal(size=(N, 3)) + 2.5 * (2 * labels[:, None] - 1) * np.array([[1, 0, 0]])
    wrong = np.arange(N) % 6 == 0
    x = jnp.asarray(np.concatenate([x, np.ones((N, 1))], axis=1), jnp.float32)
    signs = jnp.asarray(np.where(wrong, 1 - labels, labels) * 2 - 1, jnp.float32)

    @jax.jit
    @jax.vmap
    def losses(mask, key):
        def each(w):
            return jax.nn.softplus(-signs * (x @ w))

        def step(_, w):
            return w - 0.5 * jax.grad(lambda w: (each(w) * mask).sum() / mask.sum())(w)

        return each(jax.lax.fori_loop(0, 100, step, 0.1 * jax.random.normal(key, (4,))))

    def train(masks):
        keys = jax.random.split(jax.random.key(len(masks)), len(masks))
        return np.asarray(losses(jnp.asarray(masks, jnp.float32), keys))

    return train, wrong


def test_the_others_are_better_off_without_what_is_memorized(planted):
    train, wrong = planted
    masks = np.random.default_rng(1).random((2000, N)) < 0.5
    columns = Columns.of_estimate(
        difference_in_means, masks, train(masks), target_examples=np.arange(N)
    )
    right = np.flatnonzero(~wrong)
    of_right = split_by_sign(Columns.of_matrix(np.asarray(columns.column(right).values)), right)
    assert of_right.on_others[wrong].mean() < 0 < of_right.on_others[~wrong].mean()
    group = of_right.on_others < np.sort(of_right.on_others)[wrong.sum()]
    assert wrong[group].mean() > 0.8
    removal = remove_group(group, right, np.arange(N), train, repeats=4, key=jax.random.key(0))
    assert removal.examples == wrong.sum()
    assert not group[removal.targets].any() and not wrong[removal.targets].any()
    error = np.hypot(removal.removed.standard_error, removal.random.standard_error)
    assert removal.removed.value < 0
    assert removal.removed.value < removal.random.value - 3 * error


def test_the_same_targets_are_measured_in_every_subset():
    """And a target's rise is the mean over models above that of all examples."""
    seen = []

    def train(masks):
        seen.append(masks)
        return (~masks).sum(axis=1, keepdims=True) + np.arange(12.0)[None]

    group = np.arange(10) < 2
    own = np.array([*range(10), -1, -1])
    found = remove_group(group, np.arange(12), own, train, repeats=3, key=jax.random.key(0))
    (masks,) = seen
    assert masks.shape == (9, 10)
    np.testing.assert_array_equal((~masks).sum(axis=1), [0, 0, 0, 2, 2, 2, 2, 2, 2])
    kept = masks.all(axis=0)
    np.testing.assert_array_equal(found.targets, [*np.flatnonzero(kept), 10, 11])
    np.testing.assert_allclose([*found.removed, *found.random], [2, 0, 0, 2, 0, 0], atol=1e-9)
    with pytest.raises(ValueError, match='0 of 10'):
        remove_group(~group & group, np.arange(12), own, train, repeats=3, key=jax.random.key(0))
    with pytest.raises(ValueError, match='repeats=1'):
        remove_group(group, np.arange(12), own, train, repeats=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match='groups of 2'):
        remove_group(group, np.arange(2), own, train, repeats=3, key=jax.random.key(0))


def test_what_is_not_known_is_in_no_group():
    values = np.array([[1.0, np.nan, 1], [0, 1, 0], [0, 0, 1]])
    found = split_by_sign(Columns.of_matrix(values), np.arange(3))
    assert not found.memorized[0] and not found.generalized[0]
    assert found.memorized[1]
