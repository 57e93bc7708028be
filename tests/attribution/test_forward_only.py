"""Scores from forward passes of the examples, against products of gradients."""

import dataclasses

import jax
import numpy as np
import pytest

from influence_jax.attribution import (
    Gradients,
    Mirrored,
    Model,
    Records,
    Z0Inf,
    Z0InfCheckpoints,
)
from influence_jax.trees import map_named


def whole(columns):
    return np.asarray(columns.read(np.arange(columns.targets)))


def in_float64(model, examples):
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.variables)
    rows = jax.tree.map(
        lambda leaf: leaf.astype(np.float64) if leaf.dtype.kind == 'f' else leaf, examples
    )
    return Model(model.task, variables), Records(rows, rows, batch=4)


def test_a_short_step_is_the_product_of_gradients(mlp):
    with jax.enable_x64(True):
        model, records = in_float64(*mlp)
        expected = whole(Gradients()([model], records))
        for steps in (1, 3):
            found = whole(Mirrored(steps, 1e-6)([model], records))
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
        coarse = whole(Mirrored(step=0.5)([model], records))
        assert np.abs(coarse - expected).max() > 1e-2


@pytest.mark.slow
def test_the_step_is_chosen_for_each_target(mlp):
    """So large that float32 resolves it, and so small that scores are those of gradients."""
    model, examples = mlp
    other = Model(model.task, jax.tree.map(lambda leaf: leaf * 0.5, model.variables))
    few = jax.tree.map(lambda leaf: leaf[:5], examples)
    records = Records(examples, few, batch=3)
    found, expected = (
        whole(method([model, other], records)) for method in (Mirrored(), Gradients())
    )
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
    dead = map_named(lambda path, leaf: leaf * ('/1/kernel' not in path), model.variables)
    stuck = Model(model.task, dead, blocks=('layers/0/',))
    np.testing.assert_array_equal(whole(Mirrored()([stuck], records)), 0)


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """loss = slope . p + (curve . p)^2 / 2: parameters p are a vector."""

    measurements = ('loss',)

    def init(self, *, key):
        raise NotImplementedError

    def train_loss(self, params, batch, *, key):
        return self.measure(params, batch)['loss']

    def measure(self, params, batch):
        return {'loss': batch['slope'] @ params['p'] + (batch['curve'] @ params['p']) ** 2 / 2}


def quadratic(count=6, size=5):
    generator = np.random.default_rng(0)
    rows = {name: generator.normal(size=(count, size)) for name in ('slope', 'curve')}
    params = {'p': generator.normal(size=size)}
    return Model(Quadratic(), params), Records(rows, rows)


def test_losses_under_perturbations_covary_as_gradients_do():
    """Of quadratic losses, whatever the size of perturbations; within the sampling error."""
    with jax.enable_x64(True):
        model, records = quadratic()
        expected = whole(Gradients()([model], records))
        norms = np.sqrt(np.diag(expected))
        count = 20_000
        for scale in (1e-3, 3.0):
            found = whole(Z0Inf(count, scale)([model], records))
            noise = np.sqrt((np.outer(norms, norms) ** 2 + expected**2) / count)
            assert np.abs((found - expected) / noise).max() < 4
            assert np.abs((found - expected) / noise).max() > 0.1


def test_the_scale_of_perturbations_is_chosen(mlp):
    model, examples = mlp
    records = Records(examples, examples, batch=3)
    found, expected = (whole(method([model], records)) for method in (Z0Inf(2000), Gradients()))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98
    np.testing.assert_array_equal(found, whole(Z0Inf(2000)([model], records)))


def test_changes_between_checkpoints():
    """Steps along the axes, so short that losses are linear: products of gradients, all told."""
    with jax.enable_x64(True):
        model, records = quadratic()
        step = 1e-6
        ends = [{'p': model.params['p'] + step * np.tri(6, 5, -1)[k]} for k in range(6)]
        models = [dataclasses.replace(model, variables=params) for params in ends]
        found = whole(Z0InfCheckpoints((1.0,) * 5)(models, records))
        np.testing.assert_allclose(found, whole(Gradients()([model], records)), rtol=1e-4)
        double = whole(Z0InfCheckpoints((2.0,) * 5)(models, records))
        np.testing.assert_allclose(double, 2 * found)
        with pytest.raises(ValueError, match=r'rates=\(-1.0,\)'):
            Z0InfCheckpoints((-1.0,))
        with pytest.raises(ValueError, match='4 rates for 6 checkpoints'):
            whole(Z0InfCheckpoints((1.0,) * 4)(models, records))
        with pytest.raises(ValueError, match='checkpoints 1 and 2'):
            whole(Z0InfCheckpoints((1.0, 1.0))([models[0], models[1], models[1]], records))


@pytest.mark.parametrize(
    ('make', 'match'),
    [
        (lambda: Mirrored(0), 'steps=0'),
        (lambda: Mirrored(step=-1.0), 'step=-1.0'),
        (lambda: Z0Inf(0), 'perturbations=0'),
        (lambda: Z0Inf(scale=0.0), 'scale=0.0'),
    ],
)
def test_refusals(make, match):
    with pytest.raises(ValueError, match=match):
        make()
