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
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Shaped

from influence_jax.kernels import cudnn_attention, functions
from influence_jax.models.gpt_neo.config import GPTNeoConfig
from influence_jax.models.lora import Adapter
from influence_jax.types import AnyArray, Params

Heads = Float[Array, 'B H S d']
Attend = Callable[[Heads, Heads, Heads], tuple[Heads, Any]]
"""From queries, keys and values to what was read, and anything else worth keeping (a cache)."""

LayerAdapters = Mapping[str, Mapping[str, Adapter]]
"""The adapters of one layer, by the paths of their matrices."""

AttendInLayer = Callable[[Heads, Heads, Heads, int, Any], tuple[Heads, Any]]
"""An `Attend` that is also given the layer's window and what else belongs to it: its cache."""

SHARDING_RULES = (
    (r'adapters?/|/(a|b)$', PartitionSpec()),
    (r'^(token|position)_embedding$', PartitionSpec(None, ('model', 'data'))),
    (r'attention/(query|key|value)$', PartitionSpec(None, 'data', 'model')),
    (r'attention/output$', PartitionSpec(None, 'model', 'data')),
    (r'mlp/up$', PartitionSpec(None, 'data', 'model')),
    (r'mlp/up_bias$', PartitionSpec(None, 'model')),
    (r'mlp/down$', PartitionSpec(None, 'model', 'data')),
    (r'norm/(scale|bias)$|_bias$', PartitionSpec()),
)
"""Where the parameters of a large model are on a mesh with axes 'data' and 'model'.

Pairs for `training.sharded`: the first pattern that is found in a parameter's path holds. Matrices
are cut along both axes: over 'model' along heads and the width inside the MLP, so that a layer
needs two sums over 'model'; over 'data' along the other axis, to be gathered layer by layer.
Embeddings are cut along D: GPT-2's vocabulary of 50257 does not divide. What is small is
everywhere.
"""

UNROLLED_LAYERS = 32
"""Up to so many layers are compiled one by one, which runs faster than a scan.

A scan writes what the backward pass needs of every layer to arrays of all of them, and reads it
again: of a GPT-Neo 125M on a GPU that takes a fifth of a step, of 1.3B more (docs/results/gpu.md).
Compilation takes three times as long there: half a minute of 24 layers.
"""

_MOST_PARTS = 32
_INIT = nnx.initializers.normal(0.02)


class GPTNeo(nnx.Module):
    """A causal language model; see the module's docstring for its parameters.

    Right padding needs no mask: no token sees a later one.
    """

    def __init__(self, config: GPTNeoConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.token_embedding = nnx.Param(_INIT(rngs.params(), (config.vocab_size, config.hidden)))
        self.position_embedding = nnx.Param(
            _INIT(rngs.params(), (config.max_positions, config.hidden))
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

        def attend(q: Heads, k: Heads, v: Heads, window: int, _: None) -> tuple[Heads, None]:
            return causal_attention(q, k, v, window), None

        x = self.embed(tokens, self.position_embedding[:length][None])
        x, _ = self.through_layers(x, attend, adapters=adapters)
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
        per_layer: Any = None,
        adapters: Mapping | None = None,
        *,
        most_unrolled: int | None = None,
    ) -> tuple[Float[Array, 'B S D'], Any]:
        """The stream after the last layer, and what `attend` kept of each.

        Args:
            x: the stream before the first layer.
            attend: given queries, keys, values, the layer's window and its row of `per_layer`.
            per_layer: pytree with a leading axis L.
            adapters: as for `hidden`.
            most_unrolled: up to so many layers are compiled one by one, if not computed again;
                `UNROLLED_LAYERS` where None.
        """
        most_unrolled = UNROLLED_LAYERS if most_unrolled is None else most_unrolled
        structure, params = nnx.split(self.layers)
        windows = self.config.windows

        def in_window(window: int) -> Callable[..., tuple[Heads, Any]]:
            return lambda q, k, v, row: attend(q, k, v, window, row)

        def layer(x: Array, now: tuple, attended: Callable) -> tuple[Array, Any]:
            params, row, adapters = now
            merged: Layer = nnx.merge(structure, params)
            x, kept = merged(over_data(x), lambda q, k, v: attended(q, k, v, row), adapters)
            return over_data(x), kept

        stacked = (params, per_layer, (adapters or {}).get('layers', {}))
        if len(windows) <= most_unrolled and not self.config.remat:
            kept = []
            for number, window in enumerate(windows):
                now = jax.tree.map(lambda leaf, number=number: leaf[number], stacked)
                x, kept_here = layer(x, now, in_window(window))
                kept.append(kept_here)
            return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *kept)

        several = list(dict.fromkeys(windows))
        ways = [in_window(window) for window in several]

        def step(x: Array, now: tuple) -> tuple[Array, Any]:
            which, *of_layer = now
            # Of a layer in a scan the compiler knows only that its window is one of several.
            return layer(x, tuple(of_layer), functools.partial(lax.switch, which, ways))

        if self.config.remat:
            step = jax.checkpoint(step, prevent_cse=False)
        numbers = np.array([several.index(window) for window in windows], np.int32)
        return lax.scan(step, x, (numbers, *stacked))


def init(config: GPTNeoConfig, *, key: Array) -> Params:
    """Fresh parameters: normal of deviation 0.02, biases zero."""
    return nnx.split(GPTNeo(config, rngs=nnx.Rngs(params=key)))[1]


def bind(config: GPTNeoConfig, params: Params) -> GPTNeo:
    """The network with these parameters, to be called; also within traced functions."""
    return nnx.merge(_structure(config), params)


def abstract(config: GPTNeoConfig) -> Params:
    """Shapes of the parameters; nothing is computed."""
    return nnx.split(_abstract_network(config))[1]


def linear(
    x: Float[Array, '... I'], weight: Float[AnyArray, 'I O'], adapter: Adapter | None = None
) -> Float[Array, '... O']:
    """X W, or x W + (x A) B with an adapter; W + A B is never formed."""
    # One axis of rows: with more, XLA writes transposed copies for the weight's gradient.
    rows = x.reshape(-1, x.shape[-1])
    y = rows @ weight.astype(x.dtype)
    y = y if adapter is None else y + adapter(rows)
    return y.reshape(*x.shape[:-1], -1)


class LayerNorm(nnx.Module):
    """LayerNorm (arXiv 1607.06450) with moments in float32."""

    def __init__(self, config: GPTNeoConfig) -> None:
        self.scale = nnx.Param(jnp.ones(config.hidden))
        self.bias = nnx.Param(jnp.zeros(config.hidden))
        self.epsilon = config.norm_epsilon

    def __call__(self, x: Float[Array, '... D']) -> Float[Array, '... D']:
        """Of mean 0 and variance 1 over the last axis, then scaled and shifted."""
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normal = centred * lax.rsqrt(variance + self.epsilon)
        scale, bias = (_as_row(parameter, normal) for parameter in (self.scale, self.bias))
        return (normal * scale + bias).astype(x.dtype)


class SelfAttention(nnx.Module):
    """Multi-head attention; queries, keys and values have no bias, the output has one."""

    def __init__(self, config: GPTNeoConfig, *, rngs: nnx.Rngs) -> None:
        square = (config.hidden, config.hidden)
        self.query = nnx.Param(_INIT(rngs.params(), square))
        self.key = nnx.Param(_INIT(rngs.params(), square))
        self.value = nnx.Param(_INIT(rngs.params(), square))
        self.output = nnx.Param(_INIT(rngs.params(), square))
        self.output_bias = nnx.Param(jnp.zeros(config.hidden))
        self.heads = config.heads

    def __call__(
        self, x: Float[Array, 'B S D'], attend: Attend, adapters: Mapping[str, Adapter]
    ) -> tuple[Float[Array, 'B S D'], Any]:
        """The layer's output, and what `attend` wants kept."""
        batch, length, width = x.shape

        def heads(weight: nnx.Param, adapter: Adapter | None) -> Heads:
            y = linear(x, weight[...], adapter)
            return y.reshape(batch, length, self.heads, width // self.heads).swapaxes(1, 2)

        # One matmul for all three would be slower: it has to be taken apart again.
        read, kept = attend(
            heads(self.query, adapters.get('query')),
            heads(self.key, adapters.get('key')),
            heads(self.value, adapters.get('value')),
        )
        read = read.swapaxes(1, 2).reshape(batch, length, width)
        y = linear(read, self.output[...], adapters.get('output'))
        return y + _as_row(self.output_bias, y), kept


class MLP(nnx.Module):
    """Up to the inner width, GELU by tanh, and down again."""

    def __init__(self, config: GPTNeoConfig, *, rngs: nnx.Rngs) -> None:
        self.up = nnx.Param(_INIT(rngs.params(), (config.hidden, config.inner)))
        self.up_bias = nnx.Param(jnp.zeros(config.inner))
        self.down = nnx.Param(_INIT(rngs.params(), (config.inner, config.hidden)))
        self.down_bias = nnx.Param(jnp.zeros(config.hidden))

    def __call__(
        self, x: Float[Array, 'B S D'], adapters: Mapping[str, Adapter]
    ) -> Float[Array, 'B S D']:
        """The layer's output."""
        inner = linear(x, self.up[...], adapters.get('up'))
        inner = jax.nn.gelu(inner + _as_row(self.up_bias, inner), approximate=True)
        y = linear(inner, self.down[...], adapters.get('down'))
        return y + _as_row(self.down_bias, y)


class Layer(nnx.Module):
    """Attention and MLP, each of the normalised stream and added to it."""

    def __init__(self, config: GPTNeoConfig, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = LayerNorm(config)
        self.attention = SelfAttention(config, rngs=rngs)
        self.mlp_norm = LayerNorm(config)
        self.mlp = MLP(config, rngs=rngs)

    def __call__(
        self, x: Float[Array, 'B S D'], attend: Attend, adapters: LayerAdapters
    ) -> tuple[Float[Array, 'B S D'], Any]:
        """The stream after this layer, and what `attend` wants kept."""
        read, kept = self.attention(self.attention_norm(x), attend, adapters.get('attention', {}))
        x = x + read
        return x + self.mlp(self.mlp_norm(x), adapters.get('mlp', {})), kept


def attention(
    queries: Heads, keys: Float[Array, 'B H K d'], values: Float[Array, 'B H K d'], seen: AnyArray
) -> Heads:
    """Softmax attention without a scale, as GPT-Neo has it; scores in float32.

    Args:
        queries: of S tokens.
        keys: of K tokens.
        values: of the same.
        seen: bool, broadcasts to `[B H S K]`; which keys each query may read, at least one.
    """
    scores = jnp.einsum('bhsd,bhkd->bhsk', queries, keys, preferred_element_type=jnp.float32)
    shares = _masked_softmax(scores, seen)
    return jnp.einsum('bhsk,bhkd->bhsd', shares.astype(values.dtype), values)


@jax.custom_jvp
def _masked_softmax(
    scores: Float[Array, 'B H S K'], seen: Bool[AnyArray, '#B #H S K']
) -> Float[Array, 'B H S K']:
    return jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)


@_masked_softmax.defjvp
def _masked_softmax_jvp(
    primals: tuple[Array, AnyArray], tangents: tuple[Array, Any]
) -> tuple[Array, Array]:
    # Needs no mask, nor the exponentials: where nothing is seen the share is 0.
    shares, tangent = _masked_softmax(*primals), tangents[0]
    mean = (tangent * shares).sum(axis=-1, keepdims=True)
    return shares, shares * (tangent - mean)


def causal_attention(queries: Heads, keys: Heads, values: Heads, window: int) -> Heads:
    """Every token reads the last `window` tokens, itself included."""
    length = queries.shape[2]
    form = _form_in_jax(min(window, length))
    fused = cudnn_attention.CausalAttention(None if window >= length else window, form)
    if fused.serves(queries, keys, values):
        return functions.call(fused, queries, keys, values)
    return form(queries, keys, values)


@functools.cache
def _form_in_jax(window: int) -> Callable[[Heads, Heads, Heads], Heads]:
    """One function a window, so that a program which knows it is not compiled again."""
    return functools.partial(_attended, window)


def _attended(window: int, queries: Heads, keys: Heads, values: Heads) -> Heads:
    place = np.arange(queries.shape[2])
    distance = place[:, None] - place[None]
    seen = (distance >= 0) & (distance < window)
    return attention(queries, keys, values, seen[None, None])


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


def over_data(rows: Shaped[Array, 'B ...']) -> Shaped[Array, 'B ...']:
    """Spreads rows over the axis 'data' of the mesh in which the model is traced, each whole.

    Left to itself the compiler follows the matrices, which are cut along the same axis: it would
    spread features instead, and add up whole batches after every product.
    """
    if len(rows) == 1 or jax.sharding.get_abstract_mesh().shape.get('data', 1) == 1:
        return rows
    return lax.with_sharding_constraint(rows, PartitionSpec('data'))


def _as_row(bias: nnx.Param, like: Float[Array, '... D']) -> Float[Array, '... D']:
    """A row that broadcasts to all rows of the array.

    Its gradient is a sum over all of them, which XLA's CPUs compute faster in two steps: over the
    tokens of parts of a text, then over parts and texts.
    """
    row = bias[...].astype(like.dtype)
    if like.ndim < 2:
        return row
    *texts, tokens, width = like.shape
    parts = max(part for part in range(1, _MOST_PARTS + 1) if tokens % part == 0)
    if parts == 1 or jax.default_backend() != 'cpu':
        return row.reshape((1,) * (like.ndim - 1) + (-1,))
    by_part = lax.optimization_barrier(jnp.broadcast_to(row, (*texts, parts, 1, width)))
    return jnp.broadcast_to(by_part, (*texts, parts, tokens // parts, width)).reshape(like.shape)
