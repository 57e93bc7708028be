"""What a method of attribution is, and how its scores are computed block by block."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from influence_jax.attribution.features import Features
from influence_jax.attribution.model import Model, check_finite, same_network
from influence_jax.estimators import Columns
from influence_jax.estimators.estimator import Method
from influence_jax.estimators.tiling import tile_slices
from influence_jax.types import AnyArray, Batch

GIB = 2**30
_USUAL_BLOCK = 512
"""Targets at once where a larger block would save nothing."""

_SCORE_BYTES = 16
"""Of a score while it is computed: twice in float32, and once in float64."""


@dataclasses.dataclass(frozen=True)
class Records:
    """What is attributed to what, and with how much memory.

    Attributes:
        examples: pytree with a leading axis N.
        targets: pytree with a leading axis T; may be the examples.
        measurement: of the targets, whose change is told.
        loss: of the examples, which training lowers.
        memory: bytes that a method may hold at once besides the models. Where the features of all
            examples fit, they are kept; otherwise they are computed anew for each block of targets.
        batch: records whose gradients are computed at once.
        block: targets that are scored at once; 0 for as many as memory holds.
    """

    examples: Batch
    targets: Batch
    measurement: str = 'loss'
    loss: str = 'loss'
    memory: int = 2 * GIB
    batch: int = 64
    block: int = 0

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

    def unit(self, model: Model, records: Records) -> str:
        """Of the scores; empty where only their order means anything."""
        del model, records
        return ''

    @property
    def linear_in_targets(self) -> bool:
        """Whether scores are linear in the target's measurement, so that those of parts add up."""
        return False

    @property
    def for_chosen_targets(self) -> bool:
        """Whether every target costs passes over all examples, or trainings."""
        return False

    @abc.abstractmethod
    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """What is computed once, of models and examples."""

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """About how much memory it holds at once.

        By default that of a block of the targets' gradients, twice, and of a batch of examples'.
        """
        return working_bytes(models[0].size, records)

    def target_block(self, models: Sequence[Model], records: Records) -> int:
        """Returns how many targets are scored at once: `records.block`, or what memory allows.

        Examples whose features are not kept are gone through once for each block: the largest that
        fits is then the cheapest. Readers of the columns should ask for as many at once.

        Raises:
            ValueError: no models, models of different networks, or more memory than allowed.
        """
        same_network(models)

        def needed(block: int) -> int:
            return self.bytes_needed(models, dataclasses.replace(records, block=block))

        examples, targets, memory = records.num_examples, records.num_targets, records.memory
        least = min(records.block or records.batch, targets)
        if needed(least) > memory:
            raise ValueError(
                f'{self.method.title} would hold about {needed(least) / GIB:.1f} GiB, more than '
                f'memory={memory / GIB:.1f} GiB: allow more, or choose fewer parameters '
                f'(blocks=) or a smaller projection'
            )
        usual, features = min(_USUAL_BLOCK, targets), needed(least + 1) - needed(least)
        if records.block or not features:
            return least if records.block else usual
        room, of_target = memory - needed(0), features + _SCORE_BYTES * examples
        # A target's features are held twice, an example's once for each model.
        kept = len(models) * examples * features // 2
        if (beside := (room - kept) // of_target) >= least:
            return min(beside, usual)
        return max(least, min(targets, room // of_target))

    def __call__(self, models: Sequence[Model], records: Records) -> Columns:
        """Scores as columns, computed when they are read.

        Raises:
            ValueError: as `target_block`, or a record whose gradient is not finite.
        """
        records = dataclasses.replace(records, block=self.target_block(models, records))
        scorer: list[Scorer] = []

        def read(targets: Int[np.ndarray, ' t']) -> Float[AnyArray, 'N t']:
            if not scorer:
                scorer.append(self.prepare(models, records))
            blocks = tile_slices(len(targets), records.block)
            scores = [scorer[0](take_rows(records.targets, targets[block])) for block in blocks]
            return np.concatenate(scores, axis=1)

        unit = self.unit(models[0], records)
        return Columns(records.num_examples, records.num_targets, read, self.method, unit)


def working_bytes(width: int, records: Records) -> int:
    """Of a block of the targets' features, twice, and of a batch of the examples'."""
    return 4 * width * (2 * records.block + 3 * records.batch)


def batches(rows: Batch, size: int) -> Iterator[tuple[slice, Batch]]:
    """Yields blocks of rows, all of one size: the last is filled up with its last row."""
    count = len(jax.tree.leaves(rows)[0])
    size = min(size, count)
    for first in range(0, count, size):
        indices = np.minimum(np.arange(first, first + size), count - 1)
        yield slice(first, min(first + size, count)), take_rows(rows, indices)


def take_rows(rows: Batch, indices: Int[np.ndarray, ' b']) -> Batch:
    """These rows of a batch."""
    return jax.tree.map(lambda leaf: leaf[indices], rows)


def computed(
    compute: Features, rows: Batch, size: int, *, what: str
) -> Iterator[tuple[slice, Float[Array, 'b ...']]]:
    """Yields which rows, and what is computed of them, batch by batch, where it was computed.

    Raises:
        ValueError: a row of the result is not finite; `what` names it.
    """
    for some, batch in batches(rows, size):
        part, count = compute(batch), some.stop - some.start
        part = part if len(part) == count else part[:count]
        check_finite(part, what=what, first=some.start)
        yield some, part


def by_batches(
    compute: Features, rows: Batch, size: int, *, what: str
) -> Float[np.ndarray, 'n ...']:
    """All of what `computed` yields, on the host; raises as it does."""
    return np.concatenate(
        [np.asarray(part) for _, part in computed(compute, rows, size, what=what)]
    )


def features_fit(width: int, records: Records, *, models: int) -> bool:
    """Whether the features of all examples can be kept, beside what is worked on."""
    kept = 4 * models * width * records.num_examples
    scores = _SCORE_BYTES * records.block * records.num_examples
    return kept + scores + working_bytes(width, records) <= records.memory


class ExampleFeatures:
    """Features of all examples by batches, kept where those of all models fit, on their device."""

    def __init__(self, compute: Features, records: Records, *, models: int) -> None:
        self._compute, self._records = compute, records
        _, first = next(batches(records.examples, records.batch))
        self.width = jax.eval_shape(compute, first).shape[1]
        self.keep = features_fit(self.width, records, models=models)
        self._kept: list[tuple[slice, Float[Array, 'b D']]] = []

    def __iter__(self) -> Iterator[tuple[slice, Float[Array, 'b D']]]:
        """Which examples, and their features; ValueError where one is not finite."""
        if self._kept:
            yield from self._kept
            return
        kept, of = [], self._records
        for some, part in computed(self._compute, of.examples, of.batch, what='gradient'):
            if self.keep:
                kept.append((some, part))
            yield some, part
        self._kept = kept

    def grams(
        self, counted: Bool[np.ndarray, ' N'], places: Sequence[slice]
    ) -> list[Float[np.ndarray, '_ _']]:
        """Sums over some of the examples of the products of features, of each block; float64."""
        cuts = tuple((place.start, place.stop) for place in places)
        totals: list[Any] = [0.0] * len(places)
        for some, part in self:
            found = _grams(part, counted[some].astype(np.float32), cuts)
            totals = [
                total + np.asarray(one, np.float64)
                for total, one in zip(totals, found, strict=True)
            ]
        return totals


@functools.partial(jax.jit, static_argnums=2)
def _grams(
    part: Float[Array, 'b D'],
    counts: Float[AnyArray, ' b'],
    cuts: tuple[tuple[int | None, int | None], ...],
) -> list[Float[Array, '_ _']]:
    chosen = part * counts[:, None]
    pieces = [chosen[:, first:stop] for first, stop in cuts]
    return [piece.T @ piece for piece in pieces]


class FeatureScorer:
    """Scores that are inner products of features of the example and of the target."""

    def __init__(
        self,
        of_targets: Sequence[Features],
        of_examples: Sequence[Features | ExampleFeatures],
        records: Records,
        *,
        scales: Sequence[Float[np.ndarray, ' N']] | None = None,
        modules: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Features are those of each model; so are scales, which examples' scores are times.

        `modules` are the parts of the network that features belong to, and how many of each, in
        the order of the features; a module may come more than once. None where they do not.
        """
        self._of_targets, self._records, self._scales = of_targets, records, scales
        self._of_examples = [
            one
            if isinstance(one, ExampleFeatures)
            else ExampleFeatures(one, records, models=len(of_examples))
            for one in of_examples
        ]
        self.modules: dict[str, list[slice]] = {}
        first = 0
        for name, width in modules:
            self.modules.setdefault(name, []).append(slice(first, first + width))
            first += width

    def __call__(self, targets: Batch) -> Float[np.ndarray, 'N t']:
        """The mean over models."""
        return self._products(targets, [[slice(None)]])[0]

    def by_module(self, targets: Batch) -> Float[np.ndarray, 'modules N t']:
        """The mean over models, of the features of each module alone, in the order of `modules`."""
        return self._products(targets, list(self.modules.values()))

    def _products(
        self, targets: Batch, modules: Sequence[Sequence[slice]]
    ) -> Float[np.ndarray, 'modules N t']:
        size = self._records.batch
        total = np.zeros((len(modules), self._records.num_examples, 1))
        for model, of_targets in enumerate(self._of_targets):
            parts = [part for _, part in computed(of_targets, targets, size, what='gradient')]
            features = jnp.concatenate(parts).T
            pieces = [[(place, features[place]) for place in module] for module in modules]
            scores = np.concatenate(
                [_module_products(part, pieces) for _, part in self._of_examples[model]], axis=1
            )
            if self._scales is not None:
                scores = self._scales[model][None, :, None] * scores
            total = total + scores
        return np.asarray(total / len(self._of_targets), np.float32)


def _module_products(
    examples: Float[Array, 'b D'], pieces: Sequence[Sequence[tuple[slice, Array]]]
) -> Float[np.ndarray, 'modules b t']:
    """Products with the targets' features `[d t]` of each module, by places of the examples'."""
    return np.stack(
        [sum(np.asarray(examples[:, place] @ own) for place, own in module) for module in pieces]
    )
