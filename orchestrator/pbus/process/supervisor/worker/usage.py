"""CPU and memory usage of worker processes, measured from outside."""

import contextlib
import os
from collections.abc import Collection

import msgspec
import psutil

from pbus.process.system import groups

MOST_AT_ONCE = 100  # some 80 us each


class Usage(msgspec.Struct, frozen=True):
    """Usage of one process.

    Attributes:
        cpu_percent: Percent of one core since the last measurement.
        rss_bytes: Resident memory.
        os_state: As psutil has it: "running", "sleeping", "stopped".
    """

    cpu_percent: float
    rss_bytes: int
    os_state: str = ""


class UsageMeter:
    """Measures processes by pid, of very many some at a time; remembers each so that CPU is a rate."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}
        # Those that were measured longest ago come first; None: it cannot be.
        self._usages: dict[int, Usage | None] = {}

    def measure(self, pids: list[int]) -> dict[int, Usage]:
        """Return the usage of the pids that run; the first measurement of a pid is 0 % CPU.

        Args:
            pids: Of all processes; MOST_AT_ONCE of them are measured now, new ones first.
        """
        for gone in self._usages.keys() - set(pids):
            del self._usages[gone]
            self._processes.pop(gone, None)
        new = [pid for pid in pids if pid not in self._usages]
        for pid in [*new, *self._usages][:MOST_AT_ONCE]:
            self._measure_one(pid)
        return {pid: usage for pid, usage in self._usages.items() if usage is not None}

    def _measure_one(self, pid: int) -> None:
        process = self._processes.pop(pid, None) or _find(pid)
        usage = None if process is None else _usage(process)
        self._usages.pop(pid, None)
        self._usages[pid] = usage
        if process is not None and usage is not None:
            self._processes[pid] = process


def _find(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except (psutil.Error, OSError):  # OSError: no room for another file
        return None


def _usage(process: psutil.Process) -> Usage | None:
    try:
        with process.oneshot():
            return Usage(process.cpu_percent(), process.memory_info().rss, process.status())
    except (psutil.Error, OSError):  # OSError: no room for another file
        return None


def group_memory(pids: Collection[int]) -> dict[int, int]:
    """Return the resident memory of process groups in bytes, by the pids of their leaders."""
    used: dict[int, int] = {}
    if not pids:
        return used
    with contextlib.suppress(OSError):  # no room to list them: the next second
        for member in groups.members(pids):
            with contextlib.suppress(psutil.Error, OSError):
                group = os.getpgid(member.pid)
                used[group] = used.get(group, 0) + member.memory_info().rss
    return used
