"""All workers of one supervisor: their common state, and commands to all of them."""

import asyncio
from collections.abc import Iterator

from pbus.errors import TopologyError
from pbus.observe import ProcessRecord
from pbus.process.supervisor.worker.usage import UsageMeter
from pbus.process.supervisor.worker.worker_process import WorkerProcess
from pbus.topology.model import Topology, WorkerInstance


class WorkerSet:
    """The workers of one supervisor, by the names of their instances.

    Args:
        topology: Declares them.
        only: Names of workers or single replicas; empty for all.
        kill_now: Once set, processes that are being stopped are killed.

    Raises:
        TopologyError: `only` names a worker that the topology does not have.
    """

    def __init__(self, topology: Topology, only: frozenset[str], kill_now: asyncio.Event) -> None:
        self._workers = {
            one.name: WorkerProcess(one, kill_now) for one in _selected(topology, only)
        }
        self._meter = UsageMeter()

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(self._workers.values())

    def __getitem__(self, name: str) -> WorkerProcess:
        return self._workers[name]

    def get(self, name: str) -> WorkerProcess | None:
        """The worker of that name, if there is one."""
        return self._workers.get(name)

    @property
    def is_over(self) -> bool:
        """Whether no process runs, and none will without a command."""
        return all(worker.is_over for worker in self)

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

    def finish_and_stop(self) -> None:
        """Start no further process; ready workers may end by themselves."""
        for worker in self:
            worker.finish_and_stop()

    def stop(self, timeout_s: float | None = None) -> None:
        """Stop all workers at the same time, finally.

        Args:
            timeout_s: Seconds for running jobs; None for the default.
        """
        for worker in self:
            worker.finish_and_stop()
            worker.stop(timeout_s)

    def measure(self) -> None:
        """Measure the resource usage of the processes."""
        running = {one.status.child.pid: one.status for one in self if one.status.child}
        usages = self._meter.measure(list(running))
        for pid, status in running.items():
            status.usage = usages.get(pid)

    def records(self) -> tuple[ProcessRecord, ...]:
        """Return the records of all workers, in the order of the topology."""
        return tuple(worker.status.record() for worker in self)

    def live_incarnations(self) -> list[str]:
        """Return the incarnations of the running processes."""
        children = (worker.status.child for worker in self)
        return [child.incarnation for child in children if child and child.code is None]

    def on_ready(self, worker: str, incarnation: str) -> None:
        """Handle a ready worker of the registry; other supervisors' workers are ignored."""
        if worker in self._workers:
            self._workers[worker].on_ready(incarnation)


def _selected(topology: Topology, only: frozenset[str]) -> list[WorkerInstance]:
    instances = topology.instances()
    known = {*topology.workers, *(one.name for one in instances)}
    if unknown := sorted(only - known):
        there = ", ".join(topology.workers)
        problems = [f"{topology.file}: no worker is named {name!r} ({there})" for name in unknown]
        raise TopologyError(topology.file, problems)
    return [one for one in instances if not only or {one.name, one.spec.name} & only]
