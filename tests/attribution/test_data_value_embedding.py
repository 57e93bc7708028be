"""Data value embeddings against differentiation of training, where their curvature is exact."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from influence_jax import attribution, tasks
from influence_jax.attribution import DataValueEmbedding, Model, Records, Training, metagradients
from influence_jax.attribution.metagradient import weighted_member
from influence_jax.data import Dataset
from influence_jax.models.mlp import MLPConfig
from influence_jax.training import Program


class LogLinear:
    """Minus the log of a linear function: the second derivative of each loss is g g^T."""

    measurements = ('loss',)

    def init(self, *, key):
        del key
        return {'offset': jnp.ones((), jnp.float64), 'weights': jnp.ones(4, jnp.float64)}

    def train_loss(self, params, batch, *, key):
        del key
        return self.measure(params, batch)['loss']

    def measure(self, params, batch):
        return {'loss': -jnp.log(batch['x'] @ params['weights'] + params['offset'])}


OPTIMIZERS = {
    'sgd': optax.sgd(optax.linear_schedule(0.3, 0.05, 25)),
    'decay': optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.2)),
    'momentum': optax.sgd(0.1, momentum=0.7),
    'adamw': optax.adamw(0.05, b1=0.8, b2=0.95, weight_decay=0.1),
}


@pytest.mark.parametrize(('name', 'batch'), list(zip(OPTIMIZERS, (1, 3, 4, 2), strict=True)))
def test_scores_are_derivatives_of_training_where_the_curvature_is_exact(name, batch):
    with jax.enable_x64(True):
        generator = np.random.default_rng(0)
        rows = {'x': generator.uniform(0.2, 1, (12, 4))}
        targets = {'x': generator.uniform(0.2, 1, (5, 4))}
        mask = np.arange(12) % 3 > 0
        program, key = Program(LogLinear(), OPTIMIZERS[name], 25, batch, 256, 8), jax.random.key(3)

        def measured(weights):
            variables = weighted_member(
                program, key=key, mask=jnp.asarray(mask), weights=weights, examples=rows
            )
            return program.task.measure(variables, targets)['loss']

        expected = -jax.jit(jax.jacfwd(measured))(jnp.ones(12)).T
        start = program.task.init(key=key)
        model = Model(program.task, start, mask=mask, training=Training(program, key))
        # Of one target at a time, for want of memory.
        records = Records(rows, targets, memory=2**28 + 2000)
        found = np.asarray(DataValueEmbedding()([model], records).read(np.arange(5)))
    assert found[~mask].any() == 0
    assert np.abs(expected[mask]).min() > 1e-6
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.fixture(scope='module')
def classifier():
    """An MLP trained by SGD in small batches, and its records."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 40)
    inputs = generator.normal(size=(40, 6)) + label[:, None]
    dataset = Dataset({'input': inputs.astype(np.float32), 'label': label})
    problem = tasks.bind(tasks.Classification(MLPConfig(6, 2, (8,))), dataset)
    program = Program(problem.task, optax.sgd(0.1), 60, 4, 256, 30)
    mask, training = np.arange(40) < 30, Training(program, jax.random.key(0))
    arguments = {'key': training.key, 'mask': jnp.asarray(mask), 'examples': problem.examples}
    variables = jax.jit(lambda: weighted_member(program, weights=jnp.ones(40), **arguments))()
    return Model(problem.task, variables, mask=mask, training=training), problem.examples


@pytest.mark.slow
def test_scores_rank_as_exact_derivatives_do(classifier):
    model, examples = classifier
    records = Records(examples, examples)
    some = np.arange(25, 35)
    found = np.asarray(DataValueEmbedding()([model], records).read(some))
    targets = jax.tree.map(lambda leaf: jnp.asarray(leaf[some]), examples)
    exact = -jax.jit(
        lambda: metagradients(
            model.training.program,
            key=model.training.key,
            mask=jnp.asarray(model.mask),
            examples=examples,
            measure=lambda variables: model.task.measure(variables, targets)['loss'],
        )[1]
    )()
    gradients = np.asarray(attribution.Gradients()([model], records).read(some))

    def agreement(scores):
        columns = zip(scores[model.mask].T, np.asarray(exact)[:, model.mask], strict=True)
        return np.mean([stats.spearmanr(*column).statistic for column in columns])

    assert agreement(found) > 0.8
    assert agreement(found) > agreement(gradients) + 0.1


def test_what_cannot_be_trained_again_is_refused(classifier):
    model, examples = classifier
    records = Records(examples, examples)
    bare = Model(model.task, model.variables)
    with pytest.raises(ValueError, match='Model\\(training='):
        DataValueEmbedding()([bare], records)
    part = Model(model.task, model.variables, ('layers/1',), model.mask, model.training)
    with pytest.raises(ValueError, match='blocks='):
        DataValueEmbedding()([part], records)
    with pytest.raises(ValueError, match='more than memory'):
        DataValueEmbedding()([model], Records(examples, examples, memory=2**28))


@pytest.mark.slow
def test_growth_on_the_way_back_is_warned_of(classifier, caplog):
    model, examples = classifier
    some = np.arange(3)
    with caplog.at_level('WARNING'):
        DataValueEmbedding()([model], Records(examples, examples)).read(some)
    assert not caplog.records
    fast = model.training._replace(
        program=model.training.program._replace(optimizer=optax.sgd(3.0))
    )
    wild = dataclasses.replace(model, training=fast)
    with caplog.at_level('WARNING'):
        DataValueEmbedding()([wild], Records(examples, examples)).read(some)
    assert 'times as long on the way back' in caplog.text
