"""Tokenizers of Hugging Face, by hub name or folder: the one module that imports transformers."""

from pathlib import Path

import tokenizers
import transformers

from influence_jax import files, hub, json_files
from influence_jax.data.text import tokenizer_file
from influence_jax.data.text.tokenizer_file import MOST_BYTES, panics_as_errors
from influence_jax.text import first_line

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
    """Opens a tokenizer: a folder's, else the cache's, else the hub's. Runs no code of theirs.

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
    _check_files(folder, name)
    try:
        with panics_as_errors():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    # Whatever a tokenizer's own class makes of damaged files.
    except Exception as error:
        raise ValueError(
            f'tokenizer {name!r}: its files are incomplete or damaged ({first_line(error)}); '
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


def _check_files(folder: Path, name: str) -> None:
    """Reads what the library would read, with our own bounds: it knows none."""
    for file in _FILES:
        path = folder / file
        try:
            if file == 'tokenizer.json' and _is_there(path):
                tokenizer_file.read(path)
            elif file.endswith('.json') and _is_there(path):
                json_files.read_json(path, most_bytes=MOST_BYTES)
            elif _is_there(path) and (size := files.check_regular(path).st_size) > MOST_BYTES:
                raise ValueError(f'{path} has {size:,} bytes; at most {MOST_BYTES:,} make sense')
        except ValueError as error:
            raise ValueError(
                f'tokenizer {name!r}: its files are incomplete or damaged ({error}); '
                'copy or download them again'
            ) from error


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _has_vocabulary(folder: Path) -> bool:
    return any((folder / file).exists() for file in _VOCABULARIES)
