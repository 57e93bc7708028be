"""The explorer as static files, for any web server: documents, the page, BokehJS."""

import html
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from influence_jax.explorer import encoding
from influence_jax.explorer.server import POLICY, page_files
from influence_jax.explorer.site import DAMAGES, Site
from influence_jax.report.directory import replaced_at_once
from influence_jax.text import clean

SHARD = 32
"""Targets, or examples, of a file."""

_INDEX, _DATA = 'index.html', 'data'
_HEAD = '<head>'


def check_folder(folder: Path | str) -> None:
    """Refuses a folder to which `write` would not export: replacing it removes what it holds.

    Raises:
        FileExistsError: it is a file, or holds anything but an earlier export.
    """
    folder = Path(folder).resolve()
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f'{folder} is a file; choose another folder for the export')
    there = {entry.name for entry in folder.iterdir()}
    ours = {name.partition('/')[0] for name in page_files()} | {_DATA}
    is_ours = not there or (folder / _DATA / 'index.json').exists()
    if there - ours or not is_ours:
        raise FileExistsError(
            f'{folder} holds {min(there - ours or there)!r}, which is no part of an export; choose '
            f'a folder of its own'
        )


def write(
    site: Site,
    folder: Path | str,
    *,
    track: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> list[str]:
    """Writes everything to a folder: a new one, an empty one, or one of an earlier export.

    A kill at any moment leaves the earlier export or the new one, as `replaced_at_once` says; of
    several processes, one waits until the other is done. A document that is damaged is written as
    its error, which the page shows, and the others are as they are.

    Args:
        site: made with `shard=SHARD`.
        folder: where.
        track: passes on the addresses of the documents one by one, to show progress.

    Returns:
        Errors of documents, one line each.

    Raises:
        FileExistsError: as in `check_folder`.
        OSError: the folder cannot be written to.
    """
    check_folder(folder)
    failed = []
    with replaced_at_once(Path(folder).resolve()) as partial:
        for address in track(list(site.addresses())):
            try:
                content = site.get(address)
            except DAMAGES as error:
                line = clean(str(error) or type(error).__name__)
                failed.append(f'{address}: {line}')
                if not address.endswith('.json'):
                    continue
                content = encoding.dump({'error': line})
            _write(partial / _DATA / address, content)
        for name, file in page_files().items():
            content = file.read_bytes()
            _write(partial / name, _with_policy(content) if name == _INDEX else content)
    return failed


def _with_policy(page: bytes) -> bytes:
    """Returns the page with the policy that a server of ours sends in its headers."""
    tag = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">'
    text = page.decode()
    if _HEAD not in text:
        raise ValueError(f'{_INDEX} has no {_HEAD}')
    return text.replace(_HEAD, f'{_HEAD}\n{tag}', 1).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
