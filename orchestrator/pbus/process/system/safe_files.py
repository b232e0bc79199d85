"""Files in a folder that another user can change, also meanwhile: links are not followed."""

import os
import stat
from pathlib import Path

_LONGEST = 64 * 1024


def append(folder: Path, name: str, text: str) -> None:
    """Write to the end of an existing file; see `_open`."""
    _write(folder, name, text, keep=True)


def replace(folder: Path, name: str, text: str) -> None:
    """Replace the content of an existing file; see `_open`."""
    _write(folder, name, text, keep=False)


def read(folder: Path, name: str) -> str:
    """Return the first 64 KiB of a file; see `_open`."""
    descriptor = _open(folder, name, os.O_RDONLY)
    try:
        return os.read(descriptor, _LONGEST).decode(errors="replace")
    finally:
        os.close(descriptor)


def remove(folder: Path, name: str) -> None:
    """Remove a file, if it is there.

    Raises:
        OSError: The folder is a link, or not accessible.
    """
    directory = _open_folder(folder)
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    finally:
        os.close(directory)


def _write(folder: Path, name: str, text: str, *, keep: bool) -> None:
    descriptor = _open(folder, name, os.O_WRONLY | os.O_APPEND)
    with os.fdopen(descriptor, "w") as file:
        if not keep:
            file.truncate(0)
        file.write(text)


def _open(folder: Path, name: str, flags: int) -> int:
    """Open a file; does not wait at a pipe.

    Raises:
        OSError: It, or the folder, is not there or is a link; or it is not a file of the folder's
            owner and of this folder alone.
    """
    directory = _open_folder(folder)
    try:
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(name, flags, dir_fd=directory)
        found, owner = os.fstat(descriptor), os.fstat(directory).st_uid
    finally:
        os.close(directory)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != owner:
        os.close(descriptor)
        raise PermissionError(f"{folder / name} is not a file of this folder and its owner alone")
    return descriptor


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
