"""The shape of a GPT-Neo, from and to Hugging Face's config.json, and the FLOPs that it takes."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from influence_jax.text import quoted

_ACTIVATION = 'gelu_new'
_COMPUTE_DTYPES = (np.dtype(jnp.float32), np.dtype(jnp.bfloat16))
_MOST = {
    'vocab_size': 2**24,
    'hidden': 2**17,
    'layers': 2**12,
    'heads': 2**12,
    'inner': 2**20,
    'max_positions': 2**22,
    'window': 2**31 - 1,
}
"""Sizes beyond any network there is; what a few bytes of a config.json can ask for ends here."""


class Attention(enum.Enum):
    """What a layer's tokens attend to."""

    GLOBAL = 'global'
    """Every earlier token, and themselves."""
    LOCAL = 'local'
    """The last `window` tokens, themselves included."""


@dataclasses.dataclass(frozen=True)
class GPTNeoConfig:
    """Shape of a `GPTNeo`; hashable, and equal where all the sizes are.

    Attributes:
        vocab_size: V, width of the output.
        hidden: D, width of the residual stream.
        layers: L.
        heads: attention heads, each of width hidden / heads.
        inner: width inside the MLP; 4 * hidden where None or 0.
        max_positions: longest text in tokens.
        window: tokens that local attention sees, the token itself included.
        attention: kind of every layer; where empty global, local, global, ... in turn.
        norm_epsilon: of every LayerNorm.
        compute_dtype: float32 or bfloat16; parameters are float32 in any case.
        remat: compute each layer anew in the backward pass, which saves memory.

    Raises:
        ValueError: the sizes do not fit each other; the message says which.
    """

    vocab_size: int
    hidden: int = 64
    layers: int = 1
    heads: int = 4
    inner: int = 0
    max_positions: int = 128
    window: int = 256
    attention: tuple[Attention, ...] = ()
    norm_epsilon: float = 1e-5
    compute_dtype: Any = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, 'inner', self.inner or 4 * self.hidden)
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(
                    f'{name} must be at least 1 and at most {most:,}, not {getattr(self, name)}'
                )
        if not 0 < self.norm_epsilon <= 1:  # neither is NaN
            raise ValueError(f'norm_epsilon must be above 0 and at most 1, not {self.norm_epsilon}')
        alternating = (Attention.GLOBAL, Attention.LOCAL) * ((self.layers + 1) // 2)
        object.__setattr__(self, 'attention', self.attention or alternating[: self.layers])
        object.__setattr__(self, 'compute_dtype', np.dtype(self.compute_dtype))
        if self.hidden % self.heads:
            raise ValueError(
                f'hidden={self.hidden} does not divide into heads={self.heads}; '
                'use a multiple of the heads'
            )
        if len(self.attention) != self.layers:
            raise ValueError(
                f'attention names {len(self.attention)} layers, but layers={self.layers}'
            )
        if self.compute_dtype not in _COMPUTE_DTYPES:
            raise ValueError(
                f'compute_dtype must be float32 or bfloat16, not {self.compute_dtype.name}'
            )

    @property
    def windows(self) -> tuple[int, ...]:
        """How many tokens each layer sees; global layers as many as there can be."""
        return tuple(
            self.window if kind is Attention.LOCAL else self.max_positions
            for kind in self.attention
        )

    @classmethod
    def from_hugging_face(
        cls, fields: Mapping[str, Any], *, compute_dtype: Any = jnp.float32, remat: bool = False
    ) -> 'GPTNeoConfig':
        """From the fields of a config.json; dropout rates are left aside, there is none here.

        Raises:
            ValueError: it is of another model, a field is missing, or what it asks for does not
                exist here.
        """
        model = fields.get('model_type')
        if model != 'gpt_neo':
            raise ValueError(f'model_type is {quoted(model)}, but only gpt_neo can be loaded')
        activation = fields.get('activation_function', _ACTIVATION)
        if activation != _ACTIVATION:
            raise ValueError(
                f'activation_function is {quoted(activation)}, but only {_ACTIVATION} is known'
            )
        return cls(
            vocab_size=_size(fields, 'vocab_size'),
            hidden=_size(fields, 'hidden_size'),
            layers=_size(fields, 'num_layers'),
            heads=_size(fields, 'num_heads'),
            inner=0
            if fields.get('intermediate_size') is None
            else _size(fields, 'intermediate_size'),
            max_positions=_size(fields, 'max_position_embeddings'),
            window=_size(fields, 'window_size'),
            attention=_expanded(
                _field(fields, 'attention_types'), layers=_size(fields, 'num_layers')
            ),
            norm_epsilon=_number(fields, 'layer_norm_epsilon'),
            compute_dtype=compute_dtype,
            remat=remat,
        )

    def to_hugging_face(self) -> dict[str, Any]:
        """The fields of a config.json from which transformers builds the same network."""
        return {
            'architectures': ['GPTNeoForCausalLM'],
            'model_type': 'gpt_neo',
            'vocab_size': self.vocab_size,
            'hidden_size': self.hidden,
            'num_layers': self.layers,
            'num_heads': self.heads,
            'intermediate_size': self.inner,
            'max_position_embeddings': self.max_positions,
            'window_size': self.window,
            'attention_types': _compressed(self.attention),
            'attention_layers': [kind.value for kind in self.attention],
            'layer_norm_epsilon': self.norm_epsilon,
            'activation_function': _ACTIVATION,
            'initializer_range': 0.02,
            'resid_dropout': 0.0,
            'embed_dropout': 0.0,
            'attention_dropout': 0.0,
            'tie_word_embeddings': True,
        }


class Flops(NamedTuple):
    """Floating-point operations of a batch; a multiplication and an addition are two.

    Counted by hand: the compiler's own count takes the body of a scan over layers once.

    layers: matrices and attention, forward.
    head: hidden states to logits, forward.
    adapters: their own matrices, forward.
    """

    layers: float
    head: float
    adapters: float = 0.0

    @property
    def forward(self) -> float:
        """Of a loss."""
        return self.layers + self.head + self.adapters

    def step(self, *, frozen: bool = False) -> float:
        """Of a loss and its gradient: as much again for activations, and again for weights.

        Args:
            frozen: only the adapters' weights are trained.
        """
        weights = self.adapters if frozen else self.forward
        return 2 * self.forward + weights


def flops(config: GPTNeoConfig, *, batch: int, tokens: int, adapter_parameters: int = 0) -> Flops:
    """Counts the operations of the forward pass over a batch.

    Attention counts every pair of tokens, also those that are masked: they are computed.

    Args:
        config: the network.
        batch: B, records.
        tokens: that each record predicts, padding included: S - 1.
        adapter_parameters: of one member, see `LoRA.parameter_count`.
    """
    count = batch * tokens
    matrices = 4 * config.hidden**2 + 2 * config.hidden * config.inner
    attention = 2 * tokens * config.hidden
    return Flops(
        layers=2.0 * count * config.layers * (matrices + attention),
        head=2.0 * count * config.hidden * config.vocab_size,
        adapters=2.0 * count * adapter_parameters,
    )


def _field(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        raise ValueError(f'the field {name!r} is missing')
    return fields[name]


def _size(fields: Mapping[str, Any], name: str) -> int:
    size = _field(fields, name)
    if type(size) is not int:
        raise ValueError(f'{name} is {quoted(size)}, but must be a whole number')
    return size


def _number(fields: Mapping[str, Any], name: str) -> float:
    number = _field(fields, name)
    if type(number) not in (int, float) or not 0 < number <= 1:
        raise ValueError(f'{name} is {quoted(number)}, but must be above 0 and at most 1')
    return float(number)


def _expanded(attention_types: Any, *, layers: int) -> tuple[Attention, ...]:
    """From Hugging Face's `[[['global', 'local'], 12]]`: a pattern and how often it comes."""
    try:
        parts = [([Attention(kind) for kind in kinds], times) for kinds, times in attention_types]
        if not all(kinds and type(times) is int and times >= 0 for kinds, times in parts):
            raise TypeError
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'attention_types is {quoted(attention_types)}, '
            "but must look like [[['global', 'local'], 12]]"
        ) from error
    # Before it is written out, which a large number would make long.
    if (named := sum(len(kinds) * times for kinds, times in parts)) != layers:
        raise ValueError(f'attention names {named} layers, but layers={layers}')
    if layers > _MOST['layers']:
        raise ValueError(f'num_layers must be at most {_MOST["layers"]:,}, not {layers}')
    return tuple(kind for kinds, times in parts for _ in range(times) for kind in kinds)


def _compressed(kinds: tuple[Attention, ...]) -> list[list[Any]]:
    shortest = next(
        length
        for length in range(1, len(kinds) + 1)
        if len(kinds) % length == 0 and kinds[:length] * (len(kinds) // length) == kinds
    )
    return [[[kind.value for kind in kinds[:shortest]], len(kinds) // shortest]]
