"""A byte-level BPE trained on a corpus: the tokenizer of small models."""

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from influence_jax.data.text.tokenizer import Tokenizer

END = '<|endoftext|>'
MIN_VOCAB_SIZE = 257
"""The 256 bytes and the end token."""


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns merges of bytes, as GPT-2's (Radford et al., 2019), from texts.

    Any text is encoded without loss, known characters or not. The same texts in the same order
    give the same tokenizer.

    Args:
      texts: the corpus. Tokens that only some members' subsets hold are learnt as well: the
        tokenizer is shared by all members and is no part of what a member learns.
      vocab_size: ids in all. Where the corpus has too little to merge, the last of them are
        tokens that no text has.

    Returns:
      A tokenizer of exactly `vocab_size` ids; the end of text has the id 0.

    Raises:
      ValueError: `vocab_size` is below `MIN_VOCAB_SIZE`, or there is no text.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(
            f'{vocab_size=} is too small: 256 bytes and the end token need {MIN_VOCAB_SIZE}'
        )
    corpus = [text for text in texts if text]
    if not corpus:
        raise ValueError('no text to train a tokenizer on')
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    learnt = backend.get_vocab_size()
    backend.add_special_tokens([f'<|unused{i}|>' for i in range(learnt, vocab_size)])
    # The trainer numbers special tokens first.
    return Tokenizer(backend, end=0)
