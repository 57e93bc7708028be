"""Scores of modules and of tokens add up to those of the whole, and are those of their own."""

import dataclasses

import jax
import numpy as np
import pytest

from influence_jax.attribution import (
    KFAC,
    TRAK,
    Compressed,
    ConjugateGradients,
    Dropout,
    Gradients,
    InfluenceFunction,
    Mirrored,
    Model,
    Records,
    RelatIF,
    Z0Inf,
    by_module,
    by_token,
    by_token_of_pairs,
)
from influence_jax.tasks.language_modeling import LanguageModeling


def whole(columns):
    return np.asarray(columns.read(np.arange(columns.targets)))


def near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    'method',
    [
        Gradients(),
        Gradients(cosine=True),
        Gradients(weights=(0.3,)),
        KFAC(),
        KFAC(relatif=RelatIF.LOSS),
        Compressed(),
        InfluenceFunction(),
    ],
    ids=lambda one: one.method.name,
)
def test_modules_add_up(mlp, method):
    model, examples = mlp
    records = Records(examples, jax.tree.map(lambda leaf: leaf[:3], examples), batch=4)
    parts = by_module(method, [model], records)
    assert list(parts) == ['layers/0', 'layers/1']
    near(sum(whole(part) for part in parts.values()), whole(method([model], records)))
    assert all(part.unit == method.unit(model, records) for part in parts.values())


@pytest.mark.parametrize(
    'method',
    [Gradients(), pytest.param(KFAC(), marks=pytest.mark.slow)],
    ids=lambda one: one.method.name,
)
def test_a_module_is_the_method_on_its_parameters_alone(networks, method):
    """Of methods that solve nothing across modules."""
    model, examples = networks['strided']()
    records = Records(examples, examples, batch=4)
    parts = by_module(method, [model], records)
    assert set(parts) >= {'conv', 'twice', 'head'}
    alone = dataclasses.replace(model, blocks=('^head/',))
    near(whole(parts['head']), whole(method([alone], records)))
    np.testing.assert_array_equal(  # a block is the same read by itself
        parts['conv'].read(np.array([2, 0])), whole(parts['conv'])[:, [2, 0]]
    )


@pytest.fixture(scope='module')
def texts(networks):
    model, records = networks['gpt_neo']()
    task = LanguageModeling(dataclasses.replace(model.task.config, layers=1, attention=()))
    small = Model(task, task.init(key=jax.random.key(1)), ('mlp',))
    return small, Records(records, records, batch=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    'method',
    [
        Gradients(),
        Z0Inf(16),
        pytest.param(KFAC(damping=1.0), marks=pytest.mark.slow),
        pytest.param(Compressed(), marks=pytest.mark.slow),
    ],
    ids=lambda one: one.method.name,
)
def test_tokens_add_up(texts, method):
    model, records = texts
    expected = whole(method([model], records))
    found = by_token(method, [model], records, 1)
    assert found.shape == (5, 9)
    assert (found[:, 1:4] != 0).all() and (found[:, 0] == 0).all() and (found[:, 4:] == 0).all()
    near(found.sum(axis=1), expected[:, 1])


@pytest.mark.slow
def test_tokens_are_their_own_losses(texts):
    model, records = texts
    found = by_token(Gradients(), [model], records, 2)
    row = jax.tree.map(lambda leaf: leaf[2:3], records.targets)

    def losses(chosen):
        logits = model.task.outputs(model._with(chosen), row)[0]
        tokens = row.tokens[0, 1:]
        return -jax.nn.log_softmax(logits)[np.arange(8), tokens] / (row.lengths[0] - 1)

    slopes = jax.jit(jax.jacrev(losses))(model.chosen)
    slope = jax.grad(lambda chosen, row: model.measure(chosen, row, 'loss'))
    own = jax.jit(jax.vmap(slope, (None, 0)))(model.chosen, records.examples)
    expected = sum(
        np.reshape(own[path], (5, -1)) @ np.reshape(slopes[path], (8, -1)).T for path in slopes
    )
    near(found[:, 1:7], expected[:, :6])


@pytest.mark.slow
def test_tokens_of_an_answer(texts):
    model, records = texts
    records = dataclasses.replace(records, measurement='answer_loss')
    found = by_token(Gradients(), [model], records, 2)  # its answer begins at token 3
    assert (found[:, :3] == 0).all() and (found[:, 3:7] != 0).all()
    near(found.sum(axis=1), whole(Gradients()([model], records))[:, 2])


@pytest.mark.parametrize(
    'method',
    [Gradients(), pytest.param(KFAC(damping=1.0), marks=pytest.mark.slow)],
    ids=lambda one: one.method.name,
)
@pytest.mark.slow
def test_tokens_of_pairs_are_those_of_their_targets(texts, method):
    model, records = texts
    examples, targets = np.array([4, 0, 4, 2]), np.array([3, 1, 1, 0])
    for block in (2, 0):  # tokens of a target in several blocks, and of several in one
        blocks = dataclasses.replace(records, block=block)
        found = by_token_of_pairs(method, [model], blocks, examples, targets)
        for pair, (example, target) in enumerate(zip(examples, targets.tolist(), strict=True)):
            near(found[pair], by_token(method, [model], records, target)[example])


def test_refusals(mlp, texts):
    model, examples = mlp
    records = Records(examples, examples)
    for method in (TRAK(2), Compressed(Dropout()), Mirrored()):
        with pytest.raises(ValueError, match='no sum over modules'):
            by_module(method, [model], records)
    with pytest.raises(ValueError, match='measure_tokens'):
        by_token(Gradients(), [model], records, 0)
    text, rows = texts
    with pytest.raises(ValueError, match='cosine is not linear'):
        by_token(Gradients(cosine=True), [text], rows, 0)
    with pytest.raises(ValueError, match='token_accuracy'):
        by_token(Gradients(), [text], dataclasses.replace(rows, measurement='token_accuracy'), 0)
    assert InfluenceFunction(ConjugateGradients()).linear_in_targets
