"""Texts of a run, one a target: JSON with a checksum."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from influence_jax.store.errors import CorruptRun
from influence_jax.store.files import make_directory, os_errors, write_atomically


def write(path: Path, texts: Sequence[str]) -> None:
    """Writes them, whole or not at all; durable on return."""
    make_directory(path.parent)
    fields = {'sha256': _digest(list(texts)), 'texts': list(texts)}
    write_atomically(path, json.dumps(fields, indent=1) + '\n')


def read(path: Path, *, count: int) -> tuple[str, ...]:
    """As many as there are targets; CorruptRun where they are missing or damaged."""
    with os_errors(path):
        content = path.read_bytes() if path.exists() else None
    reason = 'is missing' if content is None else 'is damaged'
    try:
        fields = json.loads(content or b'')
        texts = fields['texts']
        if fields['sha256'] == _digest(texts) and len(texts) == count:
            return tuple(texts)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise CorruptRun(
        f'{path} {reason}; delete {path.parents[1]} and repeat the command that made it', file=path
    )


def _digest(texts: list[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
