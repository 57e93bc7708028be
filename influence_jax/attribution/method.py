"""What a method of attribution is, and how its scores are computed block by block."""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from influence_jax.attribution.model import Model, check_finite, same_network
from influence_jax.estimators import Columns
from influence_jax.estimators.estimator import Method
from influence_jax.types import AnyArray, Batch

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Records:
    """What is attributed to what, and with how much memory.

    Attributes:
        examples: pytree with a leading axis N.
        targets: pytree with a leading axis T; may be the examples.
        measurement: of the targets, whose change is told.
        loss: of the examples, which training lowers.
        memory: bytes that a method may hold at once besides the models.
        batch: records whose gradients are computed at once.
        block: targets that are scored at once; the gradients of all examples are computed for each
            block anew where they are not kept.
    """

    examples: Batch
    targets: Batch
    measurement: str = 'loss'
    loss: str = 'loss'
    memory: int = 2 * GIB
    batch: int = 64
    block: int = 512

    @property
    def num_examples(self) -> int:
        """N."""
        return len(jax.tree.leaves(self.examples)[0])

    @property
    def num_targets(self) -> int:
        """T."""
        return len(jax.tree.leaves(self.targets)[0])


Scorer = Callable[[Batch], Float[np.ndarray, 'N t']]
"""A method made ready for models and examples: scores of every example for a block of targets."""


class Attribution(abc.ABC):
    """A method: scores `[N T]`, positive where including the example lowers the measurement.

    Implementations are frozen dataclasses of their settings.
    """

    @property
    @abc.abstractmethod
    def method(self) -> Method:
        """Its name and what its scores are, in words."""

    @property
    def unit(self) -> str:
        """Of the scores; empty where only their order means anything."""
        return ''

    @abc.abstractmethod
    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """What is computed once, of models and examples."""

    @abc.abstractmethod
    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """About how much memory it holds at once."""

    def __call__(self, models: Sequence[Model], records: Records) -> Columns:
        """Scores as columns, computed when they are read.

        Raises:
            ValueError: no models, models of different networks, more memory than allowed, or a
                record whose gradient is not finite.
        """
        same_network(models)
        needed = self.bytes_needed(models, records)
        if needed > records.memory:
            raise ValueError(
                f'{self.method.title} would hold about {needed / GIB:.1f} GiB, more than '
                f'memory={records.memory / GIB:.1f} GiB: allow more, or choose fewer parameters '
                f'(blocks=) or a smaller projection'
            )
        scorer: list[Scorer] = []

        def read(targets: Int[np.ndarray, ' t']) -> Float[AnyArray, 'N t']:
            if not scorer:
                scorer.append(self.prepare(models, records))
            return scorer[0](jax.tree.map(lambda leaf: leaf[targets], records.targets))

        return Columns(records.num_examples, records.num_targets, read, self.method, self.unit)


def batches(rows: Batch, size: int) -> Iterator[tuple[slice, Batch]]:
    """Yields blocks of rows, all of one size: the last is filled up with its last row."""
    count = len(jax.tree.leaves(rows)[0])
    size = min(size, count)
    for first in range(0, count, size):
        indices = np.minimum(np.arange(first, first + size), count - 1)
        yield slice(first, min(first + size, count)), _rows(rows, indices)


def _rows(rows: Batch, indices: Int[np.ndarray, ' b']) -> Batch:
    return jax.tree.map(lambda leaf: leaf[indices], rows)


def by_batches(compute: Any, rows: Batch, size: int, *, what: str) -> Float[np.ndarray, 'n ...']:
    """`compute` of all rows, batch by batch, on the host.

    Raises:
        ValueError: a row of the result is not finite; `what` names it.
    """
    parts = []
    for some, batch in batches(rows, size):
        part = np.asarray(compute(batch))[: some.stop - some.start]
        check_finite(part, what=what, first=some.start)
        parts.append(part)
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureScorer:
    """Scores that are inner products: features of the example times features of the target.

    Attributes:
        of_targets: for each model, from a batch of targets to `[b D]`.
        of_examples: for each model, from a batch of examples to `[b D]`.
        weights: `[N]` what each example's scores are multiplied by; None for 1.
        records: what is attributed.
        kept: whether features of all examples are kept from the first block of targets on.
    """

    of_targets: Sequence[Any]
    of_examples: Sequence[Any]
    records: Records
    kept: bool
    weights: Float[np.ndarray, ' N'] | None = None
    _features: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def __call__(self, targets: Batch) -> Float[np.ndarray, 'N t']:
        """The mean over models."""
        size, whole = self.records.batch, None
        for number, of_targets in enumerate(self.of_targets):
            features = by_batches(of_targets, targets, size, what='gradient')
            transposed = jnp.asarray(features.T)
            if self.kept:
                if number not in self._features:
                    self._features[number] = by_batches(
                        self.of_examples[number], self.records.examples, size, what='gradient'
                    )
                scores = self._features[number] @ features.T
            else:
                multiply = jax.jit(
                    lambda batch, of=self.of_examples[number], t=transposed: of(batch) @ t
                )
                scores = by_batches(multiply, self.records.examples, size, what='gradient')
            whole = scores if whole is None else whole + scores
        assert whole is not None
        mean = whole / len(self.of_targets)
        return mean if self.weights is None else mean * self.weights[:, None]


def _times(features: Callable[[Batch], Array], of_targets: Float[Array, 'D t']) -> Any:
    """Features of a batch times those of the targets, in one program: they are never kept."""
    return jax.jit(lambda batch: features(batch) @ of_targets)
