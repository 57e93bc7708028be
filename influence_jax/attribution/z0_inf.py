"""Influence from losses alone, at some parameters beside those of the model: no gradients at all.

Our reconstruction of Z0-Inf (Kokhlikyan et al. 2025, arXiv 2510.11832), of which there is no public
code. A difference of losses is a gradient along a direction, and the product of two records'
differences, summed over directions, is the product of their gradients in the space that these span.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from influence_jax.attribution.features import Features, Losses, compiled, features, static
from influence_jax.attribution.method import (
    Attribution,
    FeatureScorer,
    Records,
    Scorer,
    working_bytes,
)
from influence_jax.attribution.model import Model
from influence_jax.estimators.estimator import Method
from influence_jax.types import Batch

RELATIVE_SCALE = 0.01
"""Of the norm of the parameters: how large perturbations are by default."""


@dataclasses.dataclass(frozen=True)
class Z0Inf(Attribution):
    """score(i, t) = mean over perturbations e of d_i(e) d_t(e) / scale^2.

    d(e) = (loss at parameters + e - loss at parameters - e) / 2, with e Gaussian of standard
    deviation `scale`. The mean is the covariance of both records' losses, without what is even in
    e, and its expectation for small perturbations is the product of gradients (for quadratic losses
    it is that exactly). Its noise is that of a random projection to `perturbations` dimensions.

    Attributes:
        perturbations: K; each takes two forward passes over all records.
        scale: of every parameter; by default such that a perturbation is a hundredth of the
            parameters' norm.
        seed: of perturbations, others for each model.
    """

    perturbations: int = 64
    scale: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.perturbations < 1:
            raise ValueError(f'perturbations={self.perturbations} must be at least 1')
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f'scale={self.scale} must be positive')

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method(
            'z0inf',
            'Z0-Inf',
            "the covariance of both records' losses under perturbations of the "
            'parameters (reconstruction)',
        )

    @property
    def linear_in_targets(self) -> bool:
        """See `Attribution`."""
        return True

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """Differences of losses, and a few copies of the parameters."""
        return working_bytes(self.perturbations, records) + 16 * models[0].size

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        of_targets, of_examples = [], []
        for number, model in enumerate(models):
            key = jax.random.fold_in(jax.random.key(self.seed), number)
            of_targets.append(self._differences(model, records.measurement, key))
            of_examples.append(self._differences(model, records.loss, key))
        return FeatureScorer(of_targets, of_examples, records)

    def _differences(self, model: Model, measurement: str, key: Array) -> Features:
        start, _ = ravel_pytree(model.chosen)
        scale = self.scale or RELATIVE_SCALE * jnp.linalg.norm(start) / math.sqrt(model.size)

        return compiled(_Differences(model, key, scale, measurement, self.perturbations))


@features
class _Differences:
    model: Model
    key: Key[Array, '']
    scale: float | Array
    measurement: str = static()
    perturbations: int = static()

    def __call__(self, batch: Batch) -> Float[Array, 'b K']:
        start, unravel = ravel_pytree(self.model.chosen)

        def difference(number: Array) -> Float[Array, ' b']:
            key = jax.random.fold_in(self.key, number)
            moved = self.scale * jax.random.normal(key, start.shape, start.dtype)
            up, down = (
                self.model.losses(unravel(start + way * moved), batch, self.measurement)
                for way in (1, -1)
            )
            return (up - down) / (2 * self.scale)

        found = jax.lax.map(difference, jnp.arange(self.perturbations))
        return found.T / math.sqrt(self.perturbations)


@dataclasses.dataclass(frozen=True)
class Z0InfCheckpoints(Attribution):
    """score(i, t) = sum over steps k of rate_k d_ik d_tk / |step k|^2; see the module.

    Models are checkpoints of one training in their order, d_k is the change of a record's loss from
    checkpoint k to the next, and |step k| the distance of their parameters: TracIn, with gradients
    known along the way that training took only. A record is computed once at each checkpoint.

    Attributes:
        rates: the learning rate of each step from a checkpoint to the next.
    """

    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        if any(rate < 0 for rate in self.rates):
            raise ValueError(f'rates={self.rates} are learning rates: none may be negative')

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method(
            'z0inf_checkpoints',
            'Z0-Inf over checkpoints',
            'the sum over checkpoints of the product of both '
            "records' changes of loss (reconstruction)",
        )

    @property
    def linear_in_targets(self) -> bool:
        """See `Attribution`."""
        return True

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """Changes of losses, and the parameters of all checkpoints."""
        return working_bytes(len(models), records) + 12 * len(models) * models[0].size

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`.

        Raises:
            ValueError: not one rate for each step, or a step of no length.
        """
        if len(self.rates) != len(models) - 1:
            raise ValueError(
                f'{len(self.rates)} rates for {len(models)} checkpoints: give one for each step '
                f'from a checkpoint to the next'
            )
        places = jnp.stack([ravel_pytree(model.chosen)[0] for model in models])
        lengths = np.linalg.norm(np.diff(np.asarray(places), axis=0), axis=1)
        if not lengths.all():
            step = int(np.flatnonzero(lengths == 0)[0])
            raise ValueError(f'checkpoints {step} and {step + 1} are the same: leave one out')
        weights = jnp.asarray(np.sqrt(self.rates) / lengths)
        of_targets, of_examples = (
            compiled(_Changes(tuple(Losses(model, name) for model in models), weights))
            for name in (records.measurement, records.loss)
        )
        return FeatureScorer([of_targets], [of_examples], records)


@features
class _Changes:
    losses: tuple[Losses, ...]
    weights: Float[Array, ' k']

    def __call__(self, batch: Batch) -> Float[Array, 'b k']:
        losses = jnp.stack([of(batch) for of in self.losses], axis=1)
        return jnp.diff(losses, axis=1) * self.weights[None]
