"""The kinds of near-duplicates of a text: replaced tokens, and changes of words."""

import dataclasses
import enum
from collections.abc import Callable, Hashable
from functools import partial

import numpy as np

from influence_jax.data.dataset import Dataset
from influence_jax.data.near_duplicates import word_changes
from influence_jax.data.near_duplicates.injection import Change, Variant
from influence_jax.data.near_duplicates.word_changes import Passage, TextVariant
from influence_jax.data.text.tokenized import visible
from influence_jax.data.text.tokenizer import Tokenizer

# Tokens tried at one choice of positions before other positions are chosen.
_TRIES = 20


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


_WORD_CHANGES = {
    TextChange.DELETE_WORDS: word_changes.delete_words,
    TextChange.SWAP_WORDS: word_changes.swap_words,
    TextChange.PARAPHRASE: word_changes.paraphrase,
    TextChange.CHANGE_CASE: word_changes.change_case,
    TextChange.TYPOS: word_changes.add_typos,
}


def text_change(
    change: TextChange,
    *,
    tokenizer: Tokenizer | None = None,
    count: int | None = None,
    max_length: int | None = None,
) -> Change:
    """Returns the change of the completions of a text dataset, for `inject`.

    Prompts are kept; of a plain text all of it is changed.

    Args:
      change: the kind.
      tokenizer: needed where tokens are replaced, and with `max_length`.
      count: how many tokens, words or pairs of words a variant changes; by default 2 tokens
        (`REPLACE_TOKENS`), 1 word, 1 pair. `REPLACE_TOKEN` and `REORDER_WORDS` take none.
      max_length: how many tokens of a record are read; variants differ within these. By default
        in the text.

    Raises:
      ValueError: the count is below 1 or given where there is none, or the tokenizer is missing.
    """
    if count is not None and change in (TextChange.REPLACE_TOKEN, TextChange.REORDER_WORDS):
        raise ValueError(f'{change.value} takes no count (given: {count}); leave it out')
    if count is not None and count < 1:
        raise ValueError(f'{count=} must be at least 1: {change.value} would change nothing')
    if tokenizer is None and max_length is not None:
        raise ValueError(f'{max_length=} is counted in tokens: give the tokenizer, too')
    name = change.value if count is None else f'{change.value} ({count})'
    make: Callable[..., TextVariant | None]
    if change is TextChange.REORDER_WORDS:
        make = word_changes.reorder_words
    elif change in _WORD_CHANGES:
        make = partial(_WORD_CHANGES[change], count=count or 1)
    elif tokenizer is None:
        raise ValueError(f'{change.value} needs the tokenizer whose tokens it replaces')
    else:
        default = 1 if change is TextChange.REPLACE_TOKEN else 2
        make = partial(replace_tokens, tokenizer=tokenizer, count=count or default)
    if tokenizer is None or max_length is None:
        return _TextChange(name, make, read=lambda prompt, completion: completion)
    read = partial(visible, tokenizer=tokenizer, max_length=max_length)
    return _TextChange(f'{name} within {max_length} tokens', make, read)


@dataclasses.dataclass(frozen=True)
class _TextChange:
    """A change with its strength.

    name: in messages.
    make: from a passage and `rng` to a variant.
    read: from a prompt and a completion to what a model sees of the two.
    """

    name: str
    make: Callable[..., TextVariant | None]
    read: Callable[[str, str], Hashable]

    def identity(self, dataset: Dataset, index: int) -> Hashable:
        return self.read(dataset.array('prompt')[index], dataset.array('completion')[index])

    def vary(self, dataset: Dataset, index: int, rng: np.random.Generator) -> Variant | None:
        prompt, completion = dataset.array('prompt')[index], dataset.array('completion')[index]
        varied = self.make(Passage(completion, 'answer' if prompt else 'text'), rng=rng)
        if varied is None:
            return None
        return Variant({'completion': varied.text}, varied.change, self.read(prompt, varied.text))


def replace_tokens(
    passage: Passage, *, tokenizer: Tokenizer, count: int, rng: np.random.Generator
) -> TextVariant | None:
    """Replaces `count` random tokens by random others of the vocabulary.

    With `count=1` the change of arXiv 2506.20481. Positions are drawn first, then
    tokens, uniformly. A draw whose text does not encode to exactly the intended tokens (a
    neighbour would merge with the new token, a character would be cut in two) is drawn again:
    first other tokens, then other positions. So `tokenizer.encode(variant.text)` differs from
    the original's tokens at exactly `count` positions and has the same length.

    Args:
      passage: tokenized by itself, apart from the prompt.
      tokenizer: the one that the models use; its special tokens are never chosen.
      count: how many tokens, at least 1.
      rng: source of the choices.

    Returns:
      The variant; None where the passage has fewer than `count` tokens or no draw survived.
    """
    tokens = np.array(tokenizer.encode(passage.text), np.int64)
    if len(tokens) < count:
        return None
    for _ in range(1 + len(tokens)):
        positions = np.sort(rng.permutation(len(tokens))[:count])
        for _ in range(_TRIES):
            changed = tokens.copy()
            changed[positions] = rng.integers(tokenizer.vocab_size, size=count)
            text = _text_of(changed, tokenizer)
            if text is not None and (changed != tokens)[positions].all():
                return TextVariant(text, _sentence(passage, tokens, changed, positions, tokenizer))
    return None


def _text_of(tokens: np.ndarray, tokenizer: Tokenizer) -> str | None:
    """The text of the tokens; None where it does not encode to them or holds no word."""
    text = tokenizer.decode(tokens.tolist())
    if not text.strip():
        return None
    # Special tokens have no text and bytes that are no character another one (U+FFFD), so that
    # neither is ever read back as it was drawn.
    return text if tokenizer.encode(text) == tokens.tolist() else None


def _sentence(
    passage: Passage,
    before: np.ndarray,
    after: np.ndarray,
    positions: np.ndarray,
    tokenizer: Tokenizer,
) -> str:
    return '; '.join(
        f'token {p + 1} of the {passage.name}: '
        f'{tokenizer.token_text(int(before[p]))!r} -> {tokenizer.token_text(int(after[p]))!r}'
        for p in positions
    )
