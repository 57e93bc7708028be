"""K-FAC and EK-FAC: influence functions with the Fisher information of each layer in factors.

For a layer with inputs x and output gradients g, the Fisher information of its block is taken for
the Kronecker product of A = E[sum of x x^T] and S = E[mean of g g^T], sum and mean over positions
(Martens and Grosse 2015, arXiv 1503.05671; Grosse and Martens 2016, arXiv 1602.01407). EK-FAC keeps
the eigenvectors of both and corrects the eigenvalues: the second moment of each example's gradient
along each pair (George et al. 2018, arXiv 1806.03884; Grosse et al. 2023, arXiv 2308.03296).
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from influence_jax.attribution.features import Features, compiled, features, static
from influence_jax.attribution.layers import Layer, Network
from influence_jax.attribution.method import (
    Attribution,
    FeatureScorer,
    Records,
    Scorer,
    batches,
    working_bytes,
)
from influence_jax.attribution.model import Model
from influence_jax.attribution.relatif import RelatIF
from influence_jax.estimators.estimator import Method
from influence_jax.types import AnyArray, Batch

RELATIVE_DAMPING = 0.1
"""Of the mean eigenvalue of a layer, as in Grosse et al. (2023)."""


class Fisher(enum.Enum):
    """Whose labels the Fisher information is of: drawn from the model, or those of the data."""

    TRUE = 'true'
    EMPIRICAL = 'empirical'


class Spectrum(NamedTuple):
    """The Fisher information of a layer's block, by its eigenvectors.

    name: of the layer.
    inputs: `[I I]` eigenvectors of A, in columns.
    outputs: `[O O]` eigenvectors of S.
    values: `[I O]` the eigenvalue of each pair.
    damping: what is added to the eigenvalues.
    """

    name: str
    inputs: Float[np.ndarray, 'I I']
    outputs: Float[np.ndarray, 'O O']
    values: Float[np.ndarray, 'I O']
    damping: float

    def solve(self, blocks: Float[Array, 'B I O']) -> Float[Array, 'B I O']:
        """(Fisher + damping)^-1 times each block."""
        return in_basis(blocks, *self.inverse(1))

    def inverse(self, count: int) -> tuple[Array, Array, Array]:
        """Eigenvectors and eigenvalues, as of `in_basis`, of (Fisher + damping)^-1 / count."""
        values = 1 / (count * (self.values + self.damping))
        return jnp.asarray(self.inputs), jnp.asarray(self.outputs), jnp.asarray(values)


def in_basis(
    blocks: Float[Array, 'B I O'],
    inputs: Float[AnyArray, 'I I'],
    outputs: Float[AnyArray, 'O O'],
    values: Float[AnyArray, 'I O'],
) -> Float[Array, 'B I O']:
    """Returns blocks times the matrix of these eigenvectors and eigenvalues."""
    turned = jnp.asarray(inputs.T @ blocks @ outputs)
    return jnp.asarray(inputs @ (turned * values[None]) @ outputs.T)


@dataclasses.dataclass(frozen=True)
class KFAC(Attribution):
    """Influence functions (Koh and Liang 2017) by Kronecker factors; see the module.

    score(i, t) = gradient of t's measurement . (Fisher + damping)^-1 gradient of i's loss / n, n
    being how many examples the model was trained on: what removing i adds to the measurement, to
    first order, in its unit. Parameters outside of linear layers (scales of norms) stay fixed.

    Attributes:
        corrected: EK-FAC; else plain K-FAC.
        damping: added to every eigenvalue; by default a tenth of each layer's mean eigenvalue.
        fisher: whose labels.
        seed: of the labels that are drawn.
        relatif: how examples are normalized; None not at all.
    """

    corrected: bool = True
    damping: float | None = None
    fisher: Fisher = Fisher.TRUE
    seed: int = 0
    relatif: RelatIF | None = None

    def __post_init__(self) -> None:
        if self.damping is not None and not self.damping > 0:
            raise ValueError(f'damping={self.damping} must be positive')

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        title = 'EK-FAC' if self.corrected else 'K-FAC'
        name = title.lower().replace('-', '')
        if self.relatif:
            name, title = f'{name}_{self.relatif.value}', f'{title}, {self.relatif.title}'
        description = f'the influence function of the Fisher information by {title}'
        return Method(name, title, description)

    def unit(self, model: Model, records: Records) -> str:
        """See `Attribution`."""
        return '' if self.relatif else model.unit(records.measurement)

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """Gradients as of every method, and the factors of all models' layers."""
        layers = models[0].network(records.examples, records.loss).layers
        width = sum(layer.inputs * layer.outputs for layer in layers)
        squares = sum(layer.inputs**2 + layer.outputs**2 for layer in layers)
        # Eigenvectors and eigenvalues in float32; while those of one model are found, in float64.
        return working_bytes(width, records) + (4 * len(models) + 16) * (squares + width)

    @property
    def linear_in_targets(self) -> bool:
        """See `Attribution`."""
        return True

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        found = [self._features(model, records) for model in models]
        of_targets, of_examples, scales = zip(*found, strict=True)
        layers = models[0].network(records.examples, records.loss).layers
        return FeatureScorer(
            of_targets,
            of_examples,
            records,
            scales=scales if self.relatif else None,
            modules=[(layer.module, layer.inputs * layer.outputs) for layer in layers],
        )

    def spectra(self, model: Model, records: Records) -> list[Spectrum]:
        """The Fisher information of every layer; eigenvalues are there to be looked at."""
        return self.mean_spectra([model], records)

    def mean_spectra(self, checkpoints: Sequence[Model], records: Records) -> list[Spectrum]:
        """As `spectra`, the mean over checkpoints of one member."""
        first = checkpoints[0]
        _, row = next(self._rows(first, records))
        loss = _Loss(self.fisher, records.loss)
        layers = loss.network(first, row).layers

        def mean(summed: Callable[[Model, Any, Array], list[Any]]) -> list[Any]:
            return _mean(summed, [(model, self._rows(model, records)) for model in checkpoints])

        vectors = [
            tuple(np.linalg.eigh(np.asarray(m, np.float64)) for m in pair)
            for pair in mean(functools.partial(_moments, loss))
        ]
        if self.corrected:
            turns = [(jnp.float32(a[1]), jnp.float32(s[1])) for a, s in vectors]
            values = mean(functools.partial(_squares, loss, turns))
        else:
            values = [np.maximum(a[0], 0)[:, None] * np.maximum(s[0], 0)[None] for a, s in vectors]
        return [
            Spectrum(
                layer.name,
                a[1].astype(np.float32),
                s[1].astype(np.float32),
                value.astype(np.float32),
                # Where all gradients are 0, so are the scores, whatever the damping.
                self.damping or RELATIVE_DAMPING * float(value.mean()) or 1.0,
            )
            for layer, (a, s), value in zip(layers, vectors, values, strict=True)
        ]

    def _rows(self, model: Model, records: Records) -> Iterator[tuple[int, Any]]:
        """Examples that it was trained on, each with a key; how many of a batch are real."""
        mask = model.trained_on(records.num_examples)
        rows = jax.tree.map(lambda leaf: leaf[mask], records.examples)
        key = jax.random.key(self.seed)
        for some, batch in batches(rows, records.batch):
            numbers = np.arange(some.start, some.start + len(jax.tree.leaves(batch)[0]))
            keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers)
            yield some.stop - some.start, (batch, keys)

    def _features(self, model: Model, records: Records) -> tuple[Features, Features, Any]:
        """Of targets, of examples, and what RelatIF scales examples by."""
        spectra = self.spectra(model, records)
        count = int(model.trained_on(records.num_examples).sum())

        inverse = tuple(spectrum.inverse(count) for spectrum in spectra)

        def of(rows: Batch, measurement: str, *, solved: bool) -> Features:
            names = [layer.name for layer in model.network(rows, measurement).layers]
            if names != [spectrum.name for spectrum in spectra]:
                raise ValueError(f'{measurement!r} passes other layers than the loss does: {names}')
            return compiled(_Blocks(model, inverse if solved else None, measurement))

        example = of(records.examples, records.loss, solved=False)
        scales = None
        if self.relatif:
            changes = of(records.examples, records.loss, solved=True)
            scales = self.relatif.scales(example, changes, records)
        return of(records.targets, records.measurement, solved=True), example, scales


@dataclasses.dataclass(frozen=True)
class _Loss:
    """The loss of a record and a key, with the labels that the Fisher is of."""

    fisher: Fisher
    loss: str

    def network(self, model: Model, rows: Any) -> Network:
        def loss(chosen: Any, row: Any) -> Array:
            record, own = row
            if self.fisher is Fisher.EMPIRICAL:
                return model.measure(chosen, record, self.loss)
            return model.sampled(chosen, record, own)

        return model.network_of(loss, rows)


@features
class _Blocks:
    """Gradients by the blocks of layers, side by side; each solved where there are inverses."""

    model: Model
    inverse: tuple[tuple[Array, Array, Array], ...] | None
    measurement: str = static()

    def __call__(self, batch: Batch) -> Float[Array, 'b D']:
        blocks = self.model.network(batch, self.measurement).blocks(self.model.chosen, batch)
        if self.inverse is not None:
            pairs = zip(blocks, self.inverse, strict=True)
            blocks = [in_basis(block, *matrices) for block, matrices in pairs]
        return jnp.concatenate([block.reshape(len(block), -1) for block in blocks], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _moments(
    loss: _Loss, model: Model, batch: Any, real: Float[Array, ' b']
) -> list[tuple[Array, Array]]:
    network = loss.network(model, batch)
    found = network.factors(model.chosen, batch)
    return [
        _moments_of(layer, x, gradient, real)
        for layer, x, gradient in zip(network.layers, found.inputs, found.gradients, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=0)
def _squares(
    loss: _Loss,
    turns: Sequence[tuple[Array, Array]],
    model: Model,
    batch: Any,
    real: Float[Array, ' b'],
) -> list[Float[Array, 'I O']]:
    """Sums over a batch of the squares of gradients along each pair of eigenvectors."""
    blocks = loss.network(model, batch).blocks(model.chosen, batch)
    return [
        jnp.einsum('bio,b->io', (a.T @ block @ s) ** 2, real)
        for (a, s), block in zip(turns, blocks, strict=True)
    ]


def _moments_of(
    layer: Layer, x: Array, gradient: Array, real: Float[Array, ' b']
) -> tuple[Float[Array, 'I I'], Float[Array, 'O O']]:
    """Sums over a batch: of x x^T over positions, and of the mean of g g^T over positions."""
    rows, columns = jax.vmap(layer.rows)(x), jax.vmap(layer.columns)(gradient)
    rows, columns = rows * real[:, None, None], columns * real[:, None, None]
    length = columns.shape[1]
    rows, columns = rows.reshape(-1, layer.inputs), columns.reshape(-1, layer.outputs)
    return rows.T @ rows, columns.T @ columns / length


def _mean(
    summed: Callable[[Model, Any, Array], list[Any]],
    checkpoints: Sequence[tuple[Model, Iterator[tuple[int, Any]]]],
) -> list[Any]:
    """The mean over all records and checkpoints of sums over batches; float64, on the host."""
    whole: list[Any] = []
    total = 0
    for model, rows in checkpoints:
        for count, batch in rows:
            real = (jnp.arange(len(jax.tree.leaves(batch)[0])) < count).astype(jnp.float32)
            found = summed(model, batch, real)
            part = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)
            whole = jax.tree.map(np.add, whole, part) if whole else part
            total += count
    return jax.tree.map(lambda leaf: leaf / total, whole)
