"""Changes of tokens, of which every tokenizer run afterwards sees exactly the intended ones."""

import numpy as np

from influence_jax.data.near_duplicates.variant import Passage, TextVariant
from influence_jax.data.text.tokenizer import Tokenizer

# Tokens tried at one choice of positions before other positions are chosen.
_TRIES = 20


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
    """The text of the tokens, None where it does not encode to them or holds no word."""
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
