"""Texts of a run, one a target: JSON with a checksum."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from influence_jax import files
from influence_jax.json_files import read_json
from influence_jax.store import digests
from influence_jax.store.errors import CorruptRun
from influence_jax.store.files import make_directory, os_errors, write_atomically

_MOST_BYTES = 2**30


def write(path: Path, texts: Sequence[str], *, run: str | None) -> None:
    """Writes them, whole or not at all; durable on return.

    Args:
        path: of the file.
        texts: one a target.
        run: the run's identity; None in a run of an earlier version.
    """
    make_directory(path.parent)
    fields = {'sha256': _digest(path, list(texts), run), 'texts': list(texts)}
    write_atomically(path, json.dumps(fields, indent=1) + '\n')


def read(path: Path, *, count: int, run: str | None) -> tuple[str, ...]:
    """As many as there are targets; CorruptRun where they are missing, damaged or another's."""
    reason = 'is damaged'
    with os_errors(path):
        try:
            fields = read_json(path, most_bytes=_MOST_BYTES, most_depth=2)
            texts = fields['texts']
            if _are_texts(texts, count) and fields['sha256'] == _digest(path, texts, run):
                return tuple(texts)
        except (FileNotFoundError, NotADirectoryError):
            reason = 'is missing'
        except files.NotRegular as error:
            reason = f'is {error.kind}, not a file'
        except (ValueError, KeyError, TypeError):
            pass
    raise CorruptRun(
        f'{path} {reason}; delete {path.parents[1]} and repeat the command that made it', file=path
    )


def _are_texts(texts: object, count: int) -> bool:
    return (
        isinstance(texts, list)
        and len(texts) == count
        and all(isinstance(text, str) for text in texts)
    )


def _digest(path: Path, texts: list[str], run: str | None) -> str:
    # The second is the digest of earlier versions, which says nothing of whose they are.
    return digests.of_json([run, 'texts', path.stem, texts]) if run else _sha256(json.dumps(texts))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
