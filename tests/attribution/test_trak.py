"""TRAK against the formula of the paper, written out; and the projection that it uses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax import tasks
from influence_jax.attribution import TRAK, Model, Records
from influence_jax.attribution.model import flat
from influence_jax.attribution.projection import project
from influence_jax.data import Dataset
from influence_jax.models.mlp import MLPConfig


def whole(columns):
    return np.asarray(columns.read(np.arange(columns.targets)))


@pytest.fixture(scope='module')
def models():
    """Two models of a small classifier, each with a mask, and 30 examples."""
    generator = np.random.default_rng(0)
    dataset = Dataset(
        {
            'input': generator.normal(size=(30, 4)).astype(np.float32),
            'label': generator.integers(0, 3, 30),
        }
    )
    problem = tasks.bind(tasks.Classification(MLPConfig(4, 3, (6,))), dataset)
    masks = np.random.default_rng(1).random((2, 30)) < 0.7
    return [
        Model(problem.task, problem.task.init(key=jax.random.key(m)), mask=masks[m])
        for m in range(2)
    ], problem.examples


def reference(models, examples, size, seed, damping):
    """A product of means over models in float64, from probabilities and projected gradients."""
    scores, errors = [], []
    for number, model in enumerate(models):

        def log_odds(chosen, row, model=model):
            p = jnp.exp(-model.measure(chosen, row, 'loss'))
            return jnp.log(p / (1 - p))

        gradients = jax.jit(jax.vmap(jax.grad(log_odds), (None, 0)))(model.chosen, examples)
        key = jax.random.fold_in(jax.random.key(seed), number)
        phi = np.asarray(project(gradients, size, key=key), np.float64)
        trained = phi[model.mask]
        gram = trained.T @ trained
        gram += damping * np.trace(gram) / size * np.eye(size)
        scores.append(phi @ np.linalg.inv(gram) @ phi.T)
        errors.append(1 - np.exp(-np.asarray(model.losses(model.chosen, examples, 'loss'))))
    return np.mean(errors, axis=0)[:, None] * np.mean(scores, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(('size', 'damping'), [(6, 0.0), (6, 0.1), (29, 0.5)])
def test_scores_are_the_formula_of_the_paper(models, size, damping):
    """Whose damping is 0; with damping the projection may be larger than the rank."""
    models, examples = models
    records = Records(examples, examples, batch=8, block=9)
    found = whole(TRAK(size, damping, seed=3)(models, records))
    expected = reference(models, examples, size, 3, damping)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_without_projection_it_is_one_newton_step_of_logistic_regression():
    """Linear in its parameters: scores are how the log-odds change when an example is left out."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(300, 3)).astype(np.float32)
    labels = (inputs[:, 0] + generator.normal(size=300) > 0).astype(np.int32)
    x = np.concatenate([inputs, np.ones((300, 1))], axis=1)
    w = newton(x, labels)
    dataset = Dataset({'input': inputs, 'label': labels})
    problem = tasks.bind(tasks.Classification(MLPConfig(3, 2, ())), dataset)
    params = problem.task.init(key=jax.random.key(0))
    params = jax.tree.map(jnp.zeros_like, params)
    model = Model(problem.task, params)
    two = {
        path: jnp.asarray(np.stack([0 * part, part], -1), jnp.float32)
        for path, part in zip(sorted(model.chosen), (w[3], w[:3]), strict=True)
    }
    model = Model(problem.task, jax.tree.unflatten(jax.tree.structure(params), list(two.values())))
    scores = whole(TRAK(size=4, seed=7)([model], Records(problem.examples, problem.examples)))
    truth = []
    for i in range(20):
        without = newton(np.delete(x, i, axis=0), np.delete(labels, i))
        truth.append((x @ w - x @ without) * np.where(labels, 1, -1))
    away = ~np.eye(300, dtype=bool)[:20]
    # TRAK leaves out the weights p(1-p) of Newton's step: only the order is the truth's.
    assert np.corrcoef(np.array(truth)[away], scores[:20][away])[0, 1] > 0.85


def newton(x, labels):
    w = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        w -= np.linalg.solve((x.T * (p * (1 - p))) @ x, x.T @ (p - labels))
    return w


def test_projection_keeps_inner_products_on_average_and_does_not_depend_on_batches():
    generator = np.random.default_rng(0)
    rows = {
        'a': jnp.asarray(generator.normal(size=(5, 7, 9)), jnp.float32),
        'b': jnp.asarray(generator.normal(size=(5, 40)), jnp.float32),
    }
    found = project(rows, 40_000, key=jax.random.key(0))
    side = np.asarray(flat(rows))
    np.testing.assert_allclose(found @ found.T, side @ side.T, atol=0.02 * (side**2).sum(1).max())
    some = {path: leaf[2:4] for path, leaf in rows.items()}
    np.testing.assert_allclose(
        project(some, 40_000, key=jax.random.key(0)), found[2:4], rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_texts_have_log_odds_summed_over_their_tokens(networks):
    model, records = networks['gpt_neo']()
    tokens, length = records.tokens[2], int(records.lengths[2])
    logits = np.asarray(model.task.outputs(model.variables, records), np.float64)[2]
    expected, others = 0.0, []
    for place in range(1, length):
        p = np.exp(logits[place - 1] - np.logaddexp.reduce(logits[place - 1]))[tokens[place]]
        expected += np.log(p / (1 - p))
        others.append(1 - p)
    found = model.margin(model.chosen, jax.tree.map(lambda leaf: leaf[2], records))
    np.testing.assert_allclose(found.log_odds, expected, rtol=1e-4)
    np.testing.assert_allclose(found.error, np.mean(others), rtol=1e-4)


def test_refusals(models):
    models, examples = models
    records = Records(examples, examples)
    with pytest.raises(ValueError, match=r'rank \d+ of size=29'):
        whole(TRAK(size=29)(models, records))
    with pytest.raises(ValueError, match='size=0'):
        TRAK(size=0)
    with pytest.raises(ValueError, match='damping=-1'):
        TRAK(damping=-1.0)
    rows = {'input': np.ones((6, 4), np.float32), 'label': np.ones(6, np.float32)}
    problem = tasks.bind(tasks.Regression(MLPConfig(4, 1, ())), Dataset(rows))
    model = Model(problem.task, problem.task.init(key=jax.random.key(0)))
    records = Records(problem.examples, problem.examples)
    with pytest.raises(ValueError, match='absolute_error'):
        whole(TRAK()([model], records))
    with pytest.raises(ValueError, match=r'nearest are .*layers/0/kernel'):
        dataclasses.replace(models[0], blocks=('layers/0/kernels',))
