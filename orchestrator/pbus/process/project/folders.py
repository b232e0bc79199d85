"""Private folders of the user who runs pbus: state that stays, sockets that go."""

import hashlib
import logging
import os
import re
import stat
from pathlib import Path

from pbus.errors import ProcessError
from pbus.process.system.regular_files import kind_of

logger = logging.getLogger(__name__)

# Linux takes 107 bytes and macOS 103 for the path of a Unix socket.
MAX_SOCKET_PATH = 100

# In a state folder, beside those that end in `.json`; all others without a dot may be folders.
STATE_FILES = frozenset({
    "incarnations", "key", "lock", "purge", "queues", "stop_timeout", "stored_count", "supervisor",
})  # fmt: skip


def state_root() -> Path:
    """Return the folder of the logs and records of all projects of this user.

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
    """Return the folders for sockets, best first; the last is short on every system."""
    roots = []
    configured = os.environ.get("XDG_RUNTIME_DIR", "")
    # `su` and `sudo -E` pass another user's.
    if Path(configured).is_absolute() and _is_own(configured):
        roots.append(Path(configured) / "pbus")
    roots.append(Path("/tmp") / f"pbus-{os.geteuid()}")  # noqa: S108 - make_private() checks it
    return roots


def folder_id(name: str, *parts: str, width: int = 48) -> str:
    """Return a readable folder name that is unique to name and parts."""
    digest = hashlib.sha256("\0".join((name, *parts)).encode("utf-8", "surrogateescape"))
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:width]
    return f"{readable}-{digest.hexdigest()[:8]}"


def refuse_foreign_path(folder: Path) -> None:
    """Make sure that, for root, no other user can exchange a parent of a folder.

    Files of root would follow that user's links (`sudo` with another user's HOME or
    XDG_STATE_HOME).

    Raises:
        ProcessError: One can.
    """
    risk = _exchange_risk(folder)
    if risk:
        raise _unusable(folder, f"{risk}, and pbus runs as root")


def _exchange_risk(folder: Path) -> str:
    """Describe a user that can put another folder, or a link, in the place of one of root's; or ""."""
    if os.geteuid() != 0:
        return ""
    real = Path(os.path.realpath(folder))
    for parent in (*folder.parents[:-1], *real.parents[:-1]):
        try:
            found = parent.stat()
        except OSError:
            continue  # it does not exist yet
        if found.st_uid != 0:
            return f"user id {found.st_uid} can change {parent}"
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return f"any user can change {parent}"
    return ""


def make_private(folder: Path) -> None:
    """Create the folder for this user alone, or make sure that it is such a folder.

    Other users can write to the parent (`/tmp`), so an existing folder is not trusted: a symbolic
    link or another user's folder is refused.

    Raises:
        ProcessError: The folder cannot be created or belongs to another user.
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


def refuse_odd_files(folder: Path) -> None:
    """Make sure that a state folder has files where pbus has files.

    Workers run without their logs.

    Raises:
        ProcessError: A pipe, a socket, a device, a folder or a dead link is in the place of one.
        OSError: The folder is not accessible.
    """
    logs = folder / "logs"
    for path in (*folder.iterdir(), *logs.iterdir()):
        kind = kind_of(path)
        is_folder = kind == "a folder" and path.suffix == "" and path.name not in STATE_FILES
        if kind not in {"", "a file"} and not is_folder:
            raise ProcessError(
                f"cannot use {path}: it is {kind}", hint="remove it: pbus makes what it needs there"
            )
    for path in (logs / "workers").iterdir():
        if (kind := kind_of(path)) not in {"", "a file"}:
            logger.warning("%s is %s: what the worker writes is not kept", path, kind)


def _is_own(folder: str) -> bool:
    try:
        is_own = Path(folder).stat().st_uid == os.geteuid()
    except OSError:
        return False
    return is_own and not _exchange_risk(Path(folder))


def _unusable(folder: Path, reason: str) -> ProcessError:
    return ProcessError(
        f"cannot use the folder {folder}: {reason}",
        hint="it must be a real folder of the user who runs pbus; remove what is there, or set"
        " XDG_RUNTIME_DIR (sockets) and XDG_STATE_HOME (logs) to other places",
    )
