"""Derivatives through training against training again with other weights, in float64."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import linalg

import influence_jax as ij
from influence_jax import attribution
from influence_jax.attribution import Records, metagradients, metasmoothness
from influence_jax.attribution.metagradient import weighted_member
from influence_jax.models.mlp import MLPConfig
from influence_jax.training import Program, Recipe
from influence_jax.types import Variables


class Rows(NamedTuple):
    x: np.ndarray
    y: np.ndarray


class Network:
    """Two layers of float64 with noise and a running mean, which the loss counts, too."""

    measurements = ('loss',)

    def __init__(self, *, stateful):
        self.stateful = stateful

    def init(self, *, key):
        first, second = jax.random.split(key)
        params = {
            'first': jax.random.normal(first, (3, 5), jnp.float64),
            'second': jax.random.normal(second, (5,), jnp.float64),
            'unused': jnp.zeros(2, jnp.float64),
        }
        return Variables(params, jnp.zeros(5, jnp.float64)) if self.stateful else params

    def train_loss(self, variables, batch, *, key):
        params, state = variables if self.stateful else (variables, jnp.zeros(5, jnp.float64))
        noise = 0.1 * jax.random.normal(key, batch.x.shape, jnp.float64)
        hidden = jnp.tanh((batch.x + noise) @ params['first'])
        losses = ((hidden - 0.3 * state[None]) @ params['second'] - batch.y) ** 2
        if not self.stateful:
            return losses
        return losses, 0.8 * state + 0.2 * hidden.mean(0)

    def measure(self, variables, batch):
        params, state = variables if self.stateful else (variables, jnp.zeros(5, jnp.float64))
        hidden = jnp.tanh(batch.x @ params['first']) - state[None]
        return {'loss': (hidden @ params['second'] - batch.y) ** 2}


@pytest.fixture(params=[False, True], ids=['plain', 'stateful'])
def problem(request):
    generator = np.random.default_rng(0)
    with jax.enable_x64(True):
        examples = Rows(generator.normal(size=(20, 3)), generator.normal(size=20))
        targets = Rows(generator.normal(size=(4, 3)), generator.normal(size=4))
        steps = 13
        program = Program(
            Network(stateful=request.param), Recipe().optimizer(steps), steps, 4, 256, 8
        )
        arguments = {
            'key': jax.random.key(3),
            'mask': jnp.asarray(np.arange(20) % 2 == 0),
            'examples': examples,
        }
        yield program, arguments, targets


@pytest.mark.parametrize('states', [0, pytest.param(10**9, marks=pytest.mark.slow)])
def test_derivatives_are_finite_differences_of_training_again(problem, states):
    program, arguments, targets = problem

    def measured(variables):
        return program.task.measure(variables, targets)['loss']

    values, found = jax.jit(
        lambda: metagradients(program, measure=measured, states=states, **arguments)
    )()
    again = jax.jit(
        lambda weights: measured(weighted_member(program, weights=weights, **arguments))
    )
    np.testing.assert_allclose(values, again(jnp.ones(20)), rtol=1e-10)
    for example in range(20):
        moved = jnp.zeros(20).at[example].set(1e-5)
        expected = (again(1 + moved) - again(1 - moved)) / 2e-5
        np.testing.assert_allclose(found[:, example], expected, rtol=1e-4, atol=1e-7)
    assert not np.asarray(found)[:, 1::2].any()
    assert np.abs(np.asarray(found)[:, ::2]).min() > 1e-6


@pytest.mark.slow
def test_combinations_of_targets(problem):
    program, arguments, targets = problem
    matrix = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4)))

    def measured(variables):
        return program.task.measure(variables, targets)['loss']

    _, single = jax.jit(lambda: metagradients(program, measure=measured, **arguments))()
    _, mixed = jax.jit(
        lambda: metagradients(program, measure=lambda v: matrix @ measured(v), **arguments)
    )()
    np.testing.assert_allclose(mixed, matrix @ single, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_members_are_vmapped(problem):
    program, arguments, targets = problem

    def of(key, mask):
        return metagradients(
            program,
            key=key,
            mask=mask,
            examples=arguments['examples'],
            measure=lambda v: program.task.measure(v, targets)['loss'],
        )[1]

    keys = jax.random.split(jax.random.key(0), 3)
    masks = jnp.asarray(np.random.default_rng(2).random((3, 20)) < 0.7)
    together = jax.jit(jax.vmap(of))(keys, masks)
    alone = jax.jit(of)
    for one, key, mask in zip(together, keys, masks, strict=True):
        np.testing.assert_allclose(one, alone(key, mask), rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_smoothness_is_one_of_a_linear_answer_and_less_of_another():
    """Parameters that follow the weights linearly: one step of plain gradient descent."""
    with jax.enable_x64(True):
        generator = np.random.default_rng(0)
        examples = Rows(generator.normal(size=(20, 3)), generator.normal(size=20))
        arguments = {
            'key': jax.random.key(3),
            'mask': jnp.ones(20, bool),
            'examples': examples,
            'direction': jnp.asarray(generator.normal(size=20)),
        }
        task = Network(stateful=False)
        smooth = Program(task, optax.sgd(0.1), 1, 8, 256, 20)
        assert float(metasmoothness(smooth, step=0.1, **arguments)) == pytest.approx(1)
        rough = Program(task, optax.sgd(3.0), 40, 8, 256, 20)
        assert float(metasmoothness(rough, step=0.5, **arguments)) < 0.7


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    generator = np.random.default_rng(0)
    dataset = ij.Dataset(
        {
            'input': generator.normal(size=(40, 4)).astype(np.float32),
            'label': generator.integers(0, 2, 40),
        }
    )
    run = ij.train_ensemble(
        ij.tasks.Classification(MLPConfig(4, 2, (6,))),
        dataset,
        members=8,
        output_dir=tmp_path_factory.mktemp('run') / 'run',
        recipe=ij.Recipe(epochs=6, batch_size=8),
        design=ij.subsets.Design.BALANCED,
        keep_params=True,
    )
    return attribution.read_run(run, dataset, (0, 1))


def test_a_runs_training_is_done_again(models):
    read, records = models
    for model in read:
        trained = jax.jit(functools.partial(weighted_member, model.training.program))(
            key=model.training.key,
            mask=jnp.asarray(model.mask),
            weights=jnp.ones(40),
            examples=records.examples,
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            trained,
            model.variables,
        )


@pytest.mark.slow
def test_scores_are_averaged_over_the_models_trained_on_the_example(models):
    read, records = models
    method = attribution.Metagradients()
    held = int(np.flatnonzero(read[0].mask)[0])
    some = np.array([held, 0])
    one, other = (np.asarray(method([model], records).read(some)) for model in read)
    both = np.asarray(method(read, records).read(some))
    assert (one[~read[0].mask] == 0).all()
    count = np.maximum(read[0].mask.astype(int) + read[1].mask, 1)[:, None]
    np.testing.assert_allclose(both, (one + other) / count, rtol=1e-5, atol=1e-7)
    assert one[held, 0] > 0  # what is trained on more, is known better


def test_combinations_are_sums_of_scores_and_give_them_back(models):
    read, records = models
    some = Records(records.examples, jax.tree.map(lambda leaf: leaf[:4], records.targets))
    single = np.asarray(attribution.Metagradients()(read, some).read(np.arange(4)))
    signs = linalg.hadamard(4).astype(np.float32)  # orthogonal, so that the estimate is exact
    combined = attribution.combined_metagradients(read, some, signs)
    np.testing.assert_allclose(combined, single @ signs.T, rtol=1e-3, atol=1e-6)
    columns = attribution.sketch(combined, signs, unit='nats')
    assert (columns.examples, columns.targets, columns.unit) == (40, 4, 'nats')
    np.testing.assert_allclose(
        columns.read(np.array([3, 1])), single[:, [3, 1]], rtol=1e-3, atol=1e-6
    )
    with pytest.raises(ValueError, match='5 targets'):
        attribution.combined_metagradients(read, some, np.ones((2, 5), np.float32))


def test_sketches_are_unbiased():
    scores = np.random.default_rng(0).normal(size=(6, 5))
    found = []
    for seed in range(2000):
        weights = attribution.random_combinations(2, 5, key=jax.random.key(seed))
        found.append(attribution.sketch(scores @ weights.T, weights).read(np.arange(5)))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert np.abs((np.mean(found, axis=0) - scores) / error).max() < 4.5
    # The variance is the sum of squares of the other scores of the row, over C.
    expected = ((scores**2).sum(axis=1, keepdims=True) - scores**2) / 2
    np.testing.assert_allclose(np.var(found, axis=0), expected, rtol=0.2)


def test_models_without_their_training_are_refused(models):
    read, records = models
    bare = attribution.Model(read[0].task, read[0].variables)
    with pytest.raises(ValueError, match='Model\\(training='):
        attribution.Metagradients()([bare], records)
