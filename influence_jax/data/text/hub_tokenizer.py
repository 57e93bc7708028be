"""Tokenizers of Hugging Face, by hub name or folder: the one module here that imports it."""

import re
from pathlib import Path

import huggingface_hub
import tokenizers
import transformers

_VOCABULARIES = ('tokenizer.json', 'vocab.json', 'vocab.txt', 'tokenizer.model', 'spiece.model')
_FILES = (
    *_VOCABULARIES,
    'added_tokens.json',
    'config.json',
    'merges.txt',
    'special_tokens_map.json',
    'tokenizer_config.json',
)
_HUB_NAME = re.compile(r'[A-Za-z0-9][\w.-]*(/[\w.-]+)?')
_SECONDS = 5.0


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
    folder = Path(name_or_folder).expanduser()
    if name_or_folder and folder.is_dir():
        return _open(folder, name_or_folder)
    if folder.exists() or not _HUB_NAME.fullmatch(name_or_folder):
        raise FileNotFoundError(
            f'tokenizer {name_or_folder!r}: no such folder; give a folder with a tokenizer, '
            'or a name on the Hugging Face hub'
        )
    return _open(_cached(name_or_folder) or _download(name_or_folder), name_or_folder)


def _cached(name: str) -> Path | None:
    """The cache's copy, unless it holds other parts of the repository alone, such as weights."""
    try:
        # Without the patterns a copy that lacks the weights would count as incomplete.
        folder = Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=list(_FILES), local_files_only=True
            )
        )
    except (OSError, ValueError):
        return None
    return folder if _has_vocabulary(folder) else None


def _download(name: str) -> Path:
    try:
        # One short call first: a download would go on trying without a network.
        huggingface_hub.HfApi().model_info(name, timeout=_SECONDS)
        folder = huggingface_hub.snapshot_download(
            name, allow_patterns=list(_FILES), etag_timeout=_SECONDS
        )
    # The hub's client raises what its HTTP library does, which is no OSError.
    except Exception as error:
        raise OSError(
            f'tokenizer {name!r}: neither a folder here, nor in the Hugging Face cache, nor to be '
            f'had from the hub ({_reason(error)}); check the name and the network, or give a '
            f'folder with the tokenizer (`hf download {name}` on a machine with a network)'
        ) from error
    return Path(folder)


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
            f'tokenizer {name!r}: its files are incomplete or damaged ({_reason(error)}); '
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


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
