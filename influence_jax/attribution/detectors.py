"""Detectors of mislabelled and detrimental examples: one number an example, high if suspicious."""

import abc
import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from influence_jax.attribution.features import (
    Features,
    GradientsOf,
    LabelErrors,
    Losses,
    Norms,
    compiled,
)
from influence_jax.attribution.gradients import Gradients
from influence_jax.attribution.kfac import KFAC
from influence_jax.attribution.method import GIB, Attribution, Records, by_batches
from influence_jax.attribution.model import Model, same_network
from influence_jax.estimators.estimator import Method
from influence_jax.estimators.tiling import tile_slices


class Detector(abc.ABC):
    """A score of every example, without a target; implementations are frozen dataclasses."""

    @property
    @abc.abstractmethod
    def method(self) -> Method:
        """Its name and what its scores are, in words."""

    @abc.abstractmethod
    def __call__(self, models: Sequence[Model], records: Records) -> Float[np.ndarray, ' N']:
        """Scores of the examples, the mean over models; high ones are suspicious.

        Raises:
            ValueError: no models, models of different networks, or an example whose score is not
                finite.
        """


def last_layer(model: Model, records: Records) -> Model:
    """The model with gradients by its last linear layer alone, or as it is where it has blocks.

    Raises:
        ValueError: it has no linear layer.
    """
    if model.blocks:
        return model
    layers = model.network(records.examples, records.loss).layers
    if not layers:
        raise ValueError('the model has no linear layer: choose parameters (blocks=)')
    paths = [layers[-1].path, layers[-1].bias]
    blocks = tuple(f'^{re.escape(path)}$' for path in paths if path is not None)
    return dataclasses.replace(model, blocks=blocks)


@dataclasses.dataclass(frozen=True)
class OutlierGradients(Detector):
    """How far an example's gradient is an outlier among all, by an isolation forest.

    Chhabra et al. 2024, "Outlier gradient analysis" (arXiv 2405.03869): scores are minus those of
    `sklearn.ensemble.IsolationForest`, of the gradients by the last layer (or by a model's
    `blocks`), which are held in memory.

    Attributes:
        trees: of the forest.
        seed: of the forest.
    """

    trees: int = 100
    seed: int = 0

    @property
    def method(self) -> Method:
        """See `Detector`."""
        return Method(
            'outlier_gradients',
            'outlier gradients',
            "how far the example's gradient is an outlier, by an isolation forest",
        )

    def __call__(self, models: Sequence[Model], records: Records) -> Float[np.ndarray, ' N']:
        """See `Detector`; also raises ValueError where gradients need more than `memory`."""
        from sklearn.ensemble import IsolationForest  # slow to import

        def outlying(model: Model) -> Float[np.ndarray, ' N']:
            needed = 4 * records.num_examples * model.size
            if needed > records.memory:
                raise ValueError(
                    f'gradients of all examples would hold {needed / GIB:.1f} GiB, more than '
                    f'memory={records.memory / GIB:.1f} GiB: allow more, or choose fewer '
                    f'parameters (blocks=)'
                )
            forest = IsolationForest(n_estimators=self.trees, random_state=self.seed)
            gradients = _of_examples(GradientsOf(model, records.loss), records)
            return -forest.fit(gradients).score_samples(gradients)

        return _mean([outlying(last_layer(model, records)) for model in _checked(models)])


@dataclasses.dataclass(frozen=True)
class GradientSize(Detector):
    """The norm of an example's gradient by the last layer, or by a model's `blocks`.

    The cheaper detectors of outlier gradients (arXiv 2405.03869).

    Attributes:
        order: 1 for the sum of absolute values, 2 for the Euclidean norm.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f'order={self.order} of the norm must be 1 or 2')

    @property
    def method(self) -> Method:
        """See `Detector`."""
        return Method(
            f'gradient_l{self.order}',
            f'gradient, L{self.order} norm',
            f"the L{self.order} norm of the example's gradient by the last layer",
        )

    def __call__(self, models: Sequence[Model], records: Records) -> Float[np.ndarray, ' N']:
        """See `Detector`."""

        def sizes(model: Model) -> Float[np.ndarray, ' N']:
            return _of_examples(Norms(GradientsOf(model, records.loss), self.order), records)

        return _mean([sizes(last_layer(model, records)) for model in _checked(models)])


@dataclasses.dataclass(frozen=True)
class SelfInfluence(Detector):
    """What an example does to itself: the diagonal of a method's scores.

    Attributes:
        of: the method; all entries of a block are computed, of which the diagonal is read.
    """

    of: Attribution

    @property
    def method(self) -> Method:
        """See `Detector`."""
        name, title = self.of.method.name, self.of.method.title
        return Method(
            f'self_{name}', f'self-influence, {title}', f"the example's own score by {title}"
        )

    def __call__(self, models: Sequence[Model], records: Records) -> Float[np.ndarray, ' N']:
        """See `Detector`; also raises what the method does."""
        records = dataclasses.replace(records, targets=records.examples)
        columns, found = self.of(models, records), []
        for block in tile_slices(records.num_examples, self.of.target_block(models, records)):
            own = np.arange(block.start, block.stop)
            found.append(columns.column(own).values[own, own - block.start])
        return np.concatenate(found).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class OwnLoss(Detector):
    """The example's loss."""

    @property
    def method(self) -> Method:
        """See `Detector`."""
        return Method('own_loss', 'loss', "the example's loss")

    def __call__(self, models: Sequence[Model], records: Records) -> Float[np.ndarray, ' N']:
        """See `Detector`."""

        def losses(model: Model) -> Float[np.ndarray, ' N']:
            return _of_examples(Losses(model, records.loss), records)

        return _mean([losses(model) for model in _checked(models)])


@dataclasses.dataclass(frozen=True)
class LowConfidence(Detector):
    """1 - p(label); of a text, the mean over its tokens."""

    @property
    def method(self) -> Method:
        """See `Detector`."""
        return Method('low_confidence', 'low confidence', "one minus the label's probability")

    def __call__(self, models: Sequence[Model], records: Records) -> Float[np.ndarray, ' N']:
        """See `Detector`; also raises ValueError where a task has no probabilities of labels."""

        def errors(model: Model) -> Float[np.ndarray, ' N']:
            return _of_examples(LabelErrors(model), records)

        return _mean([errors(model) for model in _checked(models)])


DETECTORS: tuple[Detector, ...] = (
    OutlierGradients(),
    GradientSize(1),
    GradientSize(2),
    SelfInfluence(Gradients()),
    SelfInfluence(KFAC()),
    OwnLoss(),
    LowConfidence(),
)
"""The detectors of this package with their own settings; any method makes one more."""


def _checked(models: Sequence[Model]) -> Sequence[Model]:
    same_network(models)
    return models


def _of_examples(features: Features, records: Records) -> Float[np.ndarray, 'N ...']:
    return by_batches(compiled(features), records.examples, records.batch, what='score')


def _mean(scores: Sequence[Float[np.ndarray, ' N']]) -> Float[np.ndarray, ' N']:
    return np.mean(np.asarray(scores, np.float64), axis=0)
