"""What Hugging Face calls the parameters of a `GPTNeo`."""

from typing import NamedTuple

from influence_jax.models.gpt_neo.config import GPTNeoConfig

PREFIX = 'transformer.'
HEAD = 'lm_head.weight'
NOT_PARAMETERS = ('.attn.attention.bias', '.attn.attention.masked_bias')
"""Ends of the names of masks that old checkpoints hold."""

_OF_MODEL = {
    'wte.weight': 'token_embedding',
    'wpe.weight': 'position_embedding',
    'ln_f.weight': 'final_norm/scale',
    'ln_f.bias': 'final_norm/bias',
}
_OF_LAYER = {
    'ln_1.weight': 'attention_norm/scale',
    'ln_1.bias': 'attention_norm/bias',
    'attn.attention.q_proj.weight': 'attention/query',
    'attn.attention.k_proj.weight': 'attention/key',
    'attn.attention.v_proj.weight': 'attention/value',
    'attn.attention.out_proj.weight': 'attention/output',
    'attn.attention.out_proj.bias': 'attention/output_bias',
    'ln_2.weight': 'mlp_norm/scale',
    'ln_2.bias': 'mlp_norm/bias',
    'mlp.c_fc.weight': 'mlp/up',
    'mlp.c_fc.bias': 'mlp/up_bias',
    'mlp.c_proj.weight': 'mlp/down',
    'mlp.c_proj.bias': 'mlp/down_bias',
}
# PyTorch's linear layers hold [outputs, inputs].
_TRANSPOSED = frozenset(
    path for name, path in _OF_LAYER.items() if name.endswith(('_proj.weight', 'c_fc.weight'))
)


class Place(NamedTuple):
    """Where a tensor belongs.

    path: of the parameter.
    layer: row of its leading axis L; None where it has none.
    transposed: whether the tensor is the transpose of that row.
    """

    path: str
    layer: int | None
    transposed: bool


def places(config: GPTNeoConfig) -> dict[str, Place]:
    """Every tensor's place by its name, without `PREFIX`."""
    result = {name: Place(path, None, False) for name, path in _OF_MODEL.items()}
    for layer in range(config.layers):
        for name, path in _OF_LAYER.items():
            result[f'h.{layer}.{name}'] = Place(f'layers/{path}', layer, path in _TRANSPOSED)
    return result
