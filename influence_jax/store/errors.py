"""What can be wrong with a run directory; every message is one line and says what to do."""

from collections.abc import Sequence
from pathlib import Path

AGAIN = 'copy the directory again, or start the run anew in another'
"""What to do about damage that no member alone is lost to."""


class RunError(Exception):
    """Something is wrong with a run directory, not with the program."""

    def __init__(self, message: str) -> None:
        # Paths and what other libraries say may hold line breaks and what moves a terminal's
        # cursor; a message may not.
        line = ' '.join(message.split())
        super().__init__(''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


class NotARun(RunError):
    """The directory does not exist, is not a run, or is not finished being made."""


class BadManifest(RunError):
    """The directory's manifest.json cannot be read as a manifest."""


class RunLocked(RunError):
    """Another process is writing to the run."""


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
        super().__init__(
            f'{directory} holds a run of another configuration ({"; ".join(differences)}); '
            'choose another directory, or repeat the old configuration to continue that run'
        )


class CorruptRun(RunError):
    """A file of the run is damaged or missing.

    file: the file.
    member: the member whose entry it holds, None where it holds several members' or none's.
    """

    def __init__(self, message: str, *, file: Path, member: int | None = None) -> None:
        self.file = file
        self.member = member
        super().__init__(message)
