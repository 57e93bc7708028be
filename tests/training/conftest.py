"""A task so small that the engine compiles in a moment."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from influence_jax.training import Program

EXAMPLES, FEATURES = 24, 3


class Points(NamedTuple):
    x: np.ndarray
    y: np.ndarray


@dataclasses.dataclass(frozen=True)
class LinearRegression:
    """Squared error; `noise` on the inputs of training makes the loss's key count.

    `traces` counts how often each function runs as Python, which under `jit` is when it is traced.
    """

    noise: float = 0.0
    measurements = ('loss', 'prediction')
    traces: ClassVar[list[str]] = []

    def init(self, *, key):
        self.traces.append('init')
        return {'w': jax.random.normal(key, (FEATURES,)), 'b': jnp.zeros(())}

    def train_loss(self, params, batch, *, key):
        self.traces.append('train_loss')
        noise = self.noise * jax.random.normal(key, batch.x.shape) if self.noise else 0.0
        return (self._predict(params, batch.x + noise) - batch.y) ** 2

    def measure(self, params, batch):
        self.traces.append('measure')
        prediction = self._predict(params, batch.x)
        return {'loss': (prediction - batch.y) ** 2, 'prediction': prediction}

    def _predict(self, params, x):
        return x @ params['w'] + params['b'][None]


@dataclasses.dataclass(frozen=True)
class FromBase(LinearRegression):
    """The same, from parameters that all members share."""

    base: dict | None = dataclasses.field(default=None, compare=False)

    def on(self, base):
        return dataclasses.replace(self, base=base)

    def init(self, *, key):
        return self.base


@pytest.fixture(scope='session')
def points():
    """24 points, each its own example and target."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, FEATURES)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5]) + rng.normal(size=EXAMPLES)
    return Points(x, y.astype(np.float32))


@pytest.fixture(scope='session')
def make_program():
    """A program for the points; the arguments replace its defaults."""

    def make(*, noise=0.0, **changes):
        fields = {
            'task': LinearRegression(noise),
            'optimizer': optax.sgd(0.05),
            'steps': 5,
            'batch_size': 4,
            'measure_batch': 10,
            'smallest_subset': 4,
        }
        return Program(**{**fields, **changes})

    return make


@pytest.fixture(scope='session')
def from_base():
    """A task whose members start from a base, and the base."""
    return FromBase(), {'w': np.array([3.0, 1.0, -2.0], np.float32), 'b': np.float32(0.7)}


@pytest.fixture
def traces():
    """Which functions of the task have been traced since the test began."""
    LinearRegression.traces.clear()
    return LinearRegression.traces
