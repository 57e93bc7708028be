"""Unrolled segments against exact derivatives through training, on problems that are quadratic."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from influence_jax import tasks
from influence_jax.attribution import SOURCE, Model, Records, Training, metagradients
from influence_jax.attribution.metagradient import weighted_member
from influence_jax.attribution.replay import Replay
from influence_jax.attribution.source import _effective_rates
from influence_jax.data import Dataset
from influence_jax.models.mlp import MLPConfig
from influence_jax.training import Program, WarmStart

COUNT = 20


class SureRegression(tasks.Regression):
    """Draws errors of one size: the Fisher information of a linear layer is then its Hessian."""

    def drawn(self, outputs, *, key):
        return outputs + jax.random.rademacher(key, outputs.shape, jnp.float32) * jnp.sqrt(0.5)


def rows():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(COUNT, 3)).astype(np.float32)
    labels = inputs @ [1.0, -1.0, 0.5] + generator.normal(size=COUNT)
    return {'input': inputs, 'label': labels.astype(np.float32)}


def optimum():
    """Of the linear layer, and its Hessian; the last row is the bias."""
    data = rows()
    x = np.concatenate([data['input'], np.ones((COUNT, 1))], axis=1).astype(np.float64)
    solution = np.linalg.lstsq(x, data['label'], rcond=None)[0]
    return x, solution, 2 * x.T @ x / COUNT


def trained(optimizer, *, steps, at_optimum=False, batch_size=COUNT):
    """A linear model trained on all examples, and its records."""
    problem = tasks.bind(SureRegression(MLPConfig(3, 1, ())), Dataset(rows()))
    task = problem.task
    if at_optimum:
        _, solution, _ = optimum()
        start = jax.tree.map(
            lambda leaf: jnp.asarray(
                solution[3:] if leaf.ndim == 1 else solution[:3, None], jnp.float32
            ),
            task.init(key=jax.random.key(0)),
        )
        task = WarmStart(task).on(start)
    program = Program(task, optimizer, steps, batch_size, 256, COUNT)
    training = Training(program, jax.random.key(0))
    variables = jax.jit(
        lambda: weighted_member(
            program,
            key=training.key,
            mask=jnp.ones(COUNT, bool),
            weights=jnp.ones(COUNT),
            examples=problem.examples,
        )
    )()
    return Model(problem.task, variables, training=training), problem.examples


def scores(method, model, examples):
    return np.asarray(method([model], Records(examples, examples)).read(np.arange(COUNT)))


def exact(model, examples):
    rows = jax.tree.map(jnp.asarray, examples)
    found = jax.jit(
        lambda: metagradients(
            model.training.program,
            key=model.training.key,
            mask=jnp.ones(COUNT, bool),
            examples=examples,
            measure=lambda variables: model.task.measure(variables, rows)['loss'],
        )[1]
    )()
    return -np.asarray(found).T


def assert_near(found, expected, tolerance):
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.slow
def test_stationary_gradients_are_unrolled_exactly():
    """Full batches from the optimum on: (1 - (1 - eta H)^K) / H, but for rates that are not 0."""
    model, examples = trained(optax.sgd(2e-3), steps=400, at_optimum=True)
    expected = exact(model, examples)
    assert_near(scores(SOURCE(checkpoints=1), model, examples), expected, 5e-3)


def test_after_many_steps_it_is_the_influence_function_without_damping():
    model, examples = trained(optax.sgd(0.1), steps=2000, at_optimum=True)
    x, solution, hessian = optimum()
    gradients = 2 * (x @ solution - examples['label'])[:, None] * x
    expected = gradients @ np.linalg.solve(hessian, gradients.T) / COUNT
    assert_near(scores(SOURCE(), model, examples), expected, 1e-3)


@pytest.mark.slow
def test_more_segments_come_nearer_to_training_that_has_not_converged():
    """From anywhere, by a schedule with decay and momentum, in batches."""
    decay = optax.add_decayed_weights(0.3)
    schedule = optax.linear_schedule(4e-3, 1e-3, 400)
    optimizer = optax.chain(decay, optax.sgd(schedule, momentum=0.5))
    model, examples = trained(optimizer, steps=400, batch_size=10)
    expected = exact(model, examples)
    size = np.abs(expected).max()
    errors = [
        np.abs(scores(SOURCE(segments, checkpoints=1), model, examples) - expected).max() / size
        for segments in (1, 4, 16)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


@pytest.mark.parametrize(
    ('optimizer', 'rate', 'decay'),
    [
        (optax.sgd(0.1), 0.1, 0.0),
        (optax.sgd(0.1, momentum=0.75), 0.4, 0.0),
        (optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)), 0.1, 0.05),
        (optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1, momentum=0.75)), 0.4, 0.2),
    ],
)
def test_rates_of_gradient_descent(optimizer, rate, decay):
    model, examples = trained(optimizer, steps=5)
    found, _ = rates(model, examples)
    for leaf in jax.tree.leaves(found.learning):
        np.testing.assert_allclose(leaf, rate, rtol=1e-5)
    for leaf in jax.tree.leaves(found.decay):
        np.testing.assert_allclose(leaf, decay, rtol=1e-5, atol=1e-7)


def test_rates_of_adamw_are_those_of_its_second_moments():
    optimizer = optax.adamw(0.01, b1=0.8, weight_decay=0.3)
    model, examples = trained(optimizer, steps=5)
    found, gradient = rates(model, examples)
    for leaf, g in zip(*map(jax.tree.leaves, (found.learning, gradient)), strict=True):
        # The first step's: a gradient is divided by its own size, momentum not yet gathered.
        np.testing.assert_allclose(leaf, 0.01 / np.abs(g) / (1 - 0.8), rtol=1e-4)
    for leaf in jax.tree.leaves(found.decay):
        np.testing.assert_allclose(leaf, 0.3 * 0.01, rtol=1e-5)


def started(model, examples):
    """The state before the first step, and its gradient."""
    replay = Replay.of(
        model.training.program,
        key=model.training.key,
        mask=jnp.ones(COUNT, bool),
        examples=examples,
    )
    state = replay.begin()
    number = jnp.zeros((), int)
    gradient = jax.grad(lambda params: replay.losses(number, state, params)[0].mean())(state.params)
    return state, gradient


def rates(model, examples):
    """Of the first step, and its gradient."""

    def found():
        state, gradient = started(model, examples)
        return _effective_rates(model.training.program, state, gradient), gradient

    return jax.jit(found)()


def test_bad_input():
    model, examples = trained(optax.sgd(0.1), steps=5)
    with pytest.raises(ValueError, match='segments=0'):
        SOURCE(segments=0)
    with pytest.raises(ValueError, match='6: ask for fewer'):
        scores(SOURCE(), model, examples)
    with pytest.raises(ValueError, match=r'Model\(training='):
        SOURCE()([Model(model.task, model.variables)], Records(examples, examples))
