"""How long, at what rate, and what decays."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from influence_jax.training import Recipe


@pytest.mark.parametrize(
    ('epochs', 'subset', 'steps'), [(2, 64, 4), (1.5, 64, 3), (10, 30.4, 10), (0.01, 32, 1)]
)
def test_steps(epochs, subset, steps):
    assert Recipe(epochs=epochs, batch_size=32).steps(subset) == steps


def _sizes_of_steps(recipe, steps):
    """Under a constant gradient Adam's normalised step is 1, so these are the learning rates."""
    optimizer = recipe.optimizer(steps)
    params = jnp.ones(1)

    def step(state, _):
        update, state = optimizer.update(jnp.ones(1), state, params)
        return state, -update[0]

    return np.asarray(jax.lax.scan(step, optimizer.init(params), length=steps)[1])


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    rates = _sizes_of_steps(Recipe(learning_rate=0.5, warmup=0.25, weight_decay=0), 40)
    peak = int(rates.argmax())
    assert 8 <= peak <= 11
    np.testing.assert_allclose(rates[peak], 0.5, rtol=1e-4)
    np.testing.assert_allclose(np.diff(rates[: peak + 1], 2), 0, atol=1e-5)
    assert (np.diff(rates[peak:]) < 0).all()
    half = rates[peak:][(len(rates) - peak) // 2]
    np.testing.assert_allclose(half, 0.25, atol=0.03)
    assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize('warmup', [0.0, 1.0])
@pytest.mark.parametrize('steps', [1, 2, 7])
def test_short_trainings_have_a_schedule(warmup, steps):
    rates = _sizes_of_steps(Recipe(learning_rate=0.5, warmup=warmup, weight_decay=0), steps)
    assert (rates >= 0).all()
    assert (rates <= 0.5 * (1 + 1e-4)).all()


def test_biases_and_scales_of_stacked_layers_do_not_decay():
    """They have an axis of layers, and are no matrices for that."""
    stacked = {'norm': {'scale': jnp.ones((3, 4)), 'bias': jnp.ones((3, 4))}}
    stacked |= {'up': jnp.ones((3, 4, 5)), 'up_bias': jnp.ones((3, 5)), 'table': jnp.ones((6, 4))}
    optimizer = Recipe(weight_decay=0.5, learning_rate=0.1, warmup=0).optimizer(10)
    zeros = jax.tree.map(jnp.zeros_like, stacked)
    state = optimizer.init(stacked)
    for _ in range(3):
        update, state = optimizer.update(zeros, state, stacked)
    decayed = jax.tree.map(lambda leaf: bool((leaf != 0).any()), update)
    assert decayed == {
        'norm': {'scale': False, 'bias': False},
        'up': True,
        'up_bias': False,
        'table': True,
    }


def test_only_matrices_decay():
    optimizer = Recipe(weight_decay=0.5, learning_rate=0.1, warmup=0).optimizer(10)
    params = {'kernel': jnp.ones((2, 2)), 'scale': jnp.ones(2)}
    state = optimizer.init(params)
    for _ in range(3):
        update, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, update)
    assert (params['kernel'] < 1).all()
    np.testing.assert_array_equal(params['scale'], 1)


@pytest.mark.parametrize(
    'wrong',
    [
        {'epochs': 0},
        {'epochs': math.inf},
        {'epochs': math.nan},
        {'batch_size': 0},
        {'learning_rate': -1.0},
        {'warmup': 1.5},
        {'weight_decay': -0.1},
        {'b1': 2.0},
        {'b2': -1.0},
    ],
)
def test_impossible_recipes_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f'^{name} must'):
        Recipe(**wrong)
