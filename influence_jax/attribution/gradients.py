"""Scores from gradients alone: their inner product, its cosine, and TracIn over checkpoints."""

import dataclasses
from collections.abc import Sequence

from jaxtyping import Array, Float

from influence_jax.attribution.features import (
    Directions,
    Features,
    GradientsOf,
    compiled,
    features,
)
from influence_jax.attribution.method import Attribution, FeatureScorer, Records, Scorer
from influence_jax.attribution.model import Model
from influence_jax.estimators.estimator import Method
from influence_jax.types import Batch


@features
class _Scaled:
    of: Features
    scale: float | Array

    def __call__(self, batch: Batch) -> Float[Array, 'b D']:
        return self.scale * self.of(batch)


@dataclasses.dataclass(frozen=True)
class Gradients(Attribution):
    """Inner products of gradients, the first-order effect of one step on the example.

    Attributes:
        cosine: of normalized gradients: an example of large gradient is then no longer strong for
            every target.
        weights: one a model, such as the learning rates of checkpoints; by default all count alike.
            With them this is TracIn (Pruthi et al. 2020, arXiv 2002.08484, equation 1), in the unit
            of the measurement a step if batches have one example.
    """

    cosine: bool = False
    weights: tuple[float, ...] = ()

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        if self.weights:
            return Method(
                'tracin',
                'TracIn',
                "the sum over checkpoints of learning rate times the product of both records' "
                'gradients',
            )
        if self.cosine:
            return Method('cosine', 'gradient cosine', "the cosine of both records' gradients")
        return Method('dot', 'gradient product', "the inner product of both records' gradients")

    @property
    def linear_in_targets(self) -> bool:
        """See `Attribution`."""
        return not self.cosine

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        if self.weights and len(self.weights) != len(models):
            raise ValueError(f'{len(self.weights)} weights for {len(models)} models: give one each')
        scales = [len(models) * weight for weight in self.weights] or [1.0] * len(models)
        of_targets, of_examples = [], []
        for model, scale in zip(models, scales, strict=True):
            target: Features = GradientsOf(model, records.measurement)
            example: Features = GradientsOf(model, records.loss)
            if self.cosine:
                target, example = Directions(target), Directions(example)
            of_targets.append(compiled(_Scaled(target, scale)))
            of_examples.append(compiled(example))
        return FeatureScorer(of_targets, of_examples, records, modules=models[0].modules)
