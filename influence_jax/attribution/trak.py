"""TRAK: the linearized log-odds of the right label, projected (Park et al. 2023, 2303.14186)."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from influence_jax.attribution.features import LabelErrors, Times, compiled, features, static
from influence_jax.attribution.method import (
    Attribution,
    ExampleFeatures,
    FeatureScorer,
    Records,
    Scorer,
    by_batches,
    working_bytes,
)
from influence_jax.attribution.model import Model
from influence_jax.attribution.projection import project
from influence_jax.estimators.estimator import Method
from influence_jax.types import Batch

_LARGEST = 2048
_EXAMPLES_A_FEATURE = 2


@dataclasses.dataclass(frozen=True)
class TRAK(Attribution):
    """The influence of examples on the log-odds of a target's label, of the model linearized.

    With features phi, the projected gradients of log p/(1-p) of the right label, and Phi those of
    the examples that a model was trained on, score(i, t) = mean over models of
    phi_i (Phi^T Phi)^-1 phi_t times mean over models of 1 - p_i: the paper's estimator, a product
    of means. What including i adds to the log-odds of t, in nats. The public code divides the
    features by their mean absolute value; here nothing is divided.

    The targets' `measurement` plays no part. Log-odds of a text are summed over its tokens.

    Attributes:
        size: of the projection; by default half of the least number of examples that a model was
            trained on, at most 2,048 and half of the parameters.
        damping: added to every eigenvalue of Phi^T Phi, as a share of their mean; 0 in the paper.
        seed: of the projections, another one for each model.
    """

    size: int | None = None
    damping: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f'size={self.size} of the projection must be at least 1')
        if not self.damping >= 0:
            raise ValueError(f'damping={self.damping} must not be negative')

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method('trak', 'TRAK', "the example's effect on the target's log-odds by TRAK")

    def unit(self, model: Model, records: Records) -> str:
        """See `Attribution`."""
        del model, records
        return 'nats'

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """Features, and the gradients of a batch that are projected."""
        size = self.projection_size(models, records)
        gradients = 8 * models[0].size * records.batch
        return working_bytes(size, records) + gradients + (24 + 4 * len(models)) * size**2

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`.

        Raises:
            ValueError: a task without log-odds, or, without damping, projected gradients of too low
                a rank.
        """
        size = self.projection_size(models, records)
        of_targets, of_examples, errors = [], [], []
        for number, model in enumerate(models):
            key = jax.random.fold_in(jax.random.key(self.seed), number)
            projected = _Projected(model, key, size)
            examples = ExampleFeatures(compiled(projected), records, models=len(models))
            (gram,) = examples.grams(model.trained_on(records.num_examples), [slice(None)])
            inverse = jnp.asarray(self._inverse(gram, number), jnp.float32)
            of_targets.append(compiled(Times(projected, (inverse,))))
            of_examples.append(examples)
            errors.append(
                by_batches(
                    compiled(LabelErrors(model)), records.examples, records.batch, what='error'
                )
            )
        products = FeatureScorer(of_targets, of_examples, records)
        mean_error = np.mean(errors, axis=0)[:, None]
        return lambda targets: mean_error * products(targets)

    def projection_size(self, models: Sequence[Model], records: Records) -> int:
        """`size`, or what stands for it."""
        if self.size is not None:
            return self.size
        trained_on = min(int(model.trained_on(records.num_examples).sum()) for model in models)
        most = min(trained_on // _EXAMPLES_A_FEATURE, models[0].size // 2)
        return max(1, min(_LARGEST, most))

    def _inverse(self, gram: Float[np.ndarray, 'D D'], model: int) -> Float[np.ndarray, 'D D']:
        values, vectors = np.linalg.eigh(gram)
        values = values + self.damping * values.mean()
        rank = int((values > values[-1] * len(gram) * np.finfo(np.float32).eps).sum())
        if rank < len(gram):
            raise ValueError(
                f'the projected gradients of model {model} have rank {rank} of size={len(gram)}: '
                f'choose a smaller size, damping, another seed, or models trained on more examples'
            )
        return (vectors / values) @ vectors.T


@features
class _Projected:
    """Gradients of the log-odds, projected."""

    model: Model
    key: Key[Array, '']
    size: int = static()

    def __call__(self, batch: Batch) -> Float[Array, 'b D']:
        network = self.model.network_of(
            lambda chosen, row: self.model.margin(chosen, row).log_odds, batch
        )
        return project(network.gradients(self.model.chosen, batch), self.size, key=self.key)
