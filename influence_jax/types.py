"""Array types, the contract of a task, and the small tuples that cross from room to room.

Axis letters, everywhere: M members, N examples, T targets, B batch, K top entries,
H W C images; S tokens, V vocabulary, D hidden width, L layers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Key

AnyArray = jax.Array | np.ndarray

Masks = Bool[AnyArray, 'M N']
Measurement = Float[AnyArray, 'M T']
PRNGKey = Key[Array, '']

Params = Any
"""A pytree of arrays: whatever a task's `init` returns."""

Batch = Any
"""A pytree of arrays with a leading batch axis: rows of the task's examples or targets."""


class Variables(NamedTuple):
    """What a model with state consists of.

    params: what the optimizer changes.
    state: what training carries along and never differentiates, such as BatchNorm statistics.
    """

    params: Params
    state: Any


class Influence(NamedTuple):
    """Influence of every example on every target, in the unit of what was measured.

    values: `[N T]`; positive where including example i lowers the measurement on target t.
    standard_error: `[N T]`; of each value, NaN where a method gives none.
    """

    values: Float[AnyArray, 'N T']
    standard_error: Float[AnyArray, 'N T']

    def __repr__(self) -> str:
        return f'Influence(values and standard_error, [N T] = {list(np.shape(self.values))})'


@runtime_checkable
class Task(Protocol):
    """What the engine must know of a model and its data; it knows nothing else of them.

    Everything is written for one member. Implementations are hashable and hold no arrays.

    A model with state besides its parameters, such as BatchNorm statistics: `init` returns
    `Variables(params, state)`, which is what `train_loss` and `measure` are given, and `train_loss`
    returns the losses and the new state.
    """

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of what `measure` returns."""

    def init(self, *, key: PRNGKey) -> 'Params | Variables':
        """Returns fresh parameters, or parameters and state."""

    def train_loss(
        self, params: Any, batch: Batch, *, key: PRNGKey
    ) -> Float[Array, ' B'] | tuple[Float[Array, ' B'], Any]:
        """Training loss of each example of a batch, in nats; `key` for dropout, augmentation."""

    def measure(self, params: Any, batch: Batch) -> Mapping[str, Float[Array, ' B']]:
        """What is recorded of each target of a batch."""


@runtime_checkable
class SamplingTask(Protocol):
    """A task whose loss is minus the log-likelihood of a label that can be drawn from the model.

    What the true Fisher information is estimated from.
    """

    def sampled_loss(self, params: Any, batch: Batch, *, key: PRNGKey) -> Float[Array, ' B']:
        """What is measured as the loss, of labels drawn from the model; dropout is off."""


class Margin(NamedTuple):
    """What TRAK linearizes, of each record of a batch.

    log_odds: `[B]` log p/(1-p) of the right label; of a text, summed over its tokens.
    error: `[B]` 1 - p, the loss's slope by it; of a text, the mean over its tokens.
    """

    log_odds: Float[Array, ' B']
    error: Float[Array, ' B']


@runtime_checkable
class MarginTask(Protocol):
    """A task of labels that have probabilities: what TRAK needs."""

    def margin(self, params: Any, batch: Batch) -> Margin:
        """Log-odds of the right labels; dropout is off."""


@runtime_checkable
class TokenTask(Protocol):
    """A task of texts whose measurements are sums over tokens: what scores of tokens need."""

    def measure_tokens(self, params: Any, batch: Batch) -> Mapping[str, Float[Array, 'B S']]:
        """What each token adds to a measurement; 0 where it is not predicted, as in padding."""


@runtime_checkable
class OutputTask(Protocol):
    """A task whose measured loss is a convex function of outputs: what Gauss-Newton needs."""

    def outputs(self, params: Any, batch: Batch) -> Float[Array, 'B ...']:
        """Outputs of the network; dropout is off."""

    def output_losses(self, outputs: Float[Array, 'B ...'], batch: Batch) -> Float[Array, ' B']:
        """What is measured as the loss, by the outputs."""


@runtime_checkable
class UnitTask(Protocol):
    """A task that names the units of what it measures; otherwise the loss is in nats."""

    @property
    def units(self) -> Mapping[str, str]:
        """Of each measurement that has one."""


@runtime_checkable
class BasedTask(Protocol):
    """A task on arrays that all members share: a checkpoint to start from, a frozen base.

    The arrays are handed over when members are trained, not held: every member reads the same copy.
    """

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of what `measure` of the task returns."""

    def on(self, base: Params) -> Task:
        """The task, its base given; lives no longer than the trace of a program."""
