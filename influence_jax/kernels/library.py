"""Compiles and loads the C++ kernels; says why not, where they cannot be used.

Their shared library is made for this machine's CPU and kept in the user's cache directory, which
must be private as that of compiled programs (`influence_jax.compilation_cache`): what is there is
run.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import platformdirs

from influence_jax import compilation_cache

_SOURCES = Path(__file__).parent
_COMPILERS = ('c++', 'g++', 'clang++')
_LONGEST = 120  # seconds of compilation

_in_use = True

_log = logging.getLogger(__name__)


class Unavailable(Exception):
    """There are no kernels; the message says why, in one line."""


def use(kernels: bool) -> None:
    """Whether what this process traces from now on may call kernels in C++; it may by default."""
    global _in_use
    _in_use = kernels


def registered(source: str, targets: tuple[str, ...]) -> bool:
    """Whether XLA can call the functions of a source file; compiles and loads it the first time.

    Args:
        source: a file beside this module.
        targets: functions in it; XLA knows them by the same names.
    """
    return _in_use and _registered(source, targets)


def threads() -> bool:
    """Whether a kernel may use XLA's threads: not where several devices use the cores."""
    return jax.local_device_count('cpu') == 1


def loaded(source: str) -> ctypes.CDLL | None:
    """The functions of a source file that are called without XLA; None where there are none.

    Args:
        source: a file beside this module, compiled and loaded the first time.
    """
    return _library(source) if _in_use else None


@functools.cache
def _library(source: str) -> ctypes.CDLL | None:
    try:
        return _loaded(_SOURCES / source)
    except Unavailable as reason:
        _log.info('without %s: %s', source, reason)
        return None


@functools.cache
def _registered(source: str, targets: tuple[str, ...]) -> bool:
    library = _library(source)
    if library is None:
        return False
    for name in targets:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform='cpu')
    return True


def _loaded(source: Path) -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise Unavailable('there is no C++ compiler (c++, g++ or clang++)')
    command = _command(compiler)
    name = f'{source.stem}-{_identity(command, source)}.so'
    try:
        directory = compilation_cache.private_directory(_default_directory())
    except OSError as error:
        _log.warning('kernels are compiled anew, without a cache: %s', error)
        with tempfile.TemporaryDirectory() as temporary:
            return _load(_compiled(command, source, Path(temporary) / name))
    path = directory / name
    if path.exists():
        try:
            return _load(path)
        except Unavailable:  # damaged
            path.unlink(missing_ok=True)
    return _load(_compiled(command, source, path))


def _default_directory() -> Path:
    cache = platformdirs.user_cache_path('influence_jax', appauthor=False)
    return cache / 'kernels' / compilation_cache.kind_of_cpu()


def _command(compiler: str) -> list[str]:
    native = '-mcpu=native' if platform.machine() in ('arm64', 'aarch64') else '-march=native'
    return [
        compiler,
        '-std=c++17',
        '-O3',
        native,
        '-ffp-contract=fast',
        '-fPIC',
        '-shared',
        '-w',  # jaxlib's headers
        '-isystem',
        jax.ffi.include_dir(),
    ]


def _identity(command: Sequence[str], source: Path) -> str:
    """What the library depends on beside the CPU: compiler, options, jaxlib's headers, source."""
    version = _run([command[0], '--version'])
    known = [*command, version, jax.lib.__version__, *_texts(source)]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _texts(source: Path) -> list[str]:
    """The source's and those of the headers beside it."""
    paths = [source, *sorted(source.parent.glob('*.h'))]
    return [path.read_text(encoding='utf-8') for path in paths]


def _compiled(command: Sequence[str], source: Path, path: Path) -> Path:
    try:
        _remove_partial(path.parent)
        # No process number: containers that share a cache have the same ones.
        descriptor, name = tempfile.mkstemp('.partial', f'{path.name}.', path.parent)
    except OSError as error:
        raise Unavailable(f'{path} cannot be written ({error.strerror or error})') from error
    os.close(descriptor)
    partial = Path(name)
    try:
        _run([*command, str(source), '-o', str(partial)])
        partial.replace(path)
    except OSError as error:
        raise Unavailable(f'{path} cannot be written ({error.strerror or error})') from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _remove_partial(directory: Path) -> None:
    """What compilers had written when the process that waits for them was killed."""
    for left in directory.glob('*.partial'):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LONGEST:
                left.unlink()


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_LONGEST, errors='replace'
        )
    except subprocess.CalledProcessError as error:
        first = next(iter(error.stderr.strip().splitlines()), f'status {error.returncode}')
        raise Unavailable(f'{command[0]} failed: {first}') from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f'{command[0]} cannot be run ({error})') from error
    return done.stdout


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f'{path} cannot be loaded ({error})') from error
