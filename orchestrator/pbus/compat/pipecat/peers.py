"""The workers of other processes, made known to the registry of a Pipecat runner."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from pbus.bus import WorkerBus
from pbus.compat.pipecat import theirs
from pbus.concurrency.background import TaskOwner
from pbus.names import group_of
from pbus.registry import WorkerLostData, WorkerReadyData, WorkerRegistry
from pbus.registry.table import Change, WorkerJoined

logger = logging.getLogger(__name__)


class PeerRegistry(WorkerRegistry):
    """pbus' registry, which reports each change at once.

    Args:
        name: The address of this process.
        bus: Carries announcements.
        session: Of the workers of this process.
    """

    def __init__(self, name: str, bus: WorkerBus, session: str | None) -> None:
        super().__init__(name, bus, session)
        self.on_changes: Callable[[Iterable[Change]], None] = lambda _changes: None

    def _notify(self, changes: Iterable[Change]) -> None:
        found = list(changes)
        super()._notify(found)
        self.on_changes(found)


class Peers:
    """Answers Pipecat's registry for the workers of other processes.

    Args:
        registry: pbus' registry.
        runner: The runner of this process.
        on_lost: Called with each worker that was lost.
    """

    def __init__(
        self,
        registry: PeerRegistry,
        runner: theirs.WorkerRunner,
        on_lost: Callable[[WorkerLostData], None],
    ) -> None:
        self._registry = registry
        self._runner = runner
        self._on_lost = on_lost
        self._tasks = TaskOwner()
        registry.on_changes = self._apply

    async def close(self) -> None:
        """Stop to answer."""
        self._registry.on_changes = lambda _changes: None
        await self._tasks.close()

    def _apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if isinstance(change, WorkerLostData):
                for name in _names(change.worker_name):
                    if self._registry.get(name) is None or name == change.worker_name:
                        theirs.forget_worker(self._runner, _runner_of(change), name)
                self._on_lost(change)
            elif isinstance(change, WorkerJoined):
                self._join(change.data)

    def _join(self, data: WorkerReadyData) -> None:
        if data.runner == self._registry.runner_name:
            return
        for name in _names(data.worker_name):
            self._tasks.spawn(self._register(name, data), f"pbus peer {name}")

    async def _register(self, name: str, data: WorkerReadyData) -> None:
        """Register a worker, which calls those that watch for it: each worker in a task of its own."""
        known = self._registry.get(name)
        if known is None or known.incarnation != data.incarnation:
            return  # lost meanwhile, or another replica stands for the group
        try:
            await self._runner.registry.register(
                theirs.WorkerReadyData(worker_name=name, runner=_runner_of(data))
            )
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("what watches for worker %s raised", name)


def _names(worker: str) -> tuple[str, ...]:
    group = group_of(worker)
    return (worker,) if group is None else (worker, group)


def _runner_of(data: WorkerReadyData | WorkerLostData) -> str:
    """The name of a runner: of one incarnation, as Pipecat knows each only once."""
    return f"{data.runner}/{data.incarnation}"
