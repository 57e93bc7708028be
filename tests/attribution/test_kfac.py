"""Fisher information in factors against its definition."""

import jax
import numpy as np
import pytest

from influence_jax import tasks
from influence_jax.attribution import KFAC, Fisher, Model, Records
from influence_jax.data import Dataset
from influence_jax.models.mlp import MLPConfig


def whole(columns):
    return np.asarray(columns.read(np.arange(columns.targets)))


@pytest.fixture(scope='module')
def regression():
    """One linear layer: the Fisher information is exactly a product of factors."""
    generator = np.random.default_rng(0)
    dataset = Dataset(
        {
            'input': generator.normal(size=(400, 4)).astype(np.float32),
            'label': generator.normal(size=(400, 2)).astype(np.float32),
        }
    )
    problem = tasks.bind(tasks.Regression(MLPConfig(4, 2, ())), dataset)
    return Model(problem.task, problem.task.init(key=jax.random.key(0))), problem.examples


def test_factors_of_one_linear_layer_are_its_hessian(regression):
    model, examples = regression
    (spectrum,) = KFAC(corrected=False).spectra(model, Records(examples, examples))
    turned = np.kron(spectrum.inputs, spectrum.outputs)
    found = turned @ np.diag(spectrum.values.ravel()) @ turned.T
    x = np.concatenate([examples['inputs'], np.ones((400, 1))], axis=1)
    # The mean over two outputs of squared errors: its second derivative by each of them is 1.
    expected = np.kron(x.T @ x / 400, np.eye(2))
    assert np.abs(found - expected).max() < 0.15 * np.abs(expected).max()


@pytest.mark.parametrize(
    'name',
    [
        'mlp',
        pytest.param('strided', marks=pytest.mark.slow),
        pytest.param('resnet', marks=pytest.mark.slow),
        pytest.param('gpt_neo', marks=pytest.mark.slow),
    ],
)
def test_scores_are_of_the_inverse_of_what_the_spectrum_says(networks, name):
    model, examples = networks[name]()
    count = len(jax.tree.leaves(examples)[0])
    records = Records(examples, examples, batch=3)
    method = KFAC(fisher=Fisher.EMPIRICAL, damping=0.01)
    spectra = method.spectra(model, records)
    found = model.network(examples, 'loss')
    blocks = found.blocks(model.chosen, examples)
    expected = 0.0
    for spectrum, block in zip(spectra, blocks, strict=True):
        turned = np.kron(spectrum.inputs, spectrum.outputs).astype(np.float64)
        fisher = turned @ np.diag(spectrum.values.ravel()) @ turned.T
        own = np.asarray(block, np.float64).reshape(count, -1)
        # Eigenvalues are the second moments of gradients along each pair of eigenvectors.
        along = ((own @ turned) ** 2).mean(axis=0)
        np.testing.assert_allclose(spectrum.values.ravel(), along, rtol=1e-3, atol=1e-6)
        solved = np.linalg.solve(fisher + 0.01 * np.eye(len(fisher)), own.T)
        expected = expected + own @ solved / count
    scores = whole(method([model], records))
    np.testing.assert_allclose(scores, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_labels_are_drawn_and_the_seed_decides(mlp):
    model, examples = mlp
    records = Records(examples, examples)
    one, same, other = (KFAC(seed=seed).spectra(model, records)[0].values for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4


def test_damping_is_a_tenth_of_the_mean_eigenvalue(mlp):
    model, examples = mlp
    for spectrum in KFAC().spectra(model, Records(examples, examples)):
        assert spectrum.damping == pytest.approx(0.1 * spectrum.values.mean(), rel=1e-5)
    with pytest.raises(ValueError, match='damping=0 must be positive'):
        KFAC(damping=0)


def test_only_examples_that_were_trained_on_count(mlp):
    model, examples = mlp
    mask = np.arange(7) < 4
    half = Model(model.task, model.variables, mask=mask)
    cut = jax.tree.map(lambda leaf: leaf[:4], examples)
    method = KFAC(fisher=Fisher.EMPIRICAL)
    found = whole(method([half], Records(examples, examples)))
    expected = whole(method([model], Records(cut, examples)))
    np.testing.assert_allclose(found[:4], expected, rtol=1e-4)


def test_units_are_those_of_the_measurement(regression, mlp):
    for (model, examples), unit in ((regression, 'squared unit of the label'), (mlp, 'nats')):
        assert KFAC().unit(model, Records(examples, examples)) == unit
    model, examples = regression
    records = Records(examples, examples, measurement='absolute_error')
    assert KFAC().unit(model, records) == 'unit of the label'


def test_a_layer_without_gradients_scores_nothing(mlp):
    model, examples = mlp
    dead = {path: 0 * leaf for path, leaf in model.chosen.items()}
    dead['layers/0/bias'] = dead['layers/0/bias'] - 1  # no unit is ever active
    tree = jax.tree.unflatten(jax.tree.structure(model.variables), list(dead.values()))
    silent = Model(model.task, tree)
    records = Records(examples, examples)
    first, last = KFAC().spectra(silent, records)
    assert not first.values.any()
    assert last.values.any()
    assert np.isfinite(whole(KFAC()([silent], records))).all()


def test_factors_of_all_models_count_as_memory(mlp):
    model, examples = mlp
    records = Records(examples, examples)
    one, many = (KFAC().bytes_needed([model] * count, records) for count in (1, 11))
    # Layers of 7 x 5 and 6 x 3: A, S and the eigenvalues, 4 bytes each.
    assert many - one == 10 * 4 * (49 + 25 + 35 + 36 + 9 + 18)
