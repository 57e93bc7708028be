"""Inner products and cosines of gradients, TracIn, and what all methods refuse."""

import dataclasses

import jax
import numpy as np
import pytest

from influence_jax import tasks
from influence_jax.attribution import Gradients, Model, Records
from influence_jax.attribution.features import GradientsOf, compiled
from influence_jax.attribution.method import ExampleFeatures, FeatureScorer
from influence_jax.attribution.model import flat
from influence_jax.data import Dataset
from influence_jax.models.mlp import MLPConfig


def gradients(model, rows):
    slope = jax.grad(lambda params, row: model.measure(params, row, 'loss'))
    return np.asarray(flat(jax.jit(jax.vmap(slope, (None, 0)))(model.chosen, rows)), np.float64)


def whole(columns):
    return np.asarray(columns.read(np.arange(columns.targets)))


def test_scores_are_products_of_gradients(network):
    model, examples = network
    own = gradients(model, examples)
    scores = whole(Gradients()([model], Records(examples, examples, batch=3)))
    np.testing.assert_allclose(
        scores, own @ own.T, rtol=1e-3, atol=1e-4 * np.abs(own @ own.T).max()
    )
    unit = own / np.linalg.norm(own, axis=1, keepdims=True)
    cosines = whole(Gradients(cosine=True)([model], Records(examples, examples, batch=3)))
    np.testing.assert_allclose(cosines, unit @ unit.T, atol=1e-4)


def test_tracin_weighs_checkpoints(mlp):
    model, examples = mlp
    other = Model(model.task, jax.tree.map(lambda leaf: leaf * 0.5, model.variables))
    records = Records(examples, examples)
    scores = whole(Gradients(weights=(0.3, 0.01))([model, other], records))
    expected = sum(
        weight * gradients(one, examples) @ gradients(one, examples).T
        for weight, one in ((0.3, model), (0.01, other))
    )
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-6)


def test_a_step_on_an_example_lowers_the_loss_where_the_score_is_positive(mlp):
    model, examples = mlp
    scores = whole(Gradients()([model], Records(examples, examples)))
    row = jax.tree.map(lambda leaf: leaf[0], examples)
    measure = jax.jit(lambda params, row: model.measure(params, row, 'loss'))
    gradient = jax.jit(jax.grad(measure))(model.chosen, row)
    stepped = {path: leaf - 1e-3 * gradient[path] for path, leaf in model.chosen.items()}

    def losses(params):
        return np.asarray(jax.vmap(measure, (None, 0))(params, examples))

    gain = losses(model.chosen) - losses(stepped)
    np.testing.assert_allclose(gain / 1e-3, scores[0], rtol=0.05, atol=0.02)


def test_blocks_of_parameters(mlp):
    model, examples = mlp
    last = dataclasses.replace(model, blocks=(r'layers/1/',))
    assert all('layers/1/' in path for path in last.chosen)
    scores = whole(Gradients()([last], Records(examples, examples)))
    own = gradients(last, examples)
    np.testing.assert_allclose(scores, own @ own.T, rtol=1e-3, atol=1e-5)


def test_features_are_kept_where_they_fit(mlp):
    model, examples = mlp
    seen = []

    @jax.jit
    def features(batch):
        jax.debug.callback(lambda: seen.append(1))
        return flat(model.network(examples, 'loss').gradients(model.chosen, batch))

    for memory, batches in ((2**20, 2), (1000, 6)):
        seen.clear()
        records = Records(examples, examples, batch=4, memory=memory)
        kept = ExampleFeatures(features, records, models=1)
        first, second = (np.concatenate([part for _, part in kept]) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        (gram,) = kept.grams(np.arange(7) < 5, [slice(None)])
        np.testing.assert_allclose(gram, first[:5].T @ first[:5], rtol=1e-4, atol=1e-6)
        jax.effects_barrier()
        assert len(seen) == batches  # of three passes


def test_refusals(mlp):
    model, examples = mlp
    records = Records(examples, examples)
    with pytest.raises(ValueError, match='no models'):
        Gradients()([], records)
    with pytest.raises(ValueError, match='attention'):
        dataclasses.replace(model, blocks=('attention',))
    with pytest.raises(ValueError, match=r'memory=0\.0 GiB'):
        Gradients()([model], dataclasses.replace(records, memory=1000))
    with pytest.raises(ValueError, match='2 weights for 1 models'):
        whole(Gradients(weights=(1.0, 2.0))([model], records))
    damaged = {**examples, 'inputs': examples['inputs'].copy()}
    damaged['inputs'][4] = np.nan
    with pytest.raises(ValueError, match='record 4 is not finite'):
        whole(Gradients()([model], Records(damaged, examples, batch=3)))


def passes(memory, *, targets=40, block=0):
    """How often a method goes through the examples, and its blocks of targets."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(20, 6)).astype(np.float32)
    dataset = Dataset({'input': inputs, 'label': generator.integers(0, 3, 20)})
    problem = tasks.bind(tasks.Classification(MLPConfig(6, 3, (5,))), dataset)
    model = Model(problem.task, problem.task.init(key=jax.random.key(1)))
    some = jax.tree.map(lambda leaf: np.resize(leaf, (targets, *leaf.shape[1:])), problem.examples)
    records = Records(problem.examples, some, batch=20, memory=memory, block=block)
    seen = []

    class Counting(Gradients):
        def prepare(self, models, records):
            features = compiled(GradientsOf(models[0], 'loss'))

            def counted(batch):
                if not isinstance(batch['label'], jax.core.Tracer):
                    seen.append(1)
                return features(batch)

            return FeatureScorer([features], [counted], records)

    method = Counting()
    columns, block = method([model], records), method.target_block([model], records)
    for _, found in columns.tiles(tile=block):
        assert np.isfinite(found.values).all()
    return len(seen), block


@pytest.mark.slow
def test_blocks_of_targets_are_the_largest_that_memory_holds():
    size = 4 * (6 * 5 + 5 + 5 * 3 + 3)  # of a record's gradient
    batch, of_target = 3 * 20 * size, 2 * size + 16 * 20
    tight = batch + 25 * of_target
    assert 20 * size + batch + 20 * of_target > tight  # examples' gradients are not kept
    assert passes(tight) == (2, 25)
    assert passes(batch + 40 * of_target) == (1, 34)  # kept beside these
    assert passes(batch + 22 * of_target, targets=100) == (5, 22)
    assert passes(tight, block=24) == (2, 24)
    # Kept, they are gone through once, in whatever blocks.
    assert passes(2**22, targets=600) == (1, 512)
