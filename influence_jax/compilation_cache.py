"""jax's persistent compilation cache, in a directory of the user's own and of bounded size.

What is in a compilation cache is run: whoever can write there runs code as the user. So a directory
is used only if it is the user's and closed to everyone else (mode 0700), and lies where nobody else
can put another in its place. Everything else that is wrong with it costs time alone: programs are
compiled as if there were no cache.

jax finds programs by the hash of their instructions, of the compiler and of the CPU's features,
bounds the size by removing what was used longest ago, and lets several processes share a directory
by a file lock. What a process that was killed has left there half written is removed here: jax
would try it at each start and never write it anew.
"""

import contextlib
import functools
import hashlib
import importlib
import json
import logging
import os
import platform
import stat
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from influence_jax import files
from influence_jax.json_files import read_json

MOST_BYTES = 2**28
"""Of all entries together, unless another bound is given."""

LEAST_SECONDS = 0.05
"""What is compiled in less is not kept: reading it would take as long."""

_DIRECTORY = 'jax_compilation_cache_dir'
_PROGRAM, _USED = '-cache', '-atime'
_LOCK = '.lockfile'  # jax's own
_CHECKED = 'checked.json'
_LONGEST_WAIT = 2.0  # seconds; jax holds its lock for milliseconds
_PIECE = 2**20
_MOST_KNOWN = 2**24
_ZSTANDARD = b'\x28\xb5\x2f\xfd'

_log = logging.getLogger(__name__)


class Unusable(OSError):
    """A directory that cannot hold a cache, or should not; the message says why, in one line."""


@contextlib.contextmanager
def enabled(
    directory: Path | str | None = None,
    *,
    most_bytes: int = MOST_BYTES,
    log: Callable[[str], object] = _log.warning,
) -> Iterator[Path | None]:
    """Has jax keep the programs that it compiles meanwhile, and read those that it has compiled.

    `train_ensemble` and its like do so by themselves. A cache that the user has configured, by
    `jax_compilation_cache_dir` or its environment variable, stays as it is; with
    `jax_enable_compilation_cache` off there is none. Blocks may be nested and be in several threads
    at once: the first one's directory holds for all, and jax's settings, which are the whole
    process's, are what they were when the last has ended.

    Args:
        directory: made where it is missing; by default `default_directory()`.
        most_bytes: the size to which it may grow.
        log: is given a line where the directory cannot be used, and why.

    Returns:
        The directory, or None where no cache was added to what jax does by itself.
    """
    configured = _process.begin(directory, most_bytes, log)
    try:
        yield configured
    finally:
        if configured is not None:
            _process.end()


def default_directory() -> Path:
    """Returns where programs for this kind of CPU are kept: in the user's cache directory.

    That is `$XDG_CACHE_HOME` or `~/.cache` on Linux, and what the system has for it elsewhere.
    """
    return (
        platformdirs.user_cache_path('influence_jax', appauthor=False) / 'compiled' / kind_of_cpu()
    )


@functools.cache
def kind_of_cpu() -> str:
    """Returns a name that differs between CPUs with different instructions."""
    found = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
        # A line for each core; their order is that of the first core.
        kinds = ('model name', 'flags', 'Features', 'CPU part')
        found += dict.fromkeys(line for line in lines if line.startswith(kinds))
    return f'cpu-{hashlib.sha256(repr(found).encode()).hexdigest()[:16]}'


class _Process:
    """jax's settings, which all threads of the process share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._directory: Path | None = None
        self._before: dict[str, Any] = {}

    def begin(
        self, directory: Path | str | None, most_bytes: int, log: Callable[[str], object]
    ) -> Path | None:
        with self._lock:
            if not self._blocks:
                if _setting(_DIRECTORY) or not _setting('jax_enable_compilation_cache'):
                    return None
                try:
                    path = Path(default_directory() if directory is None else directory)
                    self._directory = path = prepare(path)
                except OSError as error:
                    log(f'programs are compiled anew, without a cache: {error}')
                    return None
                self._set(
                    {
                        _DIRECTORY: str(path),
                        'jax_compilation_cache_max_size': most_bytes,
                        'jax_persistent_cache_min_compile_time_secs': LEAST_SECONDS,
                        'jax_persistent_cache_min_entry_size_bytes': -1,
                    }
                )
            self._blocks += 1
            return self._directory

    def end(self) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks:
                return
            # Somebody else may have chosen a cache meanwhile.
            if _setting(_DIRECTORY) == str(self._directory):
                self._set(self._before)
            self._directory, self._before = None, {}

    def _set(self, values: Mapping[str, Any]) -> None:
        self._before = {name: _setting(name) for name in values}
        for name, value in values.items():
            jax.config.update(name, value)
        jax_cache.reset_cache()  # jax decides once where its cache is and whether there is one


_process = _Process()


def _setting(name: str) -> Any:
    return getattr(jax.config, name)


def prepare(directory: Path) -> Path:
    """Makes a directory for a cache, or looks through the one that is there.

    Entries that are damaged, such as those of a process that was killed while it wrote, are
    removed. Each entry is read once: a list of those found whole is kept beside them.

    Returns:
        The directory's path without links.

    Raises:
        Unusable: it cannot be written, is not the user's own, others may write there, or another
            process does not let go of its lock.
    """
    directory = private_directory(directory)
    lock = filelock.FileLock(directory / _LOCK)
    try:
        with lock.acquire(timeout=_LONGEST_WAIT):
            _remove_damaged(directory)
    except filelock.Timeout as error:
        raise Unusable(f'another process holds {directory / _LOCK}') from error
    except (OSError, NotImplementedError) as error:
        raise _unusable(directory, error) from error
    return directory


def private_directory(directory: Path) -> Path:
    """Makes a directory for what is run, or looks whether the one that is there is the user's.

    Returns:
        The directory's path without links.

    Raises:
        Unusable: it cannot be made, is not the user's own, or others may write there.
    """
    try:
        directory = directory.absolute()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = directory.resolve(strict=True)
        _require_private(directory)
    except Unusable:
        raise
    except OSError as error:
        raise _unusable(directory, error) from error
    return directory


def _unusable(directory: Path, error: Exception) -> Unusable:
    reason = getattr(error, 'strerror', None) or error
    where = getattr(error, 'filename', None) or directory
    return Unusable(f'{where} cannot be used ({reason})')


def _require_private(directory: Path) -> None:
    if not hasattr(os, 'geteuid'):  # other systems keep a user's cache to the user by themselves
        return
    found, user = directory.stat(), os.geteuid()
    if found.st_uid != user:
        raise Unusable(
            f'{directory} is of another user (number {found.st_uid}), who could put code there'
        )
    if open_to := stat.S_IMODE(found.st_mode) & 0o077:
        raise Unusable(
            f'{directory} is open to others (mode {stat.S_IMODE(found.st_mode):03o}, of which '
            f'{open_to:03o} is too much), who could put code there: chmod 700 it, or remove it'
        )
    for parent in directory.parents:
        found = parent.stat()
        theirs = found.st_uid not in (0, user)
        loose = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if theirs or loose:
            raise Unusable(
                f'{directory} is in {parent}, where another user could put a directory in its place'
            )


def _remove_damaged(directory: Path) -> None:
    """Removes what jax could not read, or would stumble over; under its lock."""
    known, whole = _known(directory / _CHECKED), {}
    for key in sorted(
        {
            path.name.removesuffix(_PROGRAM).removesuffix(_USED)
            for path in directory.iterdir()
            if path.name.endswith((_PROGRAM, _USED))
        }
    ):
        program, used = directory / f'{key}{_PROGRAM}', directory / f'{key}{_USED}'
        seen = _seen(program)
        # jax fails at each new entry where one of them has lost either file.
        if seen and _seen(used) and (known.get(key) == seen or _is_whole(program)):
            whole[key] = seen
            continue
        for path in (program, used):
            path.unlink(missing_ok=True)
    if whole != known:
        partial = directory / f'{_CHECKED}.partial'
        partial.write_text(json.dumps(whole), encoding='utf-8')
        partial.replace(directory / _CHECKED)


def _known(path: Path) -> dict[str, Any]:
    """Size and time of each entry that was found whole; nothing where the list is damaged."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(known := read_json(path, most_bytes=_MOST_KNOWN), dict):
            return known
    return {}


def _seen(path: Path) -> list[int] | None:
    """The size and time of a file that is regular."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return [found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else None


def _is_whole(path: Path) -> bool:
    """Whether an entry can be unpacked, which its own checksum says."""
    with files.open_regular(path) as file:
        content = file.read()
    if content.startswith(_ZSTANDARD):
        return _is_whole_zstandard(content)
    unpacking = zlib.decompressobj()
    try:
        while content and not unpacking.eof:
            unpacking.decompress(content, _PIECE)
            content = unpacking.unconsumed_tail
    except zlib.error:
        return False
    return unpacking.eof and not unpacking.unused_data


def _is_whole_zstandard(content: bytes) -> bool:
    try:
        unpack = _zstandard()
    except ImportError:
        return True  # of another environment: jax looks for none of these here
    try:
        unpack(content)
    except Exception:  # each library has its own errors
        return False
    return True


def _zstandard() -> Callable[[bytes], bytes]:
    """What jax unpacks such entries with."""
    with contextlib.suppress(ImportError):  # Python 3.14 and later
        return importlib.import_module('compression.zstd').decompress
    return importlib.import_module('zstandard').ZstdDecompressor().decompress
