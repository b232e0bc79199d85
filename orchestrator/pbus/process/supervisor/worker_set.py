"""All workers of one supervisor: what is known of them together, and orders to all of them."""

import asyncio
from collections.abc import Iterator

from pbus.errors import TopologyError
from pbus.observe import ProcessRecord
from pbus.process.supervisor.usage import Meter
from pbus.process.supervisor.worker_process import WorkerProcess
from pbus.topology.model import Topology, WorkerInstance


class WorkerSet:
    """The actors of one supervisor, by the names of their instances.

    Args:
        topology: Who there is.
        only: Names of workers (or of single replicas) to have; all when empty.
        hurry: Once set, whoever is being stopped is killed.

    Raises:
        TopologyError: `only` names what the topology does not have.
    """

    def __init__(self, topology: Topology, only: frozenset[str], hurry: asyncio.Event) -> None:
        self._actors = {one.name: WorkerProcess(one, hurry) for one in _chosen(topology, only)}
        self._meter = Meter()

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(self._actors.values())

    def __getitem__(self, name: str) -> WorkerProcess:
        return self._actors[name]

    def get(self, name: str) -> WorkerProcess | None:
        """The worker of that name, if there is one."""
        return self._actors.get(name)

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will by itself."""
        return all(actor.is_over for actor in self)

    @property
    def has_failed(self) -> bool:
        """Whether somebody failed."""
        return any(actor.state == "failed" for actor in self)

    @property
    def has_left_the_bus(self) -> bool:
        """Whether no process runs that joins the bus."""
        return all(actor.child is None for actor in self if actor.joins)

    @property
    def survivors(self) -> dict[str, str]:
        """The workers of which something lives that cannot be ended, and what."""
        return {actor.name: actor.survivors for actor in self if actor.survivors}

    def dismiss(self) -> None:
        """Restart nobody any more; whoever is ready may finish."""
        for actor in self:
            actor.dismiss()

    def stop(self, timeout_s: float | None = None) -> None:
        """Take everybody down, all at the same time and for good.

        Args:
            timeout_s: Seconds that their jobs in hand get; None: the usual.
        """
        for actor in self:
            actor.dismiss()
            actor.stop(timeout_s)

    def measure(self) -> None:
        """Look at what the processes cost."""
        running = {actor.child.pid: actor for actor in self if actor.child}
        usages = self._meter.look(list(running))
        for pid, actor in running.items():
            actor.usage = usages.get(pid)

    def records(self) -> tuple[ProcessRecord, ...]:
        """Everybody, in the order of the topology."""
        return tuple(actor.record() for actor in self)

    def living(self) -> list[str]:
        """The incarnations of the processes that run."""
        children = (actor.child for actor in self)
        return [child.incarnation for child in children if child and child.code is None]

    def note_ready(self, worker: str, incarnation: str) -> None:
        """The registry has a worker as ready; strangers and earlier lives are not meant."""
        actor = self._actors.get(worker)
        if actor is not None:
            actor.note_ready(incarnation)


def _chosen(topology: Topology, only: frozenset[str]) -> list[WorkerInstance]:
    instances = topology.instances()
    known = {*topology.workers, *(one.name for one in instances)}
    if strangers := sorted(only - known):
        there = ", ".join(topology.workers)
        problems = [f"{topology.file}: no worker is named {name!r} ({there})" for name in strangers]
        raise TopologyError(topology.file, problems)
    return [one for one in instances if not only or {one.name, one.spec.name} & only]
