"""SOURCE: training unrolled in a few segments of stationary curvature (Bae et al. 2024).

Influence functions suppose that training has converged; derivatives through it need all of its
steps. In between, training is cut into segments, in each of which curvature H and an example's
gradient g are taken for constant, at their means over some checkpoints (arXiv 2405.12186): over K
steps of learning rate eta, a change of parameters shrinks by exp(-eta K H), and the example adds
(1 - exp(-eta K H)) / H g.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from influence_jax.attribution.kfac import KFAC, Fisher, Spectrum, in_basis
from influence_jax.attribution.layers import Layer
from influence_jax.attribution.method import (
    Attribution,
    Features,
    FeatureScorer,
    Records,
    Scorer,
)
from influence_jax.attribution.model import Model
from influence_jax.attribution.replay import Replay, state_bytes, training_of
from influence_jax.estimators.estimator import Method
from influence_jax.training.member import Program, State
from influence_jax.trees import named
from influence_jax.types import Batch, Params

_PROBE = 1e-12
"""In the place of gradients that are 0."""


@dataclasses.dataclass(frozen=True)
class SOURCE(Attribution):
    """score(i, t) = sum over segments of g_t . (later segments' S) F g_i / n; see the module.

    What removing i adds to the measurement, to first order, in its unit. S = exp(-r H) and F = (1 -
    exp(-r H)) / H in the eigenbasis of EK-FAC, r the sum of the segment's learning rates; weight
    decay adds to H. n is how many examples the model was trained on; parameters outside of linear
    layers (scales of norms) stay fixed.

    The paper is of SGD. For another optimizer r is its effective rate: how far parameters move in
    the end for a lasting unit of gradient, momentum summed up and the second moments of AdamW as
    they are, by its harmonic mean over each layer. One rate a layer is our simplification.

    Attributes:
        segments: L, of equally many steps.
        checkpoints: of each segment, at equal distances.
        fisher: whose labels the curvature is of.
        seed: of the labels that are drawn.
    """

    segments: int = 3
    checkpoints: int = 2
    fisher: Fisher = Fisher.TRUE
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('segments', 'checkpoints'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)} must be at least 1')

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method('source', 'SOURCE', 'the derivative through training, unrolled in segments')

    def unit(self, model: Model, records: Records) -> str:
        """See `Attribution`."""
        return model.unit(records.measurement)

    @property
    def _curvature(self) -> KFAC:
        return KFAC(fisher=self.fisher, seed=self.seed)

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """As of EK-FAC of every segment's curvature, and the checkpoints."""
        kept = self.segments * (self.checkpoints + 1) * state_bytes(training_of(models[0]))
        spectra = self._curvature.bytes_needed([*models] * (2 * self.segments), records)
        return spectra + len(models) * kept

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`.

        Raises:
            ValueError: training took fewer steps than there are checkpoints.
        """
        first = models[0]

        def blocks(variables: Any, batch: Batch, measurement: str) -> list[Float[Array, 'b I O']]:
            model = first.at(variables)
            return model.network(batch, measurement).blocks(model.chosen, batch)

        @jax.jit
        def of_example(checkpoints: list[Any], batch: Batch) -> Float[Array, 'b D']:
            found = [_flat(blocks(one, batch, records.loss)) for one in checkpoints]
            return sum(found[1:], found[0]) / len(found)

        @jax.jit
        def of_target(variables: Any, path: list[Any], batch: Batch) -> Float[Array, 'b D']:
            found = blocks(variables, batch, records.measurement)
            for matrices in path:
                pairs = zip(found, matrices, strict=True)
                found = [in_basis(block, *matrix) for block, matrix in pairs]
            return _flat(found)

        of_targets: list[Features] = []
        of_examples: list[Features] = []
        for model in models:
            scale = self.segments / int(model.trained_on(records.num_examples).sum())
            later: list[Any] = []
            for segment in reversed(self._segments(model, records)):
                path = [*later, segment.adds(scale)]
                of_targets.append(functools.partial(of_target, model.variables, path))
                of_examples.append(functools.partial(of_example, segment.checkpoints))
                later.append(segment.keeps())
        return FeatureScorer(of_targets, of_examples, records)

    def _segments(self, model: Model, records: Records) -> list['_Segment']:
        program, key = training_of(model)
        parts = self.segments * self.checkpoints
        if program.steps < parts:
            raise ValueError(
                f'training took {program.steps} steps, fewer than segments * checkpoints = '
                f'{parts}: ask for fewer'
            )
        cuts = np.linspace(0, program.steps, parts + 1).round().astype(int)
        mask = model.trained_on(records.num_examples)
        replay = Replay.of(program, key=key, mask=mask, examples=records.examples)
        advance = jax.jit(functools.partial(_advance, replay))
        layers = model.network(records.examples, records.loss).layers
        state, found = jax.jit(replay.begin)(), []
        for number in range(self.segments):
            zeros = jax.tree.map(jnp.zeros_like, state.params)
            total, checkpoints = _Rates(zeros, zeros), []
            for part in range(number * self.checkpoints, (number + 1) * self.checkpoints):
                middle = (cuts[part] + cuts[part + 1]) // 2
                state, total = advance(state, total, cuts[part], middle)
                checkpoints.append(state.variables)
                state, total = advance(state, total, middle, cuts[part + 1])
            spectra = self._curvature.mean_spectra([model.at(one) for one in checkpoints], records)
            pairs = [
                (spectrum, *total.of_layer(layer))
                for layer, spectrum in zip(layers, spectra, strict=True)
            ]
            found.append(_Segment(checkpoints, pairs))
        return found


class _Rates(NamedTuple):
    """Of each parameter: how far it moves for a unit of gradient, and what share of it decays."""

    learning: Params
    decay: Params

    def of_layer(self, layer: Layer) -> tuple[float, float]:
        """Means over a layer; the harmonic one of learning rates, that of AdamW having outliers."""
        learning, decay = (np.asarray(layer.block(named(tree))) for tree in self)
        return float(1 / np.mean(1 / np.maximum(learning, _PROBE))), float(decay.mean())


class _Segment(NamedTuple):
    """Some steps of training: variables on the way; curvature, learning rate, decay by layer."""

    checkpoints: list[Any]
    layers: list[tuple[Spectrum, float, float]]

    def keeps(self) -> list[Any]:
        """S: what is left in its end of a change at its beginning; eigenvectors and eigenvalues."""
        return [
            (spectrum.inputs, spectrum.outputs, np.exp(-rate * spectrum.values - decay))
            for spectrum, rate, decay in self.layers
        ]

    def adds(self, scale: float) -> list[Any]:
        """F, times a scale: what a constant gradient changes until its end; likewise."""
        found = []
        for spectrum, rate, decay in self.layers:
            passed = np.maximum(rate * spectrum.values + decay, np.finfo(np.float32).tiny)
            values = scale * rate * -np.expm1(-passed) / passed
            found.append((spectrum.inputs, spectrum.outputs, values))
        return found


def _advance(
    replay: Replay, state: State, rates: _Rates, first: Array, stop: Array
) -> tuple[State, _Rates]:
    """Takes the steps `first` to `stop - 1`, summing up the rates."""

    def step(number: Array, carried: tuple[State, _Rates]) -> tuple[State, _Rates]:
        state, rates = carried
        gradient = jax.grad(lambda params: replay.losses(number, state, params)[0].mean())(
            state.params
        )
        rates = jax.tree.map(jnp.add, rates, _effective_rates(replay.program, state, gradient))
        return replay.step(number, state), rates

    return lax.fori_loop(first, stop, step, (state, rates))


def _effective_rates(program: Program, state: State, gradient: Params) -> _Rates:
    """The rates of a step: see `SOURCE`.

    A step of this gradient alone, what the optimizer has gathered of earlier ones put to 0, moves
    parameters by the first part of what it does in the end; the rest follows in a geometric series
    while that decays.
    """
    tree = optax.tree_utils
    gathered = [name for name in ('mu', 'trace') if tree.tree_get(state.optimizer_state, name)]
    probe = jax.tree.map(lambda g: jnp.where(g == 0, _PROBE, g), gradient)
    kept = jax.tree.map(jnp.zeros_like, probe)

    def moved(params: Params) -> Params:
        given = tree.tree_set(
            state.optimizer_state, **{n: jax.tree.map(jnp.zeros_like, probe) for n in gathered}
        )
        return program.optimizer.update(probe, given, params)[0]

    ones = jax.tree.map(jnp.ones_like, state.params)
    moves, by_params = jax.jvp(moved, (state.params,), (ones,))
    decayed = jax.tree.map(jnp.multiply, by_params, state.params)
    lasting = by_params
    if gathered:
        (name,) = gathered

        def left(value: Params, params: Params) -> Params:
            given = tree.tree_set(state.optimizer_state, **{name: value})
            return tree.tree_get(program.optimizer.update(probe, given, params)[1], name)

        _, kept = jax.jvp(lambda value: left(value, state.params), (kept,), (ones,))
        # Decay that is a part of the gradient is gathered, too.
        _, within = jax.jvp(lambda params: left(kept, params), (state.params,), (ones,))
        lasting = jax.tree.map(
            lambda move, within, kept: jnp.where(within == 0, move, move / (1 - kept)),
            *(by_params, within, kept),
        )
    learning = jax.tree.map(
        lambda moved, decayed, g, kept: (decayed - moved) / g / (1 - kept),
        *(moves, decayed, probe, kept),
    )
    return _Rates(learning, jax.tree.map(jnp.negative, lasting))


def _flat(blocks: list[Float[Array, 'b I O']]) -> Float[Array, 'b D']:
    return jnp.concatenate([block.reshape(len(block), -1) for block in blocks], axis=1)
