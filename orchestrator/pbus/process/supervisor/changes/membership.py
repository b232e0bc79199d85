"""The workers of a running project and their tasks: added, taken out, and awaited at the end."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from pbus.names import group_of
from pbus.process.supervisor.start_order import StartOrder
from pbus.process.supervisor.worker.host import ProcessHost
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.process.supervisor.worker_set import WorkerSet
from pbus.topology.model import WorkerInstance


class MembershipHooks(Protocol):
    """Called at changes. None of them raises."""

    async def open_queues(self, worker: str) -> None:
        """Open the queues of a worker that was added; it is started then."""
        ...

    async def drop_queue(self, worker: str) -> None:
        """Remove the queue of a replica that has left; others get the messages in it."""
        ...

    async def drop_queues(self) -> None:
        """Remove the queues of workers that are not in the file any more: those have ended."""
        ...

    def on_worker_ended(self) -> None:
        """The task of a worker has ended."""
        ...


class Membership:
    """Runs one task a worker.

    Args:
        workers: The workers.
        order: Their order.
        hooks: Called at changes.
    """

    def __init__(
        self,
        workers: WorkerSet,
        order: StartOrder,
        hooks: MembershipHooks,
    ) -> None:
        self._workers = workers
        self._order = order
        self._hooks = hooks
        self._has_left_queues = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup
        self._host: ProcessHost

    def open(self, group: asyncio.TaskGroup, host: ProcessHost) -> None:
        """Start the tasks of all workers.

        Args:
            group: Owns the tasks.
            host: Starts processes.
        """
        self._group, self._host = group, host
        for worker in self._workers:
            self.spawn(self._run(worker, is_added=False), worker.name)

    def add(self, instance: WorkerInstance) -> WorkerProcess:
        """Add a worker and start it; one that is still leaving is started again after its end."""
        leaving = self._workers.get(instance.name)
        if leaving is not None and leaving.name == instance.name:  # not only one of several in it
            leaving.adopt(instance)
            self._order.keep(leaving)
            return leaving
        worker = self._workers.add(instance)
        self._order.refresh()
        self.spawn(self._run(worker, is_added=True), worker.name)
        return worker

    def refresh(self) -> None:
        """Take the dependencies of the workers as they are now."""
        self._order.refresh()

    def take_out(self, names: Iterable[str]) -> None:
        """End workers in order, and remove them then."""
        workers = [worker for name in names if (worker := self._workers.get(name))]
        for worker in workers:
            worker.target.is_leaving = True
        self._order.take_out(workers)

    def drop_left_queues(self) -> None:
        """Drop the queues of workers that are not in the file, once those have ended."""
        self._has_left_queues = True
        self._drop_if_settled()

    def spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Run a task of the project's; it ends by itself once all workers are stopped."""
        task = self._group.create_task(work, name=f"pbus {what}")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def closed(self) -> None:
        """Wait until the tasks of all workers have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, worker: WorkerProcess, *, is_added: bool) -> None:
        if is_added:
            for name in worker.names:
                await self._hooks.open_queues(name)
        await worker.run(self._host)
        if worker.target.is_leaving and not worker.status.survivors:
            self._workers.remove(worker.name)
            self._order.refresh()
            if group_of(worker.name) is not None:
                self.spawn(self._hooks.drop_queue(worker.name), f"queue of {worker.name}")
            self._drop_if_settled()
        self._hooks.on_worker_ended()

    def _drop_if_settled(self) -> None:
        if self._has_left_queues and not any(one.target.is_leaving for one in self._workers):
            self._has_left_queues = False
            self.spawn(self._hooks.drop_queues(), "queues of workers that left")

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._order.stop_next()
