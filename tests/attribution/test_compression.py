"""Compressed gradients: without compression the dense formula, with it the nearer the larger."""

from functools import partial

import jax
import numpy as np
import pytest

from influence_jax.attribution import (
    ASTRA,
    KFAC,
    Compressed,
    Dropout,
    LoGra,
    Model,
    Records,
    RelatIF,
)
from influence_jax.attribution.influence_function import InfluenceFunction
from influence_jax.attribution.solvers import ConjugateGradients, Exact


def whole(columns):
    return np.asarray(columns.read(np.arange(columns.targets)))


def solved(own, mask, damping):
    count = mask.sum()
    fisher = own[mask].T @ own[mask] / count
    return own @ np.linalg.solve(fisher + damping * np.eye(len(fisher)), own.T) / count


@pytest.fixture(scope='module')
def masked(mlp):
    model, examples = mlp
    blocks = model.network(examples, 'loss').blocks(model.chosen, examples)
    own = [np.asarray(block, np.float64).reshape(7, -1) for block in blocks]
    mask = np.arange(7) != 2
    return Model(model.task, model.variables, mask=mask), examples, own, mask


def test_nothing_compressed_is_the_dense_formula(masked):
    model, examples, own, mask = masked
    records = Records(examples, examples, batch=3)
    found = whole(Compressed(LoGra(rank=100), damping=0.05)([model], records))
    expected = sum(solved(block, mask, 0.05) for block in own)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    found = whole(Compressed(Dropout(count=1000), damping=0.05)([model], records))
    expected = solved(np.concatenate(own, axis=1), mask, 0.05)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    'sizes', [(LoGra(1), LoGra(4)), (Dropout(4), Dropout(40))], ids=['LoGra', 'dropout']
)
def test_more_memory_is_nearer_to_the_whole(masked, sizes):
    model, examples, own, mask = masked
    records = Records(examples, examples)
    whole_one = (
        sum(solved(block, mask, 0.5) for block in own)
        if isinstance(sizes[0], LoGra)
        else solved(np.concatenate(own, axis=1), mask, 0.5)
    )
    errors, needed = [], []
    for compression in sizes:
        found = [
            whole(Compressed(compression, damping=0.5, seed=seed)([model], records))
            for seed in range(2)
        ]
        errors.append(np.sqrt(np.mean((np.array(found) - whole_one) ** 2)))
        needed.append(Compressed(compression).bytes_needed([model], records))
    assert errors[1] < 0.7 * errors[0]
    assert needed[1] > needed[0]


@pytest.mark.slow
def test_texts_are_compressed_without_one_hot_vectors(networks):
    model, records = networks['gpt_neo']()
    network = model.network(records, 'loss')
    drawn = LoGra(3).draw(network, key=jax.random.key(0))
    found = jax.jit(partial(LoGra(3).blocks, network))(drawn, model.chosen, records)
    embedding = network.layers[0]
    side = LoGra(3)._side(30, jax.random.fold_in(jax.random.key(0), 0))
    factors = jax.jit(network.factors)(model.chosen, records)
    rows = embedding.rows(factors.inputs[0][0]) @ side
    other = LoGra(3)._side(8, jax.random.fold_in(jax.random.key(0), 1))
    expected = rows.T @ (embedding.columns(factors.gradients[0][0]) @ other)
    np.testing.assert_allclose(found[0][0], expected.ravel(), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_refinement_goes_from_ekfac_to_the_exact_solution(masked):
    model, examples, _, _ = masked
    records = Records(examples, examples)
    exact = whole(InfluenceFunction(Exact(), damping=0.02)([model], records))
    refined = whole(ASTRA(iterations=40, tolerance=1e-5, damping=0.02)([model], records))
    np.testing.assert_allclose(refined, exact, atol=5e-3 * np.abs(exact).max())

    def error(method):
        return np.abs(whole(method([model], records)) - exact).max()

    few = error(ASTRA(iterations=3, damping=0.02))
    plain = InfluenceFunction(ConjugateGradients(iterations=3), damping=0.02)
    assert few < error(KFAC(damping=0.02))
    assert few < error(plain)


def test_relatif_of_factors(masked):
    model, examples, _, _ = masked
    records = Records(examples, examples)
    plain = whole(KFAC(damping=0.1)([model], records))
    found = whole(KFAC(damping=0.1, relatif=RelatIF.LOSS)([model], records))
    np.testing.assert_allclose(found, plain / np.sqrt(np.diag(plain))[:, None], rtol=1e-3)
    assert KFAC(relatif=RelatIF.LOSS)([model], records).unit == ''


def test_refusals(mlp):
    model, examples = mlp
    for make in (
        lambda: LoGra(0),
        lambda: Dropout(0),
        lambda: Compressed(damping=0.0),
        lambda: ASTRA(iterations=0),
        lambda: ASTRA(damping=-1.0),
    ):
        with pytest.raises(ValueError, match=r'=-?[01]'):
            make()
    records = Records(examples, examples, memory=1000)
    for method in (Compressed(), ASTRA(), KFAC(), InfluenceFunction()):
        with pytest.raises(ValueError, match=r'memory=0\.0 GiB'):
            method([model], records)
