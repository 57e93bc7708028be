"""How many floating-point operations a GPT-Neo takes, counted by hand.

The compiler's own count takes the body of a scan once, so it says nothing of many layers.
"""

from typing import NamedTuple

from influence_jax.models.gpt_neo.config import GPTNeoConfig


class Flops(NamedTuple):
    """Of a batch; a multiplication and an addition are two.

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
    """Of the forward pass over a batch.

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
