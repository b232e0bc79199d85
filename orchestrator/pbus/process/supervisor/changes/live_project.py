"""The workers of a supervisor, with all that decides which of them run, and when."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from pbus.concurrency.background import TaskFunction
from pbus.process.supervisor.changes.applied import Applied
from pbus.process.supervisor.changes.applying import Changes
from pbus.process.supervisor.changes.membership import Membership
from pbus.process.supervisor.changes.recycling import Recycling
from pbus.process.supervisor.changes.rolling import Rolling
from pbus.process.supervisor.code_watch import CodeWatch
from pbus.process.supervisor.start_order import StartOrder
from pbus.process.supervisor.worker.usage import UsageMeter
from pbus.process.supervisor.worker_set import WorkerSet
from pbus.process.supervisor_events import Event
from pbus.topology.model import Topology


class Queues(Protocol):
    """The durable queues of the workers. Neither call raises."""

    async def open_queues(self, worker: str, groups: frozenset[str]) -> None:
        """Open the queues of a worker that was added; `groups` are all names of replicas."""
        ...

    async def drop_queue(self, worker: str) -> None:
        """Remove the queue of a replica that has left; others get the messages in it."""
        ...

    async def drop_queues(self, kept: Iterable[str]) -> None:
        """Remove all queues but these, with the messages in them."""
        ...


class LiveProject:
    """The workers of a supervisor.

    Args:
        applied: What runs from the start.
        kill_now: Once set, processes that are being stopped are killed.
        state_dir: The project's state folder.
        on_worker_ended: Called when the task of a worker has ended.

    Attributes:
        workers: The workers by name.
        order: The order in which they start and stop.
        membership: Their tasks.
        changes: Changes of them.
        rolling: Restarts of them one after the other.
        queues: Their queues; None before the supervisor is on the bus.
    """

    def __init__(
        self,
        applied: Applied,
        kill_now: asyncio.Event,
        state_dir: Path,
        on_worker_ended: Callable[[], None],
    ) -> None:
        self.queues: Queues | None = None
        self._on_worker_ended = on_worker_ended
        self.workers = WorkerSet(applied.instances(), kill_now)
        self.order = StartOrder(self.workers, kill_now)
        self.membership = Membership(self.workers, self.order, self)
        self.rolling = Rolling(
            self.workers, self.membership, self.order, self._topology, on_worker_ended
        )
        self.changes = Changes(
            applied,
            self.workers,
            self.membership,
            state_dir,
            self._on_applied,
            self.rolling.groups.intersection,
        )
        self._meter = UsageMeter()
        self._recycling = Recycling(self.workers, self.rolling)
        self._code_watch = CodeWatch(applied.topology, self.workers, is_on=applied.is_watching)

    def tasks(self) -> Mapping[str, TaskFunction]:
        """Return the background tasks by name, each to be run until cancelled."""
        return {"watching of files": self._code_watch.run}

    def measure(self) -> None:
        """Measure the processes; called each second."""
        running = {one.status.child.pid: one.status for one in self.workers if one.status.child}
        usages = self._meter.measure(list(running))
        for pid, status in running.items():
            status.usage = usages.get(pid)
            if status.usage is not None:
                status.facts.add_usage(status.usage)
        self._recycling.check()

    def on_change(self, event: Event) -> None:
        """Handle an event of a worker."""
        self.order.on_change(event)
        self.rolling.notify()

    def _topology(self) -> Topology:
        return self.changes.applied.topology

    # Hooks of the membership: see membership.MembershipHooks

    def on_worker_ended(self) -> None:
        """The task of a worker has ended."""
        self.rolling.notify()
        self._on_worker_ended()

    async def open_queues(self, worker: str) -> None:
        """Open the queues of a worker that was added."""
        if self.queues is not None:
            await self.queues.open_queues(worker, self.changes.applied.topology.groups())

    async def drop_queue(self, worker: str) -> None:
        """Remove the queue of a replica that has left; others get the messages in it."""
        if self.queues is not None and self.workers.get(worker) is None:  # else it is back
            await self.queues.drop_queue(worker)

    async def drop_queues(self) -> None:
        """Remove the queues of workers that are not in the file any more."""
        kept = [*self.changes.applied.topology.queues(), *(one.name for one in self.workers)]
        if self.queues is not None:
            await self.queues.drop_queues(kept)

    def _on_applied(self, applied: Applied, is_of_file: bool) -> None:  # noqa: FBT001
        self._code_watch.refresh(applied.topology, is_on=applied.is_watching)
        self.order.refresh()
        if is_of_file:
            self.membership.drop_left_queues()
