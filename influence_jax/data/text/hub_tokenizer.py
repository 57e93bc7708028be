"""Tokenizers of Hugging Face, by hub name or folder: the one module that imports transformers."""

from pathlib import Path

import tokenizers
import transformers

from influence_jax import hub

_VOCABULARIES = ('tokenizer.json', 'vocab.json', 'vocab.txt', 'tokenizer.model', 'spiece.model')
_FILES = (
    *_VOCABULARIES,
    'added_tokens.json',
    'config.json',
    'merges.txt',
    'special_tokens_map.json',
    'tokenizer_config.json',
)


def read(name_or_folder: str) -> tuple[tokenizers.Tokenizer, int]:
    """Opens a tokenizer: a folder's, else the cache's, else the hub's. It runs no code of theirs.

    Returns:
      The tokenizer and the id of its end of text.

    Raises:
      FileNotFoundError: there is no such folder and it cannot be a name on the hub, or no
        tokenizer is there.
      OSError: the hub has no such tokenizer, or there is no network.
      ValueError: the tokenizer cannot be opened, or has no end of text.
    """
    folder = hub.folder_of(name_or_folder, _FILES, is_whole=_has_vocabulary)
    return _open(folder, name_or_folder)


def _open(folder: Path, name: str) -> tuple[tokenizers.Tokenizer, int]:
    if not _has_vocabulary(folder):
        raise FileNotFoundError(
            f'tokenizer {name!r}: no tokenizer is there; it needs tokenizer.json, or vocab.json '
            'with merges.txt and config.json'
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    # Whatever a tokenizer's own class makes of damaged files.
    except Exception as error:
        raise ValueError(
            f'tokenizer {name!r}: its files are incomplete or damaged ({hub.reason(error)}); '
            'copy or download them again'
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(
            f'tokenizer {name!r}: is written in Python ({type(tokenizer).__name__}), but a fast '
            'one (tokenizer.json) is needed; convert it, or choose another'
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f'tokenizer {name!r}: has no end of text; name one as "eos_token" in its '
            'tokenizer_config.json, or choose another tokenizer'
        )
    return tokenizer.backend_tokenizer, int(tokenizer.eos_token_id)


def _has_vocabulary(folder: Path) -> bool:
    return any((folder / file).is_file() for file in _VOCABULARIES)
