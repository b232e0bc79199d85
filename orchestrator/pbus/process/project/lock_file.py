"""The lock file of a project: its holder, and the secret mark of the project's processes."""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from pbus.process.system.groups import start_time
from pbus.process.system.regular_files import opener


class Holder(NamedTuple):
    """The content of a lock file.

    Attributes:
        pid: The supervisor's; 0 while there is none.
        started: Its `groups.start_time`.
        token: The mark of the project's processes; "" before the first run.
    """

    pid: int = 0
    started: float = 0.0
    token: str = ""


def open_lock(path: Path) -> int:
    """Open the file; for reading only where it cannot be written.

    Raises:
        OSError: It is not there, or not for this user.
    """
    try:
        return opener(path, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        raise
    except OSError:  # a read-only file system, or another user's file
        return opener(path, os.O_RDONLY)


def try_lock(descriptor: int) -> bool:
    """Lock the file until the descriptor is closed; returns False when it is locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_holder(descriptor: int) -> Holder:
    """Return the holder in the file; an empty `Holder` while it is being taken.

    The token counts in this very file only: a copy of a state folder is another project.
    """
    try:
        pid, started, token, inode = os.pread(descriptor, 200, 0).decode().split()
        is_copy = int(inode) != os.fstat(descriptor).st_ino
        return Holder(int(pid), float(started), "" if is_copy else token)
    except ValueError:
        return Holder()


def read_token(path: Path) -> str:
    """Return the token in a lock file, or ""."""
    try:
        descriptor = opener(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return read_holder(descriptor).token
    finally:
        os.close(descriptor)


def write_holder(descriptor: int, token: str) -> None:
    """Write this process as the holder into the locked file."""
    _write(descriptor, Holder(os.getpid(), start_time(os.getpid()) or 0.0, token))


def write_free(descriptor: int) -> None:
    """Write that no supervisor holds the project."""
    _write(descriptor, Holder(token=read_holder(descriptor).token))


def _write(descriptor: int, holder: Holder) -> None:
    words = (*holder, os.fstat(descriptor).st_ino)
    written = os.pwrite(descriptor, " ".join(map(str, words)).encode(), 0)
    os.ftruncate(descriptor, written)  # afterwards: a kill in between must not cost the token
