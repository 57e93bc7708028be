"""Small trained-looking networks of every kind, and records for them."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from influence_jax import tasks
from influence_jax.attribution import Model
from influence_jax.data import Dataset
from influence_jax.models import ResNetConfig
from influence_jax.models.gpt_neo import GPTNeoConfig
from influence_jax.models.mlp import MLPConfig
from influence_jax.tasks.language_modeling import LanguageModeling, TokenBatch


class Strided(nnx.Module):
    """A convolution of stride 2 with a bias, BatchNorm, and a layer that is used twice."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.twice = nnx.Linear(4, 4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.conv(x)))
        return self.head(self.twice(jax.nn.tanh(self.twice(x))).mean((1, 2)))


def classifier(make, inputs, *, count=7):
    generator = np.random.default_rng(0)
    dataset = Dataset(
        {
            'input': generator.normal(size=(count, *inputs)).astype(np.float32),
            'label': generator.integers(0, 3, count),
        }
    )
    problem = tasks.bind(tasks.Classification(make), dataset)
    return Model(problem.task, initial(problem.task)), problem.examples


def initial(task):
    return jax.jit(lambda: task.init(key=jax.random.key(1)))()


def language():
    generator = np.random.default_rng(0)
    config = GPTNeoConfig(vocab_size=30, hidden=8, layers=2, heads=2, max_positions=12)
    task = LanguageModeling(config)
    records = TokenBatch(
        generator.integers(0, 30, (5, 9)).astype(np.int32),
        np.array([9, 4, 7, 9, 2], np.int32),
        np.array([0, 2, 3, 0, 0], np.int32),
    )
    return Model(task, initial(task)), records


NETWORKS = {
    'mlp': functools.partial(classifier, MLPConfig(6, 3, (5,)), (6,)),
    'resnet': functools.partial(classifier, ResNetConfig(3, 8, (1, 1), 4), (16, 16, 3)),
    'strided': functools.partial(classifier, Strided, (9, 9, 3)),
    'gpt_neo': language,
}
NETWORKS = {name: functools.cache(make) for name, make in NETWORKS.items()}


_LARGE = dict.fromkeys(('resnet', 'gpt_neo'), pytest.mark.slow)


@pytest.fixture(
    scope='module', params=[pytest.param(name, marks=_LARGE.get(name, ())) for name in NETWORKS]
)
def network(request):
    """A model and its examples."""
    return NETWORKS[request.param]()


@pytest.fixture(scope='module')
def mlp():
    return NETWORKS['mlp']()


@pytest.fixture(scope='session')
def networks():
    """How to make each network, by name."""
    return NETWORKS
