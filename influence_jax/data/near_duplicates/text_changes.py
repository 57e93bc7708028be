"""The kinds of near-duplicates of a text, under one roof."""

import enum
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np

from influence_jax.data.near_duplicates.paraphrase import paraphrase
from influence_jax.data.near_duplicates.token_changes import replace_tokens
from influence_jax.data.near_duplicates.variant import Passage, TextVariant
from influence_jax.data.near_duplicates.word_changes import (
    add_typos,
    change_case,
    delete_words,
    reorder_words,
    swap_words,
)
from influence_jax.data.text.tokenizer import Tokenizer


class TextChange(enum.Enum):
    """How a near-duplicate of a text differs from it; see the function of each kind.

    `REPLACE_TOKEN` is the paper's: one random token (arXiv 2506.20481). The others change a
    number of tokens (`REPLACE_TOKENS`), of words, or of pairs of words (`SWAP_WORDS`), except
    `REORDER_WORDS`, which moves them all.
    """

    REPLACE_TOKEN = 'replace_token'
    REPLACE_TOKENS = 'replace_tokens'
    DELETE_WORDS = 'delete_words'
    SWAP_WORDS = 'swap_words'
    REORDER_WORDS = 'reorder_words'
    PARAPHRASE = 'paraphrase'
    CHANGE_CASE = 'change_case'
    TYPOS = 'typos'


@runtime_checkable
class TextChanger(Protocol):
    """A change with its strength: from a passage to a variant, None where it is impossible."""

    def __call__(self, passage: Passage, *, rng: np.random.Generator) -> TextVariant | None:
        """A pure function of the passage and of the state of `rng`."""


_WORD_CHANGES = {
    TextChange.DELETE_WORDS: delete_words,
    TextChange.SWAP_WORDS: swap_words,
    TextChange.PARAPHRASE: paraphrase,
    TextChange.CHANGE_CASE: change_case,
    TextChange.TYPOS: add_typos,
}


def changer(
    change: TextChange, *, tokenizer: Tokenizer | None = None, count: int | None = None
) -> TextChanger:
    """The function that makes variants of a kind.

    Args:
      change: the kind.
      tokenizer: needed where tokens are replaced, unused elsewhere.
      count: how many tokens, words or pairs of words a variant changes; by default 2 tokens
        (`REPLACE_TOKENS`), 1 word, 1 pair. `REPLACE_TOKEN` and `REORDER_WORDS` take none.

    Raises:
      ValueError: the count is below 1 or given where there is none, or the tokenizer is missing.
    """
    if count is not None and change in (TextChange.REPLACE_TOKEN, TextChange.REORDER_WORDS):
        raise ValueError(f'{change.value} takes no count (given: {count}); leave it out')
    if count is not None and count < 1:
        raise ValueError(f'{count=} must be at least 1: {change.value} would change nothing')
    if change is TextChange.REORDER_WORDS:
        return reorder_words
    if change in _WORD_CHANGES:
        return partial(_WORD_CHANGES[change], count=count or 1)
    if tokenizer is None:
        raise ValueError(f'{change.value} needs the tokenizer whose tokens it replaces')
    default = 1 if change is TextChange.REPLACE_TOKEN else 2
    return partial(replace_tokens, tokenizer=tokenizer, count=count or default)
