"""GPT-Neo (Black et al. 2021, doi 10.5281/zenodo.5297715) as PyTorch's GPTNeoForCausalLM has it.

The tree of parameters, all float32; layers are stacked on a leading axis L:

    token_embedding                     [V D]    also the head: logits = hidden @ its transpose
    position_embedding                  [P D]    P = max_positions
    layers/attention_norm/{scale,bias}  [L D]
    layers/attention/{query,key,value}  [L D D]  last axis: heads, then their width
    layers/attention/output             [L D D]  first D: heads, then their width
    layers/attention/output_bias        [L D]
    layers/mlp_norm/{scale,bias}        [L D]
    layers/mlp/up, up_bias              [L D I], [L I]   I = inner
    layers/mlp/down, down_bias          [L I D], [L D]
    final_norm/{scale,bias}             [D]

A linear layer is x @ weight. To shard over heads: the last axis of query, key and value, the
first D of output; over the MLP: I of up, up_bias and down; an embedding: D.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from influence_jax.models.gpt_neo.config import GPTNeoConfig
from influence_jax.models.gpt_neo.layers import Heads, Layer, LayerNorm, causal_attention
from influence_jax.models.placement import over_data
from influence_jax.types import AnyArray, Params

UNROLLED_LAYERS = 4
"""Up to so many layers are compiled one by one, which runs faster than a scan."""

AttendInLayer = Callable[[Heads, Heads, Heads, Any], tuple[Heads, Any]]
"""An `Attend` that is also given what belongs to the layer: its window, its cache."""


class GPTNeo(nnx.Module):
    """A causal language model; see the module's docstring for its parameters.

    Right padding needs no mask: no token sees a later one.
    """

    def __init__(self, config: GPTNeoConfig, *, rngs: nnx.Rngs) -> None:
        init = nnx.initializers.normal(0.02)
        self.config = config
        self.token_embedding = nnx.Param(init(rngs.params(), (config.vocab_size, config.hidden)))
        self.position_embedding = nnx.Param(
            init(rngs.params(), (config.max_positions, config.hidden))
        )
        self.layers = _stacked_layers(config, rngs=rngs)
        self.final_norm = LayerNorm(config)

    def __call__(
        self, tokens: Int[AnyArray, 'B S'], adapters: Mapping | None = None
    ) -> Float[Array, 'B S V']:
        """Logits of the token after each one, float32."""
        return self.logits(self.hidden(tokens, adapters))

    def hidden(
        self, tokens: Int[AnyArray, 'B S'], adapters: Mapping | None = None
    ) -> Float[Array, 'B S D']:
        """The last hidden states, normalised, in the compute dtype.

        Args:
            tokens: right-padded with any token.
            adapters: as `lora.scaled` returns them; none where None.

        Raises:
            ValueError: the tokens are more than there are positions.
        """
        length = tokens.shape[1]
        if length > self.config.max_positions:
            raise ValueError(
                f'{length} tokens, but the network has max_positions={self.config.max_positions}; '
                'cut the texts'
            )

        def attend(q: Heads, k: Heads, v: Heads, window: Any) -> tuple[Heads, None]:
            return causal_attention(q, k, v, window), None

        x = self.embed(tokens, self.position_embedding[:length][None])
        x, _ = self.through_layers(x, attend, np.array(self.config.windows), adapters)
        return self.final_norm(x)

    def logits(self, hidden: Float[Array, '... D']) -> Float[Array, '... V']:
        """Scores of every token of the vocabulary, float32."""
        table = self.token_embedding[...].astype(hidden.dtype)
        return jnp.einsum('...d,vd->...v', hidden, table, preferred_element_type=jnp.float32)

    def embed(
        self, tokens: Int[AnyArray, 'B S'], positions: Float[AnyArray, '#B S D']
    ) -> Float[Array, 'B S D']:
        """The stream before the first layer, given rows of `position_embedding`."""
        # The table may be in host memory, the tokens traced.
        table = jnp.asarray(self.token_embedding[...])
        return (table[tokens] + positions).astype(self.config.compute_dtype)

    def through_layers(
        self,
        x: Float[Array, 'B S D'],
        attend: AttendInLayer,
        per_layer: Any,
        adapters: Mapping | None = None,
    ) -> tuple[Float[Array, 'B S D'], Any]:
        """The stream after the last layer, and what `attend` kept of each.

        Args:
            x: the stream before the first layer.
            attend: given queries, keys, values and the layer's row of `per_layer`.
            per_layer: pytree with a leading axis L.
            adapters: as for `hidden`.
        """
        structure, params = nnx.split(self.layers)

        def layer(x: Array, now: tuple) -> tuple[Array, Any]:
            params, row, adapters = now
            merged: Layer = nnx.merge(structure, params)
            x, kept = merged(over_data(x), lambda q, k, v: attend(q, k, v, row), adapters)
            return over_data(x), kept

        stacked = (params, per_layer, (adapters or {}).get('layers', {}))
        if self.config.remat:
            return jax.lax.scan(jax.checkpoint(layer, prevent_cse=False), x, stacked)
        if self.config.layers > UNROLLED_LAYERS:
            return jax.lax.scan(layer, x, stacked)
        kept = []
        for number in range(self.config.layers):
            row = jax.tree.map(lambda leaf, number=number: leaf[number], stacked)
            x, kept_here = layer(x, row)
            kept.append(kept_here)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *kept)


def init(config: GPTNeoConfig, *, key: Array) -> Params:
    """Fresh parameters: normal of deviation 0.02, biases zero."""
    return nnx.split(GPTNeo(config, rngs=nnx.Rngs(params=key)))[1]


def bind(config: GPTNeoConfig, params: Params) -> GPTNeo:
    """The network with these parameters, to be called; also within traced functions."""
    return nnx.merge(_structure(config), params)


def abstract(config: GPTNeoConfig) -> Params:
    """Shapes of the parameters; nothing is computed."""
    return nnx.split(_abstract_network(config))[1]


@functools.cache
def _structure(config: GPTNeoConfig) -> nnx.GraphDef:
    return nnx.split(_abstract_network(config))[0]


def _abstract_network(config: GPTNeoConfig) -> GPTNeo:
    return nnx.eval_shape(lambda: GPTNeo(config, rngs=nnx.Rngs(params=0)))


def _stacked_layers(config: GPTNeoConfig, *, rngs: nnx.Rngs) -> Layer:
    """One `Layer` whose every parameter has a leading axis L."""

    def params(key: Array) -> Params:
        return nnx.split(Layer(config, rngs=nnx.Rngs(params=key)))[1]

    stacked = jax.vmap(params)(jax.random.split(rngs.params(), config.layers))
    structure = nnx.split(nnx.eval_shape(lambda: Layer(config, rngs=nnx.Rngs(params=0))))[0]
    return nnx.merge(structure, stacked)
