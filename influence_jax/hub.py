"""Folders of models: on this machine, in the cache of the Hugging Face hub, or fetched from it."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from influence_jax.text import first_line

_NAME = re.compile(r'[A-Za-z0-9][\w.-]*(/[\w.-]+)?')
_SECONDS = 5.0


class NotFetched(OSError):
    """The cache does not have the files, and the hub does not give them."""


def folder_of(
    name_or_folder: str | Path,
    patterns: Sequence[str],
    *,
    is_whole: Callable[[Path], bool],
    check: Callable[[Sequence[str]], None] = lambda names: None,
) -> Path:
    """The folder itself, else the cache's copy of a hub repository, else one that is fetched.

    Args:
        name_or_folder: a folder, or a repository such as `EleutherAI/gpt-neo-1.3B`.
        patterns: of the files that are wanted; no others are fetched.
        is_whole: whether a cached copy has all of them: it may hold other parts alone.
        check: given the names of a repository's files before any is fetched; raises where what
            is wanted is not among them.

    Raises:
        FileNotFoundError: there is no such folder, and it cannot be a name on the hub.
        NotFetched: the hub has no such repository, or there is no network.
    """
    folder, name = Path(name_or_folder).expanduser(), str(name_or_folder)
    if name and folder.is_dir():
        return folder
    if folder.exists() or not _NAME.fullmatch(name):
        raise FileNotFoundError(
            f'{name!r}: no such folder; give a folder, or a name on the Hugging Face hub'
        )
    cached = _cached(name, patterns)
    return cached if cached and is_whole(cached) else _fetched(name, patterns, check)


def _cached(name: str, patterns: Sequence[str]) -> Path | None:
    import huggingface_hub  # slow to import, and needed for hub names alone

    try:
        # Without the patterns a copy that lacks other files would count as incomplete.
        folder = huggingface_hub.snapshot_download(
            name, allow_patterns=list(patterns), local_files_only=True
        )
    except (OSError, ValueError):
        return None
    return Path(folder)


def _fetched(name: str, patterns: Sequence[str], check: Callable[[Sequence[str]], None]) -> Path:
    import huggingface_hub

    try:
        # One short call first: a download would go on trying without a network.
        listed = huggingface_hub.HfApi().model_info(name, timeout=_SECONDS).siblings or []
    # The hub's client raises what its HTTP library does, which is no OSError.
    except Exception as error:
        raise _not_fetched(name, error) from error
    check([file.rfilename for file in listed])
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=list(patterns), etag_timeout=_SECONDS
            )
        )
    except Exception as error:
        raise _not_fetched(name, error) from error


def _not_fetched(name: str, error: Exception) -> NotFetched:
    return NotFetched(
        f'{name!r}: neither a folder here, nor in the Hugging Face cache, nor to be had from the '
        f'hub ({first_line(error)}); check the name and the network, or give a folder with it '
        f'(`hf download {name}` on a machine with a network)'
    )
