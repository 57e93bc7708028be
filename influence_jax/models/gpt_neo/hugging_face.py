"""Checkpoints of Hugging Face's GPTNeoForCausalLM, read and written without PyTorch."""

from influence_jax.models.gpt_neo.reading import load, load_config
from influence_jax.models.gpt_neo.writing import save

__all__ = ['load', 'load_config', 'save']
