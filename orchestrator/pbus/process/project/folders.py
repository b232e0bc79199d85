"""Folders that only the user who runs pbus can enter: state that stays, sockets that go."""

import hashlib
import os
import re
import stat
from pathlib import Path

from pbus.errors import ProcessError

# Linux takes 107 bytes and macOS 103 for the path of a Unix socket.
MAX_SOCKET_PATH = 100


def state_root() -> Path:
    """Where all projects of this user keep logs and records.

    Raises:
        ProcessError: The user has no home folder and XDG_STATE_HOME is not set.
    """
    configured = os.environ.get("XDG_STATE_HOME", "")
    if Path(configured).is_absolute():  # the XDG specification: a relative path is to be ignored
        return Path(configured) / "pbus"
    try:
        return Path.home() / ".local" / "state" / "pbus"
    except RuntimeError as error:
        raise ProcessError(
            "there is no home folder to keep state in", hint="set HOME or XDG_STATE_HOME"
        ) from error


def runtime_roots() -> list[Path]:
    """Where sockets may go, best first; the last is short on every system."""
    roots = []
    configured = os.environ.get("XDG_RUNTIME_DIR", "")
    # `su` and `sudo -E` pass another user's.
    if Path(configured).is_absolute() and _is_own(configured):
        roots.append(Path(configured) / "pbus")
    roots.append(Path("/tmp") / f"pbus-{os.geteuid()}")  # noqa: S108 - make_private() checks it
    return roots


def folder_id(name: str, *parts: str, width: int = 48) -> str:
    """A readable folder name that is unique to name and parts."""
    digest = hashlib.sha256("\0".join((name, *parts)).encode("utf-8", "surrogateescape"))
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:width]
    return f"{readable}-{digest.hexdigest()[:8]}"


def refuse_foreign_path(folder: Path) -> None:
    """Make sure that, where we are root, no other user can exchange what leads to a folder.

    What root writes there would follow that user's links (`sudo` with another user's HOME or
    XDG_STATE_HOME).

    Raises:
        ProcessError: One can.
    """
    stranger = _who_can_exchange(folder)
    if stranger:
        raise _unusable(folder, f"{stranger}, and pbus runs as root")


def _who_can_exchange(folder: Path) -> str:
    """Who can put another folder, or a link, in the place of one of root's; "" for nobody else."""
    if os.geteuid() != 0:
        return ""
    real = Path(os.path.realpath(folder))
    for parent in (*folder.parents[:-1], *real.parents[:-1]):
        try:
            found = parent.stat()
        except OSError:
            continue  # it is going to be made
        if found.st_uid != 0:
            return f"user id {found.st_uid} can change {parent}"
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return f"any user can change {parent}"
    return ""


def make_private(folder: Path) -> None:
    """Create the folder for this user alone, or make sure that it is such a folder.

    Others can write to the parent (`/tmp`), so what already lies there is not trusted: a symbolic
    link or another user's folder is refused.

    Raises:
        ProcessError: The folder cannot be created or belongs to somebody else.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise _unusable(folder, f"it belongs to user id {found.st_uid}")
        if found.st_mode & 0o077:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _is_own(folder: str) -> bool:
    try:
        is_own = Path(folder).stat().st_uid == os.geteuid()
    except OSError:
        return False
    return is_own and not _who_can_exchange(Path(folder))


def _unusable(folder: Path, reason: str) -> ProcessError:
    return ProcessError(
        f"cannot use the folder {folder}: {reason}",
        hint="it must be a real folder of the user who runs pbus; remove what is there, or set"
        " XDG_RUNTIME_DIR (sockets) and XDG_STATE_HOME (logs) to other places",
    )
