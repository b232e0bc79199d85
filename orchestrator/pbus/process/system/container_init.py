"""The init of a container: reaps orphans and passes signals on, as tini does."""

import ctypes
import errno
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def go_on_in_child() -> int | None:
    """Continue in a child where this process is the parent of orphans (pid 1, or a subreaper).

    To be called before any thread is started.

    Returns:
        None in the process that continues; the exit code for its parent.
    """
    if not _adopts_orphans():
        return None
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    main = os.fork()
    if main == 0:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # a kill of the parent ends both
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    while (code := _reap(main)) is None:
        received = signal.sigwaitinfo(signal.valid_signals())
        # The terminal's own signals (a code above 0) reach the child without us.
        if received.si_signo != signal.SIGCHLD and received.si_code <= 0:
            os.kill(main, received.si_signo)
    return code


def is_subreaper() -> bool:
    """Whether orphans among the descendants of this process become its children."""
    value = ctypes.c_int()
    failed = _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value))
    return not failed and bool(value.value)


def set_subreaper(*, adopts: bool) -> None:
    """Have orphans among the descendants of this process become its children, or not.

    Raises:
        OSError: The system does not allow it.
    """
    if _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(adopts)):
        raise OSError(errno.EPERM, "prctl(PR_SET_CHILD_SUBREAPER) is refused")


def _adopts_orphans() -> bool:
    return os.getpid() == 1 or (sys.platform == "linux" and is_subreaper())


def _prctl(option: int, argument: Any) -> int:
    zero = ctypes.c_ulong(0)
    failed: int = ctypes.CDLL(None).prctl(option, argument, zero, zero, zero)
    return failed


def _reap(main: int) -> int | None:
    """Reap ended processes; returns the exit code once the main process has ended."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if pid != main:
            continue
        if os.WIFSTOPPED(status):
            os.kill(os.getpid(), signal.SIGSTOP)  # Ctrl-Z; the shell waits for this process
        elif os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        else:
            return 128 + os.WTERMSIG(status)
