"""Members that start from parameters they share, instead of from fresh ones."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from influence_jax.types import Batch, Params, PRNGKey, Task


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """A `BasedTask`: the task, but every member begins with the base's parameters.

    Attributes:
        task: what is trained and measured.
    """

    task: Task

    @property
    def measurements(self) -> tuple[str, ...]:
        """Those of the task."""
        return self.task.measurements

    def on(self, base: Params) -> Task:
        """The task, from these parameters on."""
        return _Started(self.task, base)


@dataclasses.dataclass(frozen=True, eq=False)
class _Started:
    task: Task
    base: Params

    @property
    def measurements(self) -> tuple[str, ...]:
        return self.task.measurements

    def init(self, *, key: PRNGKey) -> Params:
        del key
        return jax.tree.map(jnp.asarray, self.base)

    def train_loss(self, params: Params, batch: Batch, *, key: PRNGKey) -> Float[Array, ' B']:
        return self.task.train_loss(params, batch, key=key)

    def measure(self, params: Params, batch: Batch) -> Mapping[str, Float[Array, ' B']]:
        return self.task.measure(params, batch)
