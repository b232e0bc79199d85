"""Process groups: who lives in them, and how to end them so that nobody is left."""

import contextlib
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping

import psutil

TOKEN_VARIABLE = "PBUS_GUARD_TOKEN"  # noqa: S105 - its name
# The same for the project's own servers, which root runs as another user. Nobody inherits it.
SERVER_TOKEN_VARIABLE = "PBUS_GUARD_SERVER_TOKEN"  # noqa: S105 - its name

PROJECT_VARIABLE = "PBUS_PROJECT"  # what a `pbus` in a worker means; a user may set it, too
STATE_VARIABLE = "PBUS_STATE_DIR"  # that very project, should several have its name
TOKEN_BITS = 128  # so that nobody guesses one

_POLL_S = 0.1
_SAME_BIRTH_S = 1.0
_GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)

logger = logging.getLogger(__name__)


def start_time(pid: int) -> float | None:
    """When a process began, to tell it from a later one with its number; None if it is gone.

    Comparable within one boot only. Not Unix time where the kernel counts from boot (Linux):
    that would change whenever the clock is set.
    """
    try:
        created = psutil.Process(pid).create_time()
    except (psutil.Error, OSError):
        return None
    return created - psutil.boot_time() if sys.platform == "linux" else created


def is_same_process(pid: int, born: float) -> bool:
    """Whether the process that began then still runs under this number."""
    now = start_time(pid)
    return now is not None and abs(now - born) <= _SAME_BIRTH_S and _lives(psutil.Process(pid))


def members(groups: Collection[int]) -> list[psutil.Process]:
    """All living processes of these groups; a zombie does not count, a leaderless group does.

    Raises:
        OSError: The system has no room for a look.
    """
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getpgid(pid) in groups:
                found.append(psutil.Process(pid))
    return [process for process in found if _lives(process)]


def orphans_with_token(token: str) -> list[psutil.Process]:
    """All living processes of this user that inherited the token, whatever group they moved to.

    This process and its ancestors are never strays: they started what is to be ended.
    """
    if not token:
        return []
    own = psutil.Process()
    spared = {own.pid, *(parent.pid for parent in own.parents())}
    found = []
    for pid in psutil.pids():
        if pid in spared:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if _is_marked(process, token):
                found.append(process)
    return [process for process in found if _lives(process)]


def is_empty(group: int) -> bool:
    """Whether no living process is left in the group; cheap once the kernel has forgotten it."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # macOS, when only zombies are left; or a member changed its user
        pass
    try:
        return not members((group,))
    except OSError:  # no room to look: ask again
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """The children of a process, and theirs; none where it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except (psutil.Error, OSError):
        return []


def living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended."""
    return [process for process in processes if process.is_running() and _lives(process)]


def describe_group(group: int) -> str:
    """Who is left of a group, in words."""
    try:
        return describe(members((group,)))
    except OSError:
        return f"process group {group}"


def describe(processes: Iterable[psutil.Process]) -> str:
    """Processes in words: `process 7 (sleep) of user root`."""
    texts = []
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            texts.append(f"process {process.pid} ({process.name()}) of user {process.username()}")
    return ", ".join(texts) or "its processes"


def send_signal(group: int, number: int) -> bool:
    """Signal every member of a group; that it is empty already is no error.

    Returns:
        False where not one of its members may be signalled.
    """
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def open_process(pid: int) -> int | None:
    """A descriptor that is readable when a child has ended; None where the system has none.

    Raises:
        OSError: There is no room for another descriptor.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM, errno.EINVAL}:  # an old kernel, a sandbox
            return None
        raise


def end_all(
    groups: Mapping[int, float | None], token: str | None, *, grace_s: float, kill_s: float
) -> list[int]:
    """End groups and strays by SIGTERM, then SIGKILL, and wait until nobody is left. Blocks.

    Args:
        groups: Group numbers with the birth of their leader (None: unknown), so that a group
            which meanwhile belongs to another program is left alone.
        token: Also end the strays that carry it.
        grace_s: How long SIGTERM may take.
        kill_s: How long to go on with SIGKILL.

    Returns:
        The processes that are still there.
    """
    ours = {group for group, born in groups.items() if not _is_reused(group, born)}
    told: set[psutil.Process] = set()
    denied: set[psutil.Process] = set()  # another user's: no use to wait for them
    end_of_grace = time.monotonic() + grace_s
    while (left := _living(ours, token, denied)) != set() and time.monotonic() < end_of_grace:
        for process in (left or set()) - told:
            if not _signal(process, signal.SIGTERM):  # once each: again means "at once" to many
                denied.add(process)
        told |= left or set()
        time.sleep(_POLL_S)
    deadline = time.monotonic() + kill_s
    while (left := _living(ours, token, denied)) != set() and time.monotonic() < deadline:
        for group in ours:
            send_signal(group, signal.SIGKILL)  # as a whole: members may be forking meanwhile
        for process in left or ():
            _signal(process, signal.SIGKILL)
        time.sleep(_POLL_S)
    return sorted(process.pid for process in {*(left or ()), *living(denied)})


def _is_marked(process: psutil.Process, token: str) -> bool:
    environ = process.environ()
    if environ.get(TOKEN_VARIABLE) == token:
        return process.uids().real == os.geteuid()
    return environ.get(SERVER_TOKEN_VARIABLE) == token


def _living(
    groups: Collection[int], token: str | None, denied: Collection[psutil.Process]
) -> set[psutil.Process] | None:
    """Who lives and may be ended; None while the system has no room for a look."""
    try:
        found = set(members(groups)) if groups else set()
        return (found if token is None else found | set(orphans_with_token(token))) - set(denied)
    except OSError as error:
        logger.warning("cannot look who is left: %s", error)
        return None


def _is_reused(group: int, born: float | None) -> bool:
    # A number stays taken while any member of its group lives, so only a living leader of
    # another birth tells of another group.
    leader = start_time(group)
    return born is not None and leader is not None and abs(leader - born) > _SAME_BIRTH_S


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() not in _GONE
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, OSError):
        return True


def _signal(process: psutil.Process, number: signal.Signals) -> bool:
    """Signal a process; False where that is not permitted."""
    try:
        process.send_signal(number)
    except psutil.AccessDenied:
        return False
    except (psutil.Error, OSError):
        pass
    return True
