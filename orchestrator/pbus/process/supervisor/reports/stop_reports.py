"""Reports of stopping workers: the number of messages that waited in them and are lost."""

import asyncio
from collections.abc import Iterable

from pbus.leases import process_of
from pbus.messages import WorkerRegistryEntry

_IN_TRANSIT_S = 1.0  # for an announcement that was sent before its process ended


class StopReports:
    """Collects the announcements of a supervisor's own processes."""

    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}  # by the prefix of their incarnations

    def add(self, incarnation: str) -> None:
        """Follow a process that is about to start."""
        self._processes[incarnation] = _Process()

    def on_announcement(self, entry: WorkerRegistryEntry) -> None:
        """Handle the announcement of a worker; those of other supervisors are ignored."""
        process = self._process_of(entry.incarnation)
        if process is None:
            return
        if entry.gone is None:
            process.present.add(entry.incarnation)
        else:
            process.present.discard(entry.incarnation)
            process.unhandled += entry.unhandled
            process.changed.set()

    def _process_of(self, incarnation: str) -> "_Process | None":
        # That of a process begins with what it was given, behind which stands a token: no search through all.
        process = self._processes.get(process_of(incarnation).rpartition("-")[0])
        if process is not None:
            return process
        found = (own for one, own in self._processes.items() if incarnation.startswith(one))
        return next(found, None)

    async def wait_for(self, incarnations: Iterable[str]) -> None:
        """Wait until the workers of ended processes have reported, at most a second."""
        processes = [self._processes[one] for one in incarnations if one in self._processes]
        try:
            async with asyncio.timeout(_IN_TRANSIT_S):
                for process in processes:
                    while process.present:
                        await process.changed.wait()
                        process.changed.clear()
        except TimeoutError:
            return

    def remove(self, incarnation: str) -> int:
        """Forget a process; returns the number of messages that it reported as lost."""
        process = self._processes.pop(incarnation, None)
        return 0 if process is None else process.unhandled


class _Process:
    """One process.

    Attributes:
        present: Incarnations of its workers that have not left.
        unhandled: Messages lost by those that have.
    """

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.unhandled = 0
        self.changed = asyncio.Event()
