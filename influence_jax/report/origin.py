"""What a report was made from, by which it is known that making it again would change nothing.

Beside a report is a file with the digest of all that decides what is in it, and of each of its own
files. A report is kept where both are what they were: the run's files, to the byte; the code of
this package; the versions of the libraries; the machine; the settings. Anything else, a damaged or
an added file among it, and the report is made again.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import jax

import influence_jax
from influence_jax import compilation_cache, files, store
from influence_jax.json_files import read_json
from influence_jax.report.kept import TENSORS
from influence_jax.report.results import REPORT, RESULTS
from influence_jax.store.layout import LOCK
from influence_jax.threads import num_cores

ORIGIN = 'origin.json'
"""Name of the file in a report's directory."""

_LIBRARIES = (
    *('jinja2', 'markupsafe', 'matplotlib', 'pillow', 'rich', 'sacrebleu', 'scikit-learn', 'scipy'),
    *('threadpoolctl', 'tensorstore'),
)
"""Besides those whose versions a run keeps."""

_NOT_READ = (REPORT, store.PARAMS, store.SCORES, LOCK, store.IN_TRAINING)
"""Parts of a run that decide nothing in a report of the run alone."""
_STORED = (f'{RESULTS}/', f'{TENSORS}/')
"""Parts of a report that have checksums of their own."""
_NOT_CODE = ('__pycache__', 'embedded', 'static')
_UNFINISHED = ('.partial', '.__lock')
"""Ends of the names of files that the store, and tensorstore, are writing or a kill has left."""
_MOST_BYTES = 2**26


def origin_of(directory: Path, settings: Mapping[str, str]) -> str | None:
    """Returns a digest of all that decides what is in the report of a run.

    Args:
        directory: of the run.
        settings: what was asked for, with whatever else the caller knows to matter.

    Returns:
        The digest in hexadecimal; None where the code or a file of the run cannot be read, or is
        no regular file.
    """
    package = Path(influence_jax.__file__).parent
    try:
        parts = {
            'run': _digests(directory, leave_out=_NOT_READ, unfinished=False),
            'code': _digests(package, leave_out=_NOT_CODE),
            'versions': store.versions() | {n: importlib.metadata.version(n) for n in _LIBRARIES},
            'drawing': _digest(_drawing_settings()),
            'machine': [compilation_cache.kind_of_cpu(), num_cores(), *map(str, jax.devices())],
            'settings': dict(settings),
        }
    except (OSError, ValueError, importlib.metadata.PackageNotFoundError):
        return None
    if not parts['code']:  # of a package that is no directory
        return None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_origin(directory: Path, origin: str, rendered: Mapping[str, bytes]) -> None:
    """Writes, in a report's directory, what it was made from and the digests of its files.

    Args:
        directory: of the report.
        origin: from `origin_of`.
        rendered: the files that were written beside the stored results, by their names: where one
            is missing, or is not what it should be, the report does not pass for unchanged.
    """
    found = _digests(directory, leave_out=(ORIGIN,))
    digests = {name: digest for name, digest in found.items() if name.startswith(_STORED)}
    digests |= {name: hashlib.sha256(data).hexdigest() for name, data in rendered.items()}
    text = json.dumps({'origin': origin, 'files': digests})
    (directory / ORIGIN).write_text(text, encoding='utf-8')


def is_unchanged(directory: Path, origin: str) -> bool:
    """Returns whether a report is there, was made from this, and is what was written then."""
    with contextlib.suppress(OSError, ValueError):
        kept = read_json(directory / ORIGIN, most_bytes=_MOST_BYTES)
        expected = {'origin': origin, 'files': _digests(directory, leave_out=(ORIGIN,))}
        return bool(kept == expected)
    return False


def _digests(
    directory: Path, *, leave_out: Iterable[str], unfinished: bool = True
) -> dict[str, str]:
    """The digest of each file below a directory, by its path there.

    Args:
        directory: which.
        leave_out: names of folders and files.
        unfinished: whether hidden names, and those of unfinished files, count.
    """
    left_out = set(leave_out)

    def counts(name: str) -> bool:
        finished = not name.startswith('.') and not name.endswith(_UNFINISHED)
        return name not in left_out and (unfinished or finished)

    found = {}
    for root, folders, names in os.walk(directory, onerror=_fail):
        folder = Path(root)
        folders[:] = filter(counts, folders)
        for path in (folder / name for name in filter(counts, names)):
            found[path.relative_to(directory).as_posix()] = _digest(path)
        links = [name for name in folders if (folder / name).is_symlink()]
        if links:  # what is behind it is not looked at
            raise ValueError(f'{folder / links[0]} is a link')
    return found


def _fail(error: OSError) -> NoReturn:
    raise error


def _digest(path: Path) -> str:
    with files.open_regular(path) as file:
        return hashlib.sha256(file.read()).hexdigest()


def _drawing_settings() -> Path:
    import matplotlib  # of which no more than this is imported

    return Path(matplotlib.matplotlib_fname())
