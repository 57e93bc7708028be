"""What every method is to be compared with: scores that know next to nothing of the training."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

from influence_jax.attribution.features import (
    Directions,
    Features,
    GradientsOf,
    Losses,
    Norms,
    compiled,
    features,
    static,
)
from influence_jax.attribution.method import (
    Attribution,
    FeatureScorer,
    Records,
    Scorer,
    by_batches,
)
from influence_jax.attribution.model import Model
from influence_jax.data.pixel_distance import rms_distances
from influence_jax.estimators.estimator import Method
from influence_jax.trees import named
from influence_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class GradientNorm(Attribution):
    """The norm of the example's gradient, whatever the target: every target's column is the same.

    So margins do not tell targets apart, and orders within a column have ties only where norms do.
    """

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method(
            'gradient_norm', 'gradient norm', "the norm of the example's gradient, for all targets"
        )

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """The gradients of a batch, and two numbers for each score."""
        return 12 * models[0].size * records.batch + _score_bytes(records)

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        norms = [Norms(GradientsOf(model, records.loss)) for model in models]
        return _whatever_the_target(norms, records)


@dataclasses.dataclass(frozen=True)
class Loss(Attribution):
    """The example's own loss, whatever the target: every target's column is the same."""

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method('loss', 'loss', "the example's loss, for all targets")

    def unit(self, model: Model, records: Records) -> str:
        """See `Attribution`."""
        return model.unit(records.loss)

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """Two numbers for each score."""
        return _score_bytes(records)

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        return _whatever_the_target([Losses(model, records.loss) for model in models], records)


@dataclasses.dataclass(frozen=True)
class EmbeddingSimilarity(Attribution):
    """The cosine of what enters the last layer, of the example and of the target.

    The mean over positions that the loss depends on: not over padding.
    """

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method(
            'embedding', 'embedding similarity', 'the cosine of what enters the last layer'
        )

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""

        def of(measurement: str) -> list[Features]:
            return [compiled(Directions(_Embeddings(model, measurement))) for model in models]

        return FeatureScorer(of(records.measurement), of(records.loss), records)


@features
class _Embeddings:
    model: Model
    measurement: str = static()

    def __call__(self, batch: Batch) -> Float[Array, 'b D']:
        network = self.model.network(batch, self.measurement)
        if not network.layers:
            raise ValueError('no linear layer is among the parameters: choose others (blocks=)')
        last = network.layers[-1]

        def mean(x: Array, gradient: Array) -> Float[Array, ' D']:
            positions = last.rows(x)[:, : last.inputs - (last.bias is not None)]
            counts = jnp.any(last.columns(gradient) != 0, axis=1)
            return counts.astype(positions.dtype) @ positions

        found = network.factors(self.model.chosen, batch)
        return jax.vmap(mean)(found.inputs[-1], found.gradients[-1])


@dataclasses.dataclass(frozen=True)
class PixelDistance(Attribution):
    """Minus the root-mean-square distance of the inputs, bytes as numbers from 0 to 1.

    Attributes:
        array: path of the inputs among the records' arrays.
    """

    array: str = 'inputs'

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method('pixel_distance', 'pixel distance', 'minus the distance of the inputs')

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """All inputs as numbers."""
        width = math.prod(np.shape(named(records.examples).get(self.array, np.zeros(1)))[1:])
        return 8 * width * (records.num_examples + records.block) + _score_bytes(records)

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`.

        Raises:
            ValueError: the records have no such array.
        """
        examples = self._pixels(records.examples)
        return lambda targets: -rms_distances(examples, self._pixels(targets))

    def _pixels(self, rows: Batch) -> Float[np.ndarray, 'n D']:
        arrays = named(rows)
        if self.array not in arrays:
            raise ValueError(f'no array {self.array!r} among {", ".join(arrays)}: name it (array=)')
        values = np.asarray(arrays[self.array])
        scale = 255 if values.dtype == np.uint8 else 1
        return values.reshape(len(values), -1).astype(np.float32) / scale


@dataclasses.dataclass(frozen=True)
class BM25(Attribution):
    """Okapi BM25 of tokens: the target is the query, examples are the documents.

    Robertson and Zaragoza (2009), equation 3.15, with the inverse document frequency of Lucene,
    log(1 + (N - n + 0.5) / (n + 0.5)), which is never negative. A token that the target has twice
    counts twice.

    Attributes:
        k1: how soon another occurrence of a token adds nothing.
        b: how much the lengths of documents count, from 0 to 1.
    """

    k1: float = 1.5
    b: float = 0.75

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method('bm25', 'BM25', "Okapi BM25 of the example's tokens for the target's")

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """Token counts, and two numbers for each score."""
        tokens = np.size(named(records.examples).get('tokens', ()))
        return 24 * tokens + _score_bytes(records)

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`.

        Raises:
            ValueError: the records have no `tokens` and `lengths`.
        """
        vocabulary = 1 + max(
            int(_tokens(rows)[0].max()) for rows in (records.examples, records.targets)
        )
        counts = _token_counts(records.examples, vocabulary)
        length = counts.sum(axis=1)
        having = np.bincount(counts.indices, minlength=vocabulary)
        rarity = np.log1p((len(length) - having + 0.5) / (having + 0.5))
        rows = np.repeat(np.arange(len(length)), np.diff(counts.indptr))
        saturation = self.k1 * (1 - self.b + self.b * length / length.mean())
        counts.data = (
            rarity[counts.indices] * counts.data * (self.k1 + 1) / (counts.data + saturation[rows])
        )
        return lambda targets: (
            (counts @ _token_counts(targets, vocabulary).T).toarray().astype(np.float32)
        )


def _tokens(rows: Batch) -> tuple[Int[np.ndarray, 'n S'], Int[np.ndarray, ' n']]:
    arrays = named(rows)
    if not {'tokens', 'lengths'} <= set(arrays):
        raise ValueError(f'BM25 reads tokens and lengths, but records have {", ".join(arrays)}')
    return np.asarray(arrays['tokens']), np.asarray(arrays['lengths'])


def _token_counts(rows: Batch, vocabulary: int) -> sparse.csr_array:
    """How often each record has each token, `[n V]`."""
    tokens, lengths = _tokens(rows)
    there = np.arange(tokens.shape[1])[None] < lengths[:, None]
    record = np.nonzero(there)[0]
    ones, shape = np.ones(len(record)), (len(tokens), vocabulary)
    found = sparse.coo_array((ones, (record, tokens[there])), shape=shape).tocsr()
    found.sum_duplicates()
    return found


def _score_bytes(records: Records) -> int:
    return 8 * records.num_examples * min(records.block, records.num_targets)


def _whatever_the_target(numbers: Sequence[Features], records: Records) -> Scorer:
    """The mean over models of a number of each example, the same for every target."""
    values = np.mean(
        [
            by_batches(compiled(one), records.examples, records.batch, what='score')
            for one in numbers
        ],
        axis=0,
    )

    def scores(targets: Batch) -> Float[np.ndarray, 'N t']:
        return np.repeat(values[:, None], len(jax.tree.leaves(targets)[0]), axis=1)

    return scores
