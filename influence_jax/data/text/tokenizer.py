"""Text <-> token ids: one small class over any fast tokenizer of Hugging Face."""

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import decoders, models, pre_tokenizers, trainers

from influence_jax import json_files
from influence_jax.data.text import tokenizer_file
from influence_jax.text import first_line, quoted

END = '<|endoftext|>'
"""The end token of a trained tokenizer."""
MIN_VOCAB_SIZE = 257
"""Of a trained tokenizer: the 256 bytes and the end token."""

_TOKENIZER = 'tokenizer.json'
_CONFIG = 'tokenizer_config.json'
_PROBE = (
    "The cat's 42 na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve hats,\n\n  aaaaaaaaaaaaaaaaaaaaaaaa!"
)
"""Letters in and beyond ASCII, digits, spaces, lines and a letter that repeats."""

_SPACE = '\N{LOWER ONE EIGHTH BLOCK}'
"""What SentencePiece writes for a space."""


def _byte_alphabet() -> dict[str, int]:
    """The bytes by the characters that stand for them in GPT-2's vocabulary.

    Bytes that are printable in Latin-1 stand for themselves, the others are numbered from 256.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTES = _byte_alphabet()


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer whose texts never hold special tokens.

    '<|endoftext|>' written in a text is text: it becomes the tokens of its characters, and the
    end token stands only where the library puts it. What a tokenizer file asks for beside
    (shortening, padding, tokens added at the ends) is switched off.

    Attributes:
      backend: the tokenizer, which is copied.
      end: id of the end of text; also used as padding.

    Raises:
      ValueError: the vocabulary has no token of the id `end`.
    """

    backend: tokenizers.Tokenizer
    end: int

    def __post_init__(self) -> None:
        with tokenizer_file.panics_as_errors():
            backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        backend.no_truncation()
        backend.no_padding()
        backend.post_processor = None
        backend.encode_special_tokens = True
        object.__setattr__(self, 'backend', backend)
        if backend.id_to_token(self.end) is None:
            raise ValueError(f'the tokenizer has no token of the id {self.end} to end a text with')
        _try(backend)

    @cached_property
    def vocab_size(self) -> int:
        """V: one more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over the tokenizer's description and its end token."""
        return hashlib.sha256(f'{self.end};{self.backend.to_str()}'.encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a text, without any that a tokenizer adds at its ends.

        Raises:
          ValueError: the text holds the end token (in a tokenizer that takes it for a word), or
            the tokenizer fails on it.
        """
        ids = list(_encoded(self.backend, text).ids)
        if self.end in ids:
            raise ValueError(
                f'the text {quoted(text)} holds the end token '
                f'{quoted(self.token_text(self.end))} as a word; '
                'leave the record out, or choose another tokenizer'
            )
        return ids

    def unknown_characters(self, text: str) -> tuple[int, int]:
        """Counts the characters that no token stands for, and all, white space aside."""
        model = self.backend.model
        unknown = getattr(model, 'unk_id', None)
        if unknown is None and (token := getattr(model, 'unk_token', None)):
            unknown = self.backend.token_to_id(token)
        counted = np.array([not character.isspace() for character in text], bool)
        known = np.zeros(len(text), bool)
        encoded = _encoded(self.backend, text)
        for token_id, (start, stop) in zip(encoded.ids, encoded.offsets, strict=True):
            if token_id != unknown:
                known[start:stop] = True
        return int((counted & ~known).sum()), int(counted.sum())

    def decode(self, ids: Sequence[int] | Int[np.ndarray, ' S']) -> str:
        """Returns the text of tokens; special ones, such as the end, and unknown ids have none."""
        with tokenizer_file.panics_as_errors():
            return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=True))

    def token_text(self, token: int | np.integer) -> str:
        """Returns the text of a single token, special ones included.

        A token that is part of a character reads as the replacement character.
        """
        with tokenizer_file.panics_as_errors():
            return str(self.backend.decode([int(token)], skip_special_tokens=False))

    def piece(self, token: int | np.integer) -> str:
        """Returns a token as it is in the vocabulary, with what stands for bytes and spaces read.

        Unlike `token_text` it keeps the spaces at a token's beginning in every tokenizer, and
        shows bytes that are no text by themselves, such as half a character, as <0xE2>.
        """
        text = self.backend.id_to_token(int(token))
        if text is None:
            return ''
        if self._has_bytes and all(character in _BYTES for character in text):
            of_bytes = bytes(_BYTES[character] for character in text)
            decoded = of_bytes.decode('utf-8', errors='surrogateescape')
            return ''.join(
                f'<0x{ord(c) - 0xDC00:02X}>' if 0xDC80 <= ord(c) < 0xDD00 else c for c in decoded
            )
        return str(text).replace(_SPACE, ' ')

    @cached_property
    def _has_bytes(self) -> bool:
        """Whether characters of the vocabulary stand for bytes, as in GPT-2's."""
        decoder = json.loads(self.backend.to_str())['decoder'] or {}
        parts = decoder.get('decoders', [decoder])
        return any(part.get('type') == 'ByteLevel' for part in parts)

    def save(self, folder: str | Path) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, which `AutoTokenizer` reads too.

        A file is replaced only by a complete one; `tokenizer.json` comes last.

        Raises:
          OSError: the folder cannot be written to.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        end = self.backend.id_to_token(self.end)
        config = {
            'tokenizer_class': 'PreTrainedTokenizerFast',
            'eos_token': end,
            'pad_token': end,
            'clean_up_tokenization_spaces': False,
        }
        _write(folder / _CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + '\n')
        _write(folder / _TOKENIZER, self.backend.to_str(pretty=True))


def train_byte_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns merges of bytes, as GPT-2's (Radford et al., 2019), from texts.

    The tokenizer of small models. Any text is encoded without loss, known characters or not.
    The same texts in the same order give the same tokenizer.

    Args:
      texts: the corpus. Tokens that only some members' subsets hold are learned as well: the
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


def from_pretrained(name_or_folder: str | Path) -> Tokenizer:
    """Opens a tokenizer of Hugging Face: a folder's, or by its name on the hub.

    The network is tried only where neither the folder nor the cache has it. No code that comes
    with a tokenizer is run. It needs an end of text, but no padding token: the end pads.

    Raises:
      FileNotFoundError: there is no such folder and it cannot be a name on the hub, or no
        tokenizer is there.
      OSError: the hub has no such tokenizer, or there is no network.
      ValueError: the tokenizer cannot be opened, is not a fast one, or has no end of text.
    """
    # transformers takes long to import and is needed on this path alone.
    from influence_jax.data.text import hub_tokenizer

    return Tokenizer(*hub_tokenizer.read(str(name_or_folder)))


def load(folder: str | Path) -> Tokenizer:
    """Reads what `Tokenizer.save` wrote; other folders and hub names are for `from_pretrained`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged.
    """
    folder = Path(folder)
    for name in (_TOKENIZER, _CONFIG):
        if not (folder / name).exists():
            raise FileNotFoundError(f'{folder}: no {name}; give the folder of a saved tokenizer')
    try:
        fields = tokenizer_file.read(folder / _TOKENIZER)
        config = json_files.read_json(folder / _CONFIG, most_bytes=tokenizer_file.MOST_BYTES)
        with tokenizer_file.panics_as_errors():
            backend = tokenizers.Tokenizer.from_str(json.dumps(fields))
        end = backend.token_to_id(config['eos_token'])
        if end is None:
            raise ValueError(f'no token {quoted(config["eos_token"])}')
        return Tokenizer(backend, end)
    # tokenizers raises nothing narrower than Exception.
    except Exception as error:
        raise ValueError(
            f'{folder}: no saved tokenizer, or a damaged one ({first_line(error)})'
        ) from error


def parse(text: str, *, end: int) -> Tokenizer:
    """Makes a tokenizer of its description, which is data alone: `backend.to_str()` of another.

    Raises:
      ValueError: it is no such description, or has no token `end`.
    """
    fields = tokenizer_file.parse(text)
    try:
        with tokenizer_file.panics_as_errors():
            backend = tokenizers.Tokenizer.from_str(json.dumps(fields))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f'no tokenizer, or a damaged one ({first_line(error)})') from error
    return Tokenizer(backend, end)


def _try(backend: tokenizers.Tokenizer) -> None:
    """Raises ValueError for a tokenizer that panics, here and now rather than at some record."""
    with tokenizer_file.panics_as_errors(), contextlib.suppress(Exception):
        backend.decode(backend.encode(_PROBE, add_special_tokens=False).ids)


def _encoded(backend: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    try:
        with tokenizer_file.panics_as_errors():
            return backend.encode(text, add_special_tokens=False)
    # tokenizers raises nothing narrower than Exception.
    except Exception as error:
        raise ValueError(f'the tokenizer fails on a text: {first_line(error)}') from error


def _write(path: Path, text: str) -> None:
    """Replaces a file whole, or leaves it as it was."""
    handle, partial = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
    try:
        with os.fdopen(handle, 'w', encoding='utf-8', newline='\n') as file:
            file.write(text)
        # mkstemp makes files that only their owner may read.
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
