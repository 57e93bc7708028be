"""Durable small files, the writer's lock, and the operating system's errors in one line."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from influence_jax import files
from influence_jax.store.errors import CorruptRun, RunLocked, StorageFailed


def storage_failed(path: Path, code: int) -> StorageFailed:
    """The error for what the operating system says (an errno) of a path."""
    return StorageFailed(
        f'{path}: {os.strerror(code)}; mend this and repeat the command: what is recorded stays'
    )


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into StorageFailed naming the path."""
    try:
        yield
    except OSError as error:
        raise storage_failed(path, error.errno or errno.EIO) from error


def refuse_irregular(path: Path) -> None:
    """CorruptRun unless there is nothing, or a regular file, where one is to be written."""
    with os_errors(path):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return
    if what := files.kind(found.st_mode):
        raise CorruptRun(f'{path} is {what}, not a file; remove it', file=path)


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
    """Writes a file so that a kill or a power cut leaves the whole of it, or nothing."""
    partial = path.with_name(f'{path.name}.partial')
    # What a kill has left may go; through a link, or into a pipe, nothing is written.
    refuse_irregular(partial)
    with os_errors(path):
        partial.unlink(missing_ok=True)
        with partial.open('x', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)


class Lock:
    """An exclusive lock on a file, held until released or until the process ends, however."""

    def __init__(self, path: Path) -> None:
        """Takes the lock; RunLocked where another process (or `Run`) holds it."""
        self._path = path
        refuse_irregular(path)
        with os_errors(path):
            # Not through a link that has come since, to a file which would be emptied.
            safely = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | safely, 0o644)
        try:
            with os_errors(path):
                self._take(path)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 300, 0).decode('utf-8', 'replace').strip()
            raise RunLocked(
                f'{path.parent} is being written by {holder or "another process"}; '
                'wait for it to end, or choose another directory'
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f'process {os.getpid()} on {socket.gethostname()}'.encode(), 0)

    def is_in_place(self) -> bool:
        """Whether the file that is locked is still the one of that name."""
        try:
            held, named = os.fstat(self._descriptor), self._path.lstat()
        except OSError:
            return False
        return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)

    def release(self) -> None:
        """Gives the lock back; again is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
