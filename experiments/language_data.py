"""The records of an ensemble of language models: text, near-duplicates, tokens."""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from experiments.language_settings import ModelSettings, TextSettings
from influence_jax.data import near_duplicates, text
from influence_jax.data.text import byte_bpe
from influence_jax.data.text.tokenizer import Tokenizer, from_pretrained
from influence_jax.tasks.language_modeling import TokenBatch


class Records(NamedTuple):
    """What members train on, and what is left for a base to be pretrained on.

    dataset: N records, near-duplicates among them.
    tokenizer: of all models.
    tokens: the records as the models read them.
    prompt_lengths: `[N]` tokens of each that models are prompted with; the first half of a text
        that has no prompt.
    others: the source's records that are not in `dataset`; empty where all are.
    notes: what was left out or is read in part, a sentence each, for whoever runs this.
    """

    dataset: text.TextDataset
    tokenizer: Tokenizer
    tokens: text.Tokenized
    prompt_lengths: Int[np.ndarray, ' N']
    others: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def prompted(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What a model is prompted with, and what one that knows the record goes on with."""
        dataset, read = self.dataset, self.tokenizer.decode

        def parts(record: int) -> tuple[str, str]:
            if dataset.prompts[record] and not self.tokens.cut[record]:
                return dataset.prompts[record], dataset.completions[record]
            tokens = self.tokens.tokens[record, : self.tokens.lengths[record]]
            cut = self.prompt_lengths[record]
            return read(tokens[:cut]), read(tokens[cut:])

        prompts, continuations = zip(*map(parts, range(dataset.num_examples)), strict=True)
        return prompts, continuations

    @property
    def longest_continuation(self) -> int:
        """In tokens, the end included."""
        return int((self.tokens.lengths - self.prompt_lengths).max())

    @property
    def positions(self) -> int:
        """How many positions a model needs to read any record and to complete any prompt."""
        completed = int(self.prompt_lengths.max()) + self.longest_continuation
        return max(self.tokens.tokens.shape[1], completed)


def prepare(settings: TextSettings, model: ModelSettings, *, seed: int) -> Records:
    """Reads the source, chooses records, plants near-duplicates and tokenizes all."""
    folder = None if settings.data_dir is None else Path(settings.data_dir)
    source = text.load(settings.dataset, data_dir=folder)
    source, repeats = _without_repeats(source)
    if model.is_tiny and not model.tokenizer:
        tokenizer = byte_bpe.train(source.texts, model.vocabulary)
    else:
        tokenizer = from_pretrained(model.tokenizer or model.model)
    dataset = near_duplicates.plant(
        source,
        settings.duplication,
        unique=settings.unique,
        duplicated=settings.duplicated,
        copies=settings.copies,
        seed=seed,
        tokenizer=tokenizer,
        count=settings.duplication_count or None,
        max_length=settings.max_length,
    )
    tokens = text.encode(dataset, tokenizer, max_length=settings.max_length)
    rest = near_duplicates.unused(source, dataset)
    others = tuple(source.texts[i] for i in rest)
    notes = (*repeats, *text.check_known(dataset, tokenizer, tokens))
    return Records(dataset, tokenizer, tokens, _prompt_lengths(tokens, tokenizer), others, notes)


def _without_repeats(source: text.TextDataset) -> tuple[text.TextDataset, tuple[str, ...]]:
    """One record of each group, and how many others there were.

    A dataset may hold near-duplicates of its own: a line twice, in NQ-open a question asked twice.
    """
    first = np.unique(source.groups, return_index=True)[1]
    repeated = source.num_examples - len(first)
    # In the order of the groups, also where none has a second record: it decides what is drawn.
    source = source.take(first)
    if not repeated:
        return source, ()
    return source, (
        f'{repeated:,} of {source.num_examples + repeated:,} records repeat an earlier one (the '
        'same text or question) and are left out: the first of each is kept.',
    )


def said_of_cuts(records: Records) -> str:
    """How many records are longer than what is read of them; '' where none is."""
    cut = int(np.count_nonzero(records.tokens.cut))
    if not cut:
        return ''
    longest = records.tokens.tokens.shape[1]
    return f'{cut:,} of {len(records.tokens.cut):,} records are cut to {longest} tokens'


def batch(tokens: text.Tokenized) -> TokenBatch:
    """Records as the task takes them, on the device."""
    return TokenBatch(
        jnp.asarray(tokens.tokens), jnp.asarray(tokens.lengths), jnp.asarray(tokens.answer_starts)
    )


def _prompt_lengths(tokens: text.Tokenized, tokenizer: Tokenizer) -> Int[np.ndarray, ' N']:
    prompts = tokens.answer_starts.copy()
    for record in np.flatnonzero(prompts == 0):
        length = tokens.lengths[record]
        half = (length - 1) // 2
        # Not where nothing but white space would be left to go on with.
        if tokenizer.decode(tokens.tokens[record, half:length]).strip():
            prompts[record] = half
    return prompts
