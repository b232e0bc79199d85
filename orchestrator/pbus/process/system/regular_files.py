"""Regular files only: pbus never waits at a pipe, nor reads a device for ever, in the place of its files."""

import errno
import os
import stat
from pathlib import Path

_LONGEST = 64 * 1024 * 1024  # of what is read whole
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


def opener(path: str | Path, flags: int) -> int:
    """Open a regular file, for this user alone where it is made; the `opener` of open().

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.EISDIR}:  # a socket, a pipe without reader, a folder
            raise _not_regular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    os.set_blocking(descriptor, True)
    return descriptor


def read(path: Path) -> bytes:
    """Return the content of a file, at most 64 MiB.

    Raises:
        OSError: See opener().
    """
    with open(path, "rb", opener=opener) as file:
        return file.read(_LONGEST)


def write(path: Path, text: str, *, mode: str = "w") -> None:
    """Write a file, or with mode "a" to its end.

    Raises:
        OSError: See opener().
    """
    with open(path, mode, opener=opener) as file:
        file.write(text)


def kind_of(path: Path) -> str:
    """Describe what is there, links followed: "a file", "a folder" or other kinds; "" for nothing.

    Raises:
        OSError: It is not accessible.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else ""
    return _KINDS.get(stat.S_IFMT(mode), "no file")


def _not_regular(path: str | Path) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", str(path))
