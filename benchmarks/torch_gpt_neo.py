"""A GPT-Neo in PyTorch, for throughput comparisons only.

The layers, losses and optimiser of `influence_jax.models.gpt_neo` and `LanguageModeling`, written
as one would for PyTorch: fused attention, one matrix product for queries, keys and values, batches
cut to their longest record.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Layer(nn.Module):
    seen: torch.Tensor

    def __init__(self, hidden: int, heads: int, window: int | None, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.output = nn.Linear(hidden, hidden)
        self.mlp_norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        self.register_buffer(
            'seen', seen if window is None else seen & ~torch.ones_like(seen).tril(-window)
        )
        self.is_global = window is None or window >= length

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.is_global:
            read = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
        else:
            seen = self.seen[:length, :length]
            read = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1.0)
        x = x + self.output(read.transpose(1, 2).reshape(batch, length, width))
        inner = F.gelu(self.up(self.mlp_norm(x)), approximate='tanh')
        return x + self.down(inner)


class GPTNeo(nn.Module):
    def __init__(
        self, vocab: int, hidden: int, layers: int, heads: int, window: int, length: int
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, hidden)
        self.positions = nn.Embedding(length, hidden)
        self.layers = nn.ModuleList(
            Layer(hidden, heads, window if number % 2 else None, length) for number in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def losses(model: GPTNeo, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean token loss of each record; padding is computed, as is usual, and left out."""
    hidden = model(tokens[:, :-1])
    logits = hidden @ model.tokens.weight.T
    each = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction='none')
    counted = torch.arange(1, tokens.shape[1], device=tokens.device)[None] < lengths[:, None]
    return (each.view_as(counted) * counted).sum(1) / counted.sum(1)


class MeanLoss(nn.Module):
    """The mean of `losses`, as a module for `torch.func.functional_call`."""

    def __init__(self, network: GPTNeo) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return losses(self.network, tokens, lengths).mean()
