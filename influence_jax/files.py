"""Files from elsewhere: regular ones alone, and no more of them than is asked for.

A pipe or a device in the place of a file blocks for ever or never ends, so what a path leads to
is looked at before it is opened, without blocking, and once more when it is open.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: 'a directory',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}


def check_regular(path: Path) -> os.stat_result:
    """Returns what the system knows of a regular file, or of the one a link leads to.

    Never blocks. What is there may be replaced before it is opened: `open_regular` looks again.

    Raises:
        FileNotFoundError: nothing has that name.
        ValueError: it is a directory, pipe, socket or device, or a link that leads nowhere.
        OSError: the system does not say, e.g. for lack of permission.
    """
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) and path.is_symlink():
            raise ValueError(f'{path} is a link that leads to no file; replace it') from error
        raise
    _require_regular(path, found)
    return found


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading its bytes; raises as `check_regular`, and never blocks."""
    check_regular(path)
    # A pipe that has taken the file's place since would have this wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, 'rb')
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, *, most_bytes: int) -> bytes:
    """Reads a regular file of at most so many bytes; ValueError if it is larger.

    Raises as `check_regular`, too.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # The system's word for the size is not all: a file can grow, and some have no size.
        content = file.read(most_bytes + 1) if size <= most_bytes else None
    if content is None or len(content) > most_bytes:
        size = max(size, most_bytes + 1)
        raise ValueError(
            f'{path} has {size:,} bytes or more, but at most {most_bytes:,} make sense'
        )
    return content


def _require_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), 'something else')
        raise ValueError(f'{path} is {kind}, not a regular file; remove it or give another')
