"""The records of an ensemble of language models: text, near-duplicates, tokens."""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.language_settings import ModelSettings, TextSettings
from influence_jax.data import near_duplicates, text
from influence_jax.data.text import byte_bpe
from influence_jax.data.text.tokenizer import Tokenizer, from_pretrained
from influence_jax.models.language_modeling import TokenBatch


class Records(NamedTuple):
    """What members train on, and what is left for a base to be pretrained on.

    dataset: N records, near-duplicates among them.
    tokenizer: of all models.
    tokens: the records as the models read them.
    others: the source's records that are not in `dataset`; empty where all are.
    """

    dataset: text.TextDataset
    tokenizer: Tokenizer
    tokens: text.Tokenized
    others: tuple[str, ...]

    @property
    def longest_prompt(self) -> int:
        """In tokens."""
        return int(self.tokens.answer_starts.max())

    @property
    def longest_answer(self) -> int:
        """In tokens, the end included."""
        return int((self.tokens.lengths - self.tokens.answer_starts).max())

    @property
    def positions(self) -> int:
        """How many positions a model needs to read any record and to complete any prompt."""
        return max(self.tokens.tokens.shape[1], self.longest_prompt + self.longest_answer)


def prepare(settings: TextSettings, model: ModelSettings, *, seed: int) -> Records:
    """Reads the source, chooses records, plants near-duplicates and tokenizes all."""
    folder = None if settings.data_dir is None else Path(settings.data_dir)
    source = text.load(settings.dataset, data_dir=folder)
    # A dataset may hold near-duplicates of its own (NQ-open: questions asked twice).
    source = source.take(np.unique(source.groups, return_index=True)[1])
    if model.is_tiny:
        tokenizer = byte_bpe.train(source.texts, model.vocabulary)
    else:
        tokenizer = from_pretrained(model.model)
    dataset = near_duplicates.plant(
        source,
        settings.duplication,
        unique=settings.unique,
        duplicated=settings.duplicated,
        copies=settings.copies,
        seed=seed,
        tokenizer=tokenizer,
    )
    tokens = text.encode(dataset, tokenizer, max_length=settings.max_length)
    rest = near_duplicates.unused(source, dataset)
    return Records(dataset, tokenizer, tokens, tuple(source.texts[i] for i in rest))


def batch(tokens: text.Tokenized) -> TokenBatch:
    """Records as the task takes them, on the device."""
    return TokenBatch(
        jnp.asarray(tokens.tokens), jnp.asarray(tokens.lengths), jnp.asarray(tokens.answer_starts)
    )
