"""The lock file of a project: who holds it, and the secret mark of all that was started for it."""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from pbus.process.system.groups import start_time


class Holder(NamedTuple):
    """What a lock file says.

    Attributes:
        pid: The supervisor's; 0 while there is none.
        born: Its `groups.start_time`.
        token: On every process of the project; "" before the first run.
    """

    pid: int = 0
    born: float = 0.0
    token: str = ""


def open_lock(path: Path) -> int:
    """Open the file, to look at it: for reading only where it cannot be written.

    Raises:
        OSError: It is not there, or not for this user.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        raise
    except OSError:  # a read-only file system, or somebody else's file
        return os.open(path, os.O_RDONLY)


def try_lock(descriptor: int) -> bool:
    """Lock the file for as long as the descriptor is open; False when another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_holder(descriptor: int) -> Holder:
    """Who wrote itself into the file; an empty `Holder` while it is being taken.

    The token counts in this very file only: a copy of a state folder is another project.
    """
    try:
        pid, born, token, inode = os.pread(descriptor, 200, 0).decode().split()
        is_copy = int(inode) != os.fstat(descriptor).st_ino
        return Holder(int(pid), float(born), "" if is_copy else token)
    except ValueError:
        return Holder()


def read_token(path: Path) -> str:
    """The token in a lock file, "" where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return read_holder(descriptor).token
    finally:
        os.close(descriptor)


def write_holder(descriptor: int, token: str) -> None:
    """Write this process into the file that it has locked."""
    _write(descriptor, Holder(os.getpid(), start_time(os.getpid()) or 0.0, token))


def write_free(descriptor: int) -> None:
    """Write that no supervisor holds the project any more."""
    _write(descriptor, Holder(token=read_holder(descriptor).token))


def _write(descriptor: int, holder: Holder) -> None:
    words = (*holder, os.fstat(descriptor).st_ino)
    written = os.pwrite(descriptor, " ".join(map(str, words)).encode(), 0)
    os.ftruncate(descriptor, written)  # afterwards: a kill in between must not cost the token
