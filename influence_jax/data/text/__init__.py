"""Texts -> tokens: tokenizers, and the records of a text dataset as one array."""

from influence_jax.data.text.tokenized import Tokenized, check_known, encode, prompted
from influence_jax.data.text.tokenizer import Tokenizer

__all__ = ['Tokenized', 'Tokenizer', 'check_known', 'encode', 'prompted']
