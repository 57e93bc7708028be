"""Detectors on planted wrong labels, and against their definitions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax import tasks
from influence_jax.analysis import judge
from influence_jax.attribution import Gradients, Model, Records
from influence_jax.attribution.detectors import (
    DETECTORS,
    GradientSize,
    LowConfidence,
    OutlierGradients,
    OwnLoss,
    SelfInfluence,
    last_layer,
)
from influence_jax.data import Dataset
from influence_jax.models.mlp import MLPConfig


@pytest.fixture(scope='module')
def planted():
    """A network trained for a while on three clouds, a tenth of the labels wrong."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    inputs = generator.normal(size=(200, 4)) + 4 * np.eye(3, 4)[labels]
    wrong = np.arange(200) % 10 == 0
    given = np.where(wrong, (labels + 1) % 3, labels)
    dataset = Dataset({'input': inputs.astype(np.float32), 'label': given})
    problem = tasks.bind(tasks.Classification(MLPConfig(4, 3, (16,))), dataset)
    start = problem.task.init(key=jax.random.key(0))
    rows = jax.tree.map(jnp.asarray, problem.examples)

    @jax.jit
    def train(params):
        def step(_, params):
            slope = jax.grad(lambda p: problem.task.measure(p, rows)['loss'].mean())
            return jax.tree.map(lambda leaf, by: leaf - 0.5 * by, params, slope(params))

        return jax.lax.fori_loop(0, 100, step, params)

    records = Records(problem.examples, problem.examples, batch=64, block=90)
    return Model(problem.task, train(start)), records, wrong


@pytest.mark.parametrize('detector', DETECTORS, ids=lambda one: one.method.name)
def test_wrong_labels_are_found(planted, detector):
    model, records, wrong = planted
    scores = detector([model], records)
    assert scores.shape == (200,)
    found = judge.mislabel_scores(scores, wrong, key=jax.random.key(0))
    assert found.auroc.value > 0.9
    assert found.found[0] > 0.5
    assert found.found[1] > 0.8
    other = dataclasses.replace(
        model, variables=jax.tree.map(lambda leaf: 0.5 * leaf, model.variables)
    )
    both = detector([model, other], records)
    np.testing.assert_allclose(both, (scores + detector([other], records)) / 2, rtol=1e-4)


def test_scores_are_their_definitions(planted):
    model, records, _ = planted
    last = last_layer(model, records)
    assert {path.split('/')[1] for path in last.chosen} == {'1'}
    slope = jax.grad(lambda params, row: last.measure(params, row, 'loss'))
    by_leaf = jax.jit(jax.vmap(slope, (None, 0)))(last.chosen, records.examples)
    gradients = np.concatenate([np.reshape(leaf, (200, -1)) for leaf in by_leaf.values()], axis=1)
    for order in (1, 2):
        expected = np.linalg.norm(gradients, order, axis=1)
        np.testing.assert_allclose(
            GradientSize(order)([model], records), expected, rtol=1e-3, atol=1e-6
        )
    diagonal = SelfInfluence(Gradients())([last], records)
    np.testing.assert_allclose(diagonal, (gradients**2).sum(axis=1), rtol=1e-3, atol=1e-6)
    losses = OwnLoss()([model], records)
    np.testing.assert_allclose(LowConfidence()([model], records), 1 - np.exp(-losses), atol=1e-5)


def test_blocks_are_kept_and_the_seed_decides(planted):
    model, records, _ = planted
    first = dataclasses.replace(model, blocks=('layers/0/',))
    assert last_layer(first, records) is first
    one, same, other = (OutlierGradients(seed=seed)([model], records) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0


def test_refusals(planted):
    model, records, _ = planted
    with pytest.raises(ValueError, match='order=3'):
        GradientSize(3)
    with pytest.raises(ValueError, match=r'memory=0\.0 GiB'):
        OutlierGradients()([model], dataclasses.replace(records, memory=1000))
    with pytest.raises(ValueError, match='no models'):
        OwnLoss()([], records)
    damaged = {**records.examples, 'inputs': records.examples['inputs'].copy()}
    damaged['inputs'][4] = np.nan
    with pytest.raises(ValueError, match='record 4 is not finite'):
        OwnLoss()([model], Records(damaged, damaged))
