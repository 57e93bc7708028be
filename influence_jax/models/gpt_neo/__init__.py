"""GPT-Neo: its shape, the network, and greedy decoding; checkpoints are in `hugging_face`."""

from influence_jax.models.gpt_neo.config import Attention, GPTNeoConfig
from influence_jax.models.gpt_neo.decoding import greedy
from influence_jax.models.gpt_neo.network import SHARDING_RULES, GPTNeo, abstract, bind, init

__all__ = [
    'SHARDING_RULES',
    'Attention',
    'GPTNeo',
    'GPTNeoConfig',
    'abstract',
    'bind',
    'greedy',
    'init',
]
