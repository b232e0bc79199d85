"""The key of a project's own broker: made once, kept in the state folder, for this user alone."""

import contextlib
import os
from pathlib import Path

from pbus.errors import ProcessError
from pbus.seal import new_key

_NAME = "key"
_LONGEST = 1024


def keep_key(folder: Path, key: str) -> None:
    """Write a key down where there is none: messages that the broker keeps are sealed with it.

    Raises:
        OSError: It cannot be written.
    """
    with contextlib.suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(folder / _NAME, flags, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key)


def own_key(folder: Path) -> str:
    """The key that lies in a state folder; a new one where there is none.

    It stays over restarts: messages that the broker keeps are sealed with it.

    Raises:
        ProcessError: It cannot be read or written.
    """
    path = folder / _NAME
    try:
        keep_key(folder, new_key())
        with path.open(encoding="ascii") as file:
            key = file.read(_LONGEST).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ProcessError(
            f"the key of the embedded broker, {path}, cannot be used: {error}",
            hint="make the file readable, or remove it: kept messages are then refused",
        ) from error
    if not key:  # a full disk, or the end of a machine, came between
        path.unlink()
        return own_key(folder)
    return key
