"""All workers of one supervisor: their common state, and commands to all of them."""

import asyncio
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from pbus.leases import Lease
from pbus.observe import ProcessRecord
from pbus.process.supervisor.worker.start_slots import StartSlots
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.topology.model import WorkerInstance


class WorkerSet:
    """The workers of one supervisor, by the names of their instances.

    Args:
        chosen: The processes to run.
        kill_now: Once set, processes that are being stopped are killed.
    """

    def __init__(self, chosen: Iterable[WorkerInstance], kill_now: asyncio.Event) -> None:
        self._slots = StartSlots()
        self._kill_now = kill_now
        self._workers: dict[str, WorkerProcess] = {}
        for one in chosen:
            self.add(one)

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(self._workers.values())

    def __getitem__(self, name: str) -> WorkerProcess:
        worker = self.get(name)
        if worker is None:
            raise KeyError(name)
        return worker

    def get(self, name: str) -> WorkerProcess | None:
        """The process of the worker of that name, if there is one."""
        found = self._workers.get(name)
        return found or next((one for one in self._shared() if name in one.names), None)

    def _shared(self) -> Iterator[WorkerProcess]:
        return (one for one in self._workers.values() if len(one.names) > 1)

    def add(self, instance: WorkerInstance) -> WorkerProcess:
        """Add a worker of a new name, not yet running."""
        worker = WorkerProcess(instance, self._kill_now, slots=self._slots)
        self._workers[instance.name] = worker
        return worker

    def remove(self, name: str) -> None:
        """Remove a worker that has ended finally."""
        del self._workers[name]

    @property
    def is_over(self) -> bool:
        """Whether no process runs, and none will without a command or a change of files."""
        return all(worker.is_over and not worker.target.is_watched for worker in self)

    @property
    def has_failed(self) -> bool:
        """Whether a worker has failed."""
        return any(worker.status.state == "failed" for worker in self)

    @property
    def has_left_bus(self) -> bool:
        """Whether no process runs that joins the bus."""
        return all(worker.status.child is None for worker in self if worker.joins)

    @property
    def survivors(self) -> dict[str, str]:
        """Processes that could not be ended, as text, by worker."""
        return {one.name: one.status.survivors for one in self if one.status.survivors}

    @property
    def decisive(self) -> WorkerProcess | None:
        """A worker whose end is the end of the project, by its `on_exit`."""
        for worker in self:
            on_exit = worker.status.instance.spec.on_exit
            has_failed = worker.status.state == "failed"
            if worker.target.is_leaving:
                continue
            if worker.is_over and (on_exit == "stop" or (on_exit == "fail" and has_failed)):
                return worker
        return None

    def records(self) -> tuple[ProcessRecord, ...]:
        """Return the records of all workers, in the order of the topology."""
        return tuple(
            record if name == record.name else replace(record, name=name)
            for worker in self
            for record in (worker.status.record(),)
            for name in worker.names
            if name == worker.name
            or name not in self._workers  # else one that takes its place has it, too
        )

    def live_incarnations(self) -> list[str]:
        """Return the incarnations of the running processes."""
        children = (worker.status.child for worker in self)
        return [child.incarnation for child in children if child and child.code is None]

    def on_lease(self, lease: Lease, now: float) -> None:
        """Handle a lease of the registry: the state of its worker, and what it does."""
        worker = self.get(lease.name)
        child = None if worker is None else worker.status.child
        if worker is None or child is None or not lease.incarnation.startswith(child.incarnation):
            return
        worker.turn.free()
        worker.status.on_lease(lease, now)
        if lease.state == "ready":
            worker.on_ready(lease.incarnation, lease.name)

    def on_ready(self, worker: str, incarnation: str) -> None:
        """Handle a ready worker of the registry; other supervisors' workers are ignored."""
        if (process := self.get(worker)) is not None:
            process.on_ready(incarnation, worker)
