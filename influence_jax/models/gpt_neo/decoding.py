"""Greedy decoding that computes every token once: keys and values of earlier ones are cached."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from influence_jax.models.gpt_neo.config import GPTNeoConfig
from influence_jax.models.gpt_neo.network import GPTNeo, Heads, attention, bind, causal_attention
from influence_jax.types import AnyArray, Params

_UNROLLED_LAYERS = 4
"""Nothing is gained by more: there is no backward pass."""


class _Cache(NamedTuple):
    """Keys and values of the tokens that one layer has seen; C places, P of them the prompt's.

    Every row writes its new tokens into the same places from P on, whatever its prompt's length:
    attention asks for positions, not for places.
    """

    keys: Float[Array, 'B H C d']
    values: Float[Array, 'B H C d']

    def with_token(self, key: Heads, value: Heads, *, place: Array) -> '_Cache':
        """With the keys and values `[B H 1 d]` of one more token."""
        write = jax.lax.dynamic_update_slice_in_dim
        return _Cache(
            write(self.keys, key, place, axis=2), write(self.values, value, place, axis=2)
        )


def greedy(
    config: GPTNeoConfig,
    params: Params,
    prompts: Int[AnyArray, 'B P'],
    lengths: Int[AnyArray, ' B'],
    *,
    new_tokens: int,
    end: int | Int[Array, ''],
    adapters: Any = None,
) -> Int[Array, 'B new_tokens']:
    """The likeliest token after the prompt, the likeliest after that, and so on.

    Pure: to be jitted (`config` and `new_tokens` static) and vmapped over parameters or
    adapters.

    Args:
        config: the network.
        params: its parameters.
        prompts: right-padded with any token.
        lengths: how many tokens of each prompt count, at least 1.
        new_tokens: how many to decode.
        end: token that ends a text; a row that has decoded it decodes nothing else.
        adapters: as for `GPTNeo.hidden`.

    Raises:
        ValueError: prompts and new tokens need more positions than the network has.
    """
    prompt_length, further = prompts.shape[1], new_tokens - 1
    if new_tokens < 1:
        raise ValueError(f'new_tokens must be at least 1, not {new_tokens}')
    if prompt_length + further > config.max_positions:  # the last new token is never read
        raise ValueError(
            f'prompts of {prompt_length} tokens and {new_tokens} new ones need '
            f'{prompt_length + further} positions, but the network has '
            f'max_positions={config.max_positions}; cut the prompts or decode fewer tokens'
        )
    model = bind(config, params)
    positions = _positions_of_places(lengths, prompt_length, further)

    def step(state: tuple[Array, _Cache], number: Array) -> tuple[tuple[Array, _Cache], Array]:
        tokens, cache = state

        def attend(
            q: Heads, k: Heads, v: Heads, window: int, cache: _Cache
        ) -> tuple[Heads, _Cache]:
            cache = cache.with_token(k, v, place=prompt_length + number)
            distance = (lengths + number)[:, None] - positions
            seen = (distance >= 0) & (distance < window)
            return attention(q, cache.keys, cache.values, seen[:, None, None]), cache

        row = jnp.asarray(model.position_embedding[...])[lengths + number]
        x = model.embed(tokens[:, None], row[:, None])
        x, cache = model.through_layers(x, attend, cache, adapters, most_unrolled=_UNROLLED_LAYERS)
        following = _likeliest(model, x[:, 0])
        following = jnp.where(tokens == end, end, following)
        return (following, cache), following

    x, cache = _read_prompts(model, prompts, further, adapters)
    first = _likeliest(model, x[jnp.arange(len(lengths)), lengths - 1])
    _, following = jax.lax.scan(step, (first, cache), jnp.arange(further))
    return jnp.concatenate([first[:, None], following.T], axis=1)


def _positions_of_places(lengths: AnyArray, prompt_length: int, further: int) -> Int[Array, 'B C']:
    place = jnp.arange(prompt_length + further)[None]
    length = lengths[:, None]
    never = 2 * (prompt_length + further)  # padding: later than any token
    in_prompt = jnp.where(place < length, place, never)
    return jnp.where(place < prompt_length, in_prompt, length + place - prompt_length)


def _read_prompts(
    model: GPTNeo, prompts: AnyArray, further: int, adapters: Any
) -> tuple[Float[Array, 'B P D'], _Cache]:
    """The stream after the last layer, and caches with room for `further` tokens."""

    def attend(q: Heads, k: Heads, v: Heads, window: int, _: None) -> tuple[Heads, _Cache]:
        room = ((0, 0), (0, 0), (0, further), (0, 0))
        return causal_attention(q, k, v, window), _Cache(jnp.pad(k, room), jnp.pad(v, room))

    rows = model.position_embedding[: prompts.shape[1]]
    x = model.embed(prompts, rows[None])
    return model.through_layers(x, attend, adapters=adapters, most_unrolled=_UNROLLED_LAYERS)


def _likeliest(model: GPTNeo, x: Float[Array, 'B D']) -> Int[Array, ' B']:
    return jnp.argmax(model.logits(model.final_norm(x)), axis=-1)
