"""The key of a project's embedded broker: made once, stored in the state folder for this user."""

import contextlib
import os
from pathlib import Path

from pbus.errors import BusKeyError, ProcessError
from pbus.process.system import safe_files
from pbus.seal import new_key, parse_keys

_NAME = "key"


def keep_key(folder: Path, key: str) -> None:
    """Write a key where there is none: stored messages are sealed with it.

    Raises:
        OSError: It cannot be written.
    """
    with contextlib.suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(folder / _NAME, flags, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key)


def own_key(folder: Path) -> str:
    """Return the key of a state folder; a new one where there is none.

    It outlives restarts: stored messages are sealed with it.

    Raises:
        ProcessError: It cannot be read or written, or is no key.
    """
    path = folder / _NAME
    try:
        keep_key(folder, new_key())
        key = safe_files.read(folder, _NAME).strip()
        if key:
            parse_keys(key)
            return key
        path.unlink()  # a full disk, or the end of a machine, came between
    except (OSError, BusKeyError) as error:
        problem = error.problem if isinstance(error, BusKeyError) else str(error)
        raise ProcessError(
            f"the key of the embedded broker, {path}, cannot be used: {problem}",
            hint="make it a readable file, or remove it: kept messages are then refused",
        ) from error
    return own_key(folder)
