"""Process groups and marked processes: their members, signals, and their end."""

import contextlib
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import psutil

TOKEN_VARIABLE = "PBUS_GUARD_TOKEN"  # noqa: S105 - its name
# The same for the project's own servers, which root runs as another user. It is not inherited.
SERVER_TOKEN_VARIABLE = "PBUS_GUARD_SERVER_TOKEN"  # noqa: S105 - its name

TOKEN_BITS = 128  # cannot be guessed

_POLL_S = 0.1
_SAME_START_S = 1.0
_GONE = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)

logger = logging.getLogger(__name__)


def start_time(pid: int) -> float | None:
    """Return the start time of a process, which tells it from a later one of its pid; or None.

    Comparable within one boot only. Not Unix time where the kernel counts from boot (Linux):
    that would change whenever the clock is set.
    """
    try:
        created = psutil.Process(pid).create_time()
    except (psutil.Error, OSError):
        return None
    return created - psutil.boot_time() if sys.platform == "linux" else created


def is_same_process(pid: int, started: float) -> bool:
    """Whether the process of this pid and start time still runs."""
    now = start_time(pid)
    if now is None or abs(now - started) > _SAME_START_S:
        return False
    try:
        return _is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:  # it ended meanwhile
        return False


def members(groups: Collection[int]) -> list[psutil.Process]:
    """Return the live processes of groups, without zombies, also of groups without a leader.

    Raises:
        OSError: The system has no room to list them.
    """
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getpgid(pid) in groups:
                found.append(psutil.Process(pid))
    return [process for process in found if _is_alive(process)]


def orphans_with_token(token: str) -> list[psutil.Process]:
    """Return the live processes of this user that inherited the token, in any group.

    This process and its ancestors are left out: they started the others.
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
    return [process for process in found if _is_alive(process)]


def is_empty(group: int) -> bool:
    """Whether no live process is left in the group; cheap once the kernel has forgotten it."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # macOS, when only zombies are left; or a member changed its user
        pass
    try:
        return not members((group,))
    except OSError:  # no room to list them: retry
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """Return the descendants of a process; none where it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except (psutil.Error, OSError):
        return []


def live(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that have not ended."""
    return [process for process in processes if process.is_running() and _is_alive(process)]


def describe_group(group: int) -> str:
    """Describe the live processes of a group."""
    try:
        return describe(members((group,)))
    except OSError:
        return f"process group {group}"


def describe(processes: Iterable[psutil.Process]) -> str:
    """Describe processes: `process 7 (sleep) of user root`."""
    texts = []
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            texts.append(f"process {process.pid} ({process.name()}) of user {process.username()}")
    return ", ".join(texts) or "its processes"


def send_signal(group: int, number: int) -> bool:
    """Signal every member of a group; an empty group is no error.

    Returns:
        False where no member may be signalled.
    """
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def open_process(pid: int) -> int | None:
    """Return a descriptor that is readable when a child has ended; None where there is none.

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
    """End groups and orphans by SIGTERM, then SIGKILL, and wait for their end. Blocks.

    Args:
        groups: Group numbers with the start time of their leader (None: unknown), so that a group
            which meanwhile belongs to another program is left alone.
        token: Also end the orphans with this mark.
        grace_s: Seconds for SIGTERM.
        kill_s: Seconds for SIGKILL.

    Returns:
        The pids of processes that are left.
    """
    ending = _Ending({one for one, start in groups.items() if not _is_reused(one, start)}, token)
    ending.repeat(ending.terminate, grace_s)
    left = ending.repeat(ending.kill, kill_s)
    return sorted(process.pid for process in {*left, *live(ending.denied)})


class _Ending:
    """The end of groups and marked processes.

    Attributes:
        denied: Processes that may not be signalled: they are not waited for.
    """

    def __init__(self, groups: set[int], token: str | None) -> None:
        self.denied: set[psutil.Process] = set()
        self._groups = groups
        self._token = token
        self._terminated: set[psutil.Process] = set()

    def repeat(
        self, signal_all: Callable[[set[psutil.Process]], None], limit_s: float
    ) -> set[psutil.Process]:
        """Signal until no process is left, at most so long; returns those that are left."""
        deadline = time.monotonic() + limit_s
        while (left := self._live()) != set() and time.monotonic() < deadline:
            signal_all(left or set())
            time.sleep(_POLL_S)
        return left or set()

    def terminate(self, processes: set[psutil.Process]) -> None:
        """Send SIGTERM, once to each: a second one means "at once" to many programs."""
        for process in processes - self._terminated:
            if not _signal(process, signal.SIGTERM):
                self.denied.add(process)
        self._terminated |= processes

    def kill(self, processes: set[psutil.Process]) -> None:
        """Send SIGKILL, to groups as a whole: members may be forking meanwhile."""
        for group in self._groups:
            send_signal(group, signal.SIGKILL)
        for process in processes:
            _signal(process, signal.SIGKILL)

    def _live(self) -> set[psutil.Process] | None:
        """Return the live processes that may be ended; None while there is no room to list them."""
        try:
            found = set(members(self._groups)) if self._groups else set()
            if self._token is not None:
                found |= set(orphans_with_token(self._token))
        except OSError as error:
            logger.warning("cannot list the processes that are left: %s", error)
            return None
        return found - self.denied


def _is_marked(process: psutil.Process, token: str) -> bool:
    environ = process.environ()
    if environ.get(TOKEN_VARIABLE) == token:
        return process.uids().real == os.geteuid()
    return environ.get(SERVER_TOKEN_VARIABLE) == token


def _is_reused(group: int, started: float | None) -> bool:
    # A number stays taken while any member of its group is alive, so only a live leader with
    # another start time shows another group.
    leader = start_time(group)
    return started is not None and leader is not None and abs(leader - started) > _SAME_START_S


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() not in _GONE
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, OSError):
        return True


def _signal(process: psutil.Process, number: signal.Signals) -> bool:
    """Signal a process; returns False where that is not permitted."""
    try:
        process.send_signal(number)
    except psutil.AccessDenied:
        return False
    except (psutil.Error, OSError):
        pass
    return True
