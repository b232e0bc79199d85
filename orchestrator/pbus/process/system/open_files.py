"""The limit on open files: raised for the supervisor, restored for workers."""

import contextlib
import errno
import os
import resource

_ENOUGH = 65_536  # a worker takes four: two pipes, its log and its process descriptor
_RESERVE = 64  # for the bus and the project's own files
_MIN_LOGS = 16

_before: tuple[int, int] | None = None  # the limits of the process that started this one


def raise_open_files() -> None:
    """Raise the soft limit on open files as far as is useful and allowed. Idempotent."""
    global _before  # noqa: PLW0603 - a limit of the whole process
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if _before is None and soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            _before = (soft, hard)


def restore_limit(pid: int) -> None:
    """Set a child's limit to that of this process before `raise_open_files`.

    It applies some microseconds after the child's program began: setting it between fork and exec
    would take Python code there, which is not safe beside threads.
    """
    prlimit = getattr(resource, "prlimit", None)  # Linux
    if prlimit is not None and _before is not None:
        with contextlib.suppress(OSError):  # the child is gone, or another user's by now
            prlimit(pid, resource.RLIMIT_NOFILE, _before)


def max_logs() -> int:
    """Return the number of log files that may be open at a time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else max(_MIN_LOGS, soft // 4)


def check_reserve() -> None:
    """Make sure that the files are left that the supervisor needs for itself.

    Raises:
        OSError: They are not.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptor = os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free
    os.close(descriptor)
    if soft != resource.RLIM_INFINITY and descriptor >= soft - _RESERVE:
        text = f"{os.strerror(errno.EMFILE)} (of {soft:,} allowed, `ulimit -n`)"
        raise OSError(errno.EMFILE, text)
