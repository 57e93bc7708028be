"""What is compiled for one model serves the next, and the next call."""

import jax
import numpy as np
import pytest
from jax import monitoring

from influence_jax import tasks
from influence_jax.attribution import (
    KFAC,
    TRAK,
    Compressed,
    EmbeddingSimilarity,
    GradientNorm,
    Gradients,
    InfluenceFunction,
    Loss,
    Model,
    Records,
    Z0Inf,
)
from influence_jax.attribution.features import GradientsOf, compiled
from influence_jax.attribution.model import Training
from influence_jax.data import Dataset
from influence_jax.models.lora import LoRA
from influence_jax.models.mlp import MLPConfig
from influence_jax.tasks.language_modeling import AdapterModeling
from influence_jax.trees import map_named

METHODS = (
    Gradients(),
    Gradients(cosine=True),
    Gradients(weights=(0.5,)),
    KFAC(),
    TRAK(4),
    Compressed(),
    InfluenceFunction(damping=0.1),
    EmbeddingSimilarity(),
    GradientNorm(),
    Loss(),
    Z0Inf(4),
)


@pytest.fixture(scope='module')
def compilations():
    """How many programs were compiled so far."""
    count = []

    def listen(event, seconds, **_):
        if event == '/jax/core/compile/backend_compile_duration':
            count.append(seconds)

    monitoring.register_event_duration_secs_listener(listen)
    return lambda: len(count)


@pytest.fixture(scope='module')
def problem():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(24, 6)).astype(np.float32)
    dataset = Dataset({'input': inputs, 'label': generator.integers(0, 3, 24)})
    return tasks.bind(tasks.Classification(MLPConfig(6, 3, (5,))), dataset)


def model(problem, seed):
    return Model(problem.task, problem.task.init(key=jax.random.key(seed)))


@pytest.mark.parametrize('method', METHODS, ids=lambda method: method.method.name)
def test_another_model_compiles_nothing(problem, compilations, method):
    records = Records(problem.examples, problem.examples, batch=8)
    before = compilations()

    def scores(seed):
        return np.asarray(method([model(problem, seed)], records).read(np.arange(24)))

    first = scores(0)
    assert compilations() > before or isinstance(method, Gradients)  # shared with other methods
    between = compilations()
    second = scores(1)
    assert compilations() == between
    assert not np.allclose(first, second)


@pytest.mark.slow
def test_the_base_of_adapters_is_no_constant(networks):
    plain, examples = networks['gpt_neo']()
    lora = LoRA(rank=2)

    def adapted(scale):
        base = map_named(lambda _, leaf: scale * leaf, plain.params)
        task = AdapterModeling(plain.task, lora).on(base)
        return Model(task, jax.tree.map(lambda leaf: leaf + 0.1, task.init(key=jax.random.key(0))))

    one, other = adapted(1.0), adapted(2.0)
    leaves = jax.tree.leaves(one)
    assert len(leaves) == len(jax.tree.leaves(one.params)) + len(jax.tree.leaves(plain.params))
    found = [compiled(GradientsOf(each, 'loss'))(examples) for each in (one, other)]
    assert not np.allclose(*found)
    expected = jax.vmap(jax.grad(lambda p, row: other.measure(p, row, 'loss')), (None, 0))(
        other.chosen, examples
    )
    whole = np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in expected.values()], 1)
    np.testing.assert_allclose(found[1], whole, rtol=1e-4, atol=1e-6)


def test_what_a_model_is_passed_on_as(problem):
    own = Model(
        problem.task,
        problem.task.init(key=jax.random.key(0)),
        blocks=('bias',),
        mask=np.ones(24, bool),
        training=Training(None, jax.random.key(0)),
    )
    passed = jax.tree.map(lambda leaf: 2 * leaf, own)
    assert passed.blocks == own.blocks
    assert passed.task == own.task
    assert (passed.mask, passed.training) == (None, None)
    assert list(passed.chosen) == list(own.chosen)
    np.testing.assert_array_equal(
        jax.tree.leaves(passed.params)[1], 2 * jax.tree.leaves(own.params)[1]
    )
