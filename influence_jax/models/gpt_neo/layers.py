"""The parts of one layer of GPT-Neo."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from influence_jax.models.gpt_neo.config import GPTNeoConfig
from influence_jax.models.lora import Adapter
from influence_jax.types import AnyArray

Heads = Float[Array, 'B H S d']
Attend = Callable[[Heads, Heads, Heads], tuple[Heads, Any]]
"""From queries, keys and values to what was read, and anything else worth keeping (a cache)."""

LayerAdapters = Mapping[str, Mapping[str, Adapter]]
"""The adapters of one layer, by the paths of their matrices."""

_INIT = nnx.initializers.normal(0.02)


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
        normal = centred * jax.lax.rsqrt(variance + self.epsilon)
        shape = (1,) * (x.ndim - 1) + (-1,)
        return (normal * self.scale[...].reshape(shape) + self.bias[...].reshape(shape)).astype(
            x.dtype
        )


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


@jax.custom_vjp
def _masked_softmax(
    scores: Float[Array, 'B H S K'], seen: Bool[AnyArray, '#B #H S K']
) -> Float[Array, 'B H S K']:
    return jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)


def _forward(scores: Array, seen: AnyArray) -> tuple[Array, Array]:
    shares = _masked_softmax(scores, seen)
    return shares, shares


def _backward(shares: Array, gradient: Array) -> tuple[Array, None]:
    # Needs no mask, nor the exponentials: where nothing is seen the share is 0.
    mean = (gradient * shares).sum(axis=-1, keepdims=True)
    return shares * (gradient - mean), None


_masked_softmax.defvjp(_forward, _backward)


def causal_attention(queries: Heads, keys: Heads, values: Heads, window: Any) -> Heads:
    """Every token reads the last `window` tokens, itself included."""
    place = np.arange(queries.shape[2])
    distance = place[:, None] - place[None]
    seen = (distance >= 0) & (distance < window)
    return attention(queries, keys, values, seen[None, None])


def _as_row(bias: nnx.Param, like: Array) -> AnyArray:
    return bias[...].astype(like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))
