"""The records of an ensemble of language models: text, near-duplicates, tokens."""

from typing import NamedTuple

import jax.numpy as jnp
from influence_jax.models.language_modeling import TokenBatch

from experiments.language_settings import ModelSettings, TextSettings
from influence_jax import data
from influence_jax.data import text
from influence_jax.data.near_duplicates import inject, text_change, unused, without_repeats
from influence_jax.data.text.tokenizer import Tokenizer, from_pretrained, train_byte_bpe


class Records(NamedTuple):
    """What members train on, and what is left for a base to be pretrained on.

    dataset: N records, near-duplicates among them.
    tokenizer: of all models.
    tokens: the records as the models read them.
    others: the source's records that are not in `dataset`; empty where all are.
    notes: what was left out or is read in part, a sentence each, for whoever runs this.
    """

    dataset: data.Dataset
    tokenizer: Tokenizer
    tokens: text.Tokenized
    others: tuple[str, ...]
    notes: tuple[str, ...] = ()


def prepare(settings: TextSettings, model: ModelSettings, *, seed: int) -> Records:
    """Reads the source, chooses records, injects near-duplicates and tokenizes all."""
    source = without_repeats(data.load(settings.dataset, data_dir=settings.data_dir))
    if model.is_tiny and not model.tokenizer:
        tokenizer = train_byte_bpe(source.texts, model.vocabulary)
    else:
        tokenizer = from_pretrained(model.tokenizer or model.model)
    change = text_change(
        settings.duplication,
        tokenizer=tokenizer,
        count=settings.duplication_count or None,
        max_length=settings.max_length,
    )
    dataset = inject(
        source,
        change,
        unique=settings.unique,
        duplicated=settings.duplicated,
        copies=settings.copies,
        seed=seed,
    )
    tokens = text.encode(dataset, tokenizer, max_length=settings.max_length)
    texts = source.texts
    others = tuple(texts[i] for i in unused(source, dataset))
    notes = (*dataset.notes, *text.check_known(dataset, tokenizer, tokens))
    return Records(dataset, tokenizer, tokens, others, notes)


def batch(tokens: text.Tokenized) -> TokenBatch:
    """Records as the task takes them, on the device."""
    return TokenBatch(
        jnp.asarray(tokens.tokens), jnp.asarray(tokens.lengths), jnp.asarray(tokens.answer_starts)
    )
