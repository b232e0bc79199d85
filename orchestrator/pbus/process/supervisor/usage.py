"""What worker processes cost, seen from outside."""

import msgspec
import psutil


class Usage(msgspec.Struct, frozen=True):
    """Of one process.

    Attributes:
        cpu_percent: Of one core, since the last look.
        rss_bytes: Memory that it holds.
    """

    cpu_percent: float
    rss_bytes: int


class Meter:
    """Looks at processes by pid; remembers each so that CPU is a rate."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}

    def look(self, pids: list[int]) -> dict[int, Usage]:
        """The usage of those pids that run; the first look at a pid reads 0 % CPU."""
        self._processes = {
            pid: process
            for pid in pids
            if (process := self._processes.get(pid) or _find(pid)) is not None
        }
        usages = ((pid, _usage(process)) for pid, process in self._processes.items())
        return {pid: usage for pid, usage in usages if usage is not None}


def _find(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except (psutil.Error, OSError):  # OSError: no room for another file
        return None


def _usage(process: psutil.Process) -> Usage | None:
    try:
        with process.oneshot():
            return Usage(process.cpu_percent(), process.memory_info().rss)
    except (psutil.Error, OSError):  # OSError: no room for another file
        return None
