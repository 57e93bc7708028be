"""Durable small files, the writer's lock, and what can be wrong with a run directory.

Every error message is one line and says what to do.
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from influence_jax import files
from influence_jax.text import clean

AGAIN = 'copy the directory again, or start the run anew in another'
"""What to do about damage by which more than one member is lost."""

_LISTED = 6
"""Differences that a message names."""
_log = logging.getLogger(__name__)


class RunError(Exception):
    """Something is wrong with a run directory, not with the program."""

    def __init__(self, message: str) -> None:
        # Paths and messages of other libraries may hold line breaks and terminal control
        # characters; a message of ours may not.
        line = ' '.join(message.split())
        super().__init__(''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


class NotARun(RunError):
    """The directory does not exist, is not a run, or is not yet completely created."""


class BadManifest(RunError):
    """The directory's manifest.json cannot be read as a manifest."""


class RunLocked(RunError):
    """Another process is writing to the run, or to scores."""


class RunGone(RunError):
    """The directory of a run was deleted, moved or replaced while it was written."""


class StorageFailed(RunError):
    """The operating system refused to read or write: disk full, read-only, no permission ..."""


class ConfigurationMismatch(RunError):
    """The directory holds a run of another configuration.

    differences: one text for each differing key, `key: old -> new`.
    """

    def __init__(self, directory: Path, differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        listed = '; '.join(differences[:_LISTED])
        if more := len(differences[_LISTED:]):  # such as every parameter of another network
            listed += f'; and {more} more'
        super().__init__(
            f'{directory} holds a run of another configuration ({listed}); '
            'choose another directory, or repeat the old configuration to continue that run'
        )


class FewerMembers(RunError):
    """The directory holds a run of more members than were asked for: a run grows, never shrinks.

    existing: how many members the run has.
    """

    def __init__(self, directory: Path, *, existing: int, requested: int) -> None:
        self.existing = existing
        super().__init__(
            f'{directory} holds a run of {existing} members, more than the {requested} requested; '
            f'request at least {existing}, or choose another directory'
        )


class CorruptRun(RunError):
    """A file of the run is damaged or missing.

    file: the file.
    member: the member whose entry it holds; None where it holds those of several, or of none.
    """

    def __init__(self, message: str, *, file: Path, member: int | None = None) -> None:
        self.file = file
        self.member = member
        super().__init__(message)


def storage_failed(path: Path, code: int) -> StorageFailed:
    """Returns the error for what the operating system reports (an errno) of a path."""
    return StorageFailed(
        f'{path}: {os.strerror(code)}; fix this and repeat the command: what is recorded is kept'
    )


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into StorageFailed naming the path."""
    try:
        yield
    except OSError as error:
        raise storage_failed(path, error.errno or errno.EIO) from error


def refuse_irregular(path: Path) -> None:
    """Raises CorruptRun unless nothing, or a regular file, is where one is to be written."""
    with os_errors(path):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return
    if what := files.kind(found.st_mode):
        raise CorruptRun(f'{path} is {what}, not a file; remove it', file=path)


def refuse_link(path: Path) -> None:
    """Raises NotARun for a link where a directory is to be replaced: its target is not ours."""
    if path.is_symlink():
        raise NotARun(f'{path} is a link; remove it, or choose another directory')


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Makes a directory and its parents, durably; no error where it exists."""
    with os_errors(path):
        if path.is_dir():
            return
        if path.parent != path:
            make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text, as `replacing` does."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Writes a file so that a kill or a power cut leaves the whole of it, or what was there."""
    partial = path.with_name(f'{path.name}.partial')
    # A partial file left by a kill is replaced; nothing is written through a link or into a pipe.
    refuse_irregular(partial)
    with os_errors(path):
        partial.unlink(missing_ok=True)
        try:
            with partial.open('xb') as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except Exception:
            partial.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


class Lock:
    """An exclusive lock on a file, held until released or until the process ends, however."""

    def __init__(self, path: Path, *, what: Path | None = None, wait: bool = False) -> None:
        """Takes the lock.

        Args:
            path: of the file, which is made where there is none.
            what: is written by who holds it, for messages; by default the file's directory.
            wait: until nobody else holds it, rather than raise.

        Raises:
            RunLocked: another process, or another part of this one, holds it.
            OSError: the file cannot be made or locked.
        """
        self._path = path
        # Not through a link: the file behind it would be emptied.
        safely = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | safely, 0o644)
        try:
            self._take(what or path.parent, wait=wait)
        except BaseException as error:
            os.close(self._descriptor)
            if isinstance(error, OSError):  # a file system without locks
                error.filename = str(path)
            raise

    def _take(self, what: Path, *, wait: bool) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 300, 0).decode('utf-8', 'replace').strip()
            writer = f'{what} is being written by {holder or "another process"}'
            if not wait:
                raise RunLocked(
                    f'{writer}; wait for it to end, or choose another directory'
                ) from error
            _log.warning('%s; waiting for it to end', clean(writer))
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f'process {os.getpid()} on {socket.gethostname()}'.encode(), 0)

    def is_in_place(self) -> bool:
        """Whether the locked file is still the one of that name."""
        try:
            held, named = os.fstat(self._descriptor), self._path.lstat()
        except OSError:
            return False
        return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)

    def release(self) -> None:
        """Releases the lock; a second time is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def locked(path: Path, *, what: Path, wait: bool = False) -> Iterator[None]:
    """Holds a `Lock` for the block, and removes its file at the end; raises as it."""
    lock = Lock(path, what=what, wait=wait)
    while not lock.is_in_place():  # whoever held it has removed it
        lock.release()
        lock = Lock(path, what=what, wait=wait)
    try:
        yield
    finally:
        if lock.is_in_place():
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()
