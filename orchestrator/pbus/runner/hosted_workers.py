"""The workers of one runner: taken in, launched, stopped together."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pbus.bus.base import WorkerBus
from pbus.errors import DuplicateWorkerError, RunnerStateError
from pbus.registry import WorkerRegistry
from pbus.runner.hosted_worker import HostedWorker, Worker

logger = logging.getLogger(__name__)

CANCEL_TIMEOUT_S = 5.0  # what workers get to stop at once
FORCE_TIMEOUT_S = 1.0  # what a cancelled task gets to clean up before it is left behind


class HostedWorkers:
    """Workers by name, each with a task of its own.

    Args:
        name: The runner's.
        bus: Delivers to the workers.
        registry: Knows the workers.
        report: Told of each worker that failed.
        on_ended: Called when a worker has ended, after its report.
    """

    def __init__(
        self,
        name: str,
        bus: WorkerBus,
        registry: WorkerRegistry,
        *,
        report: Callable[[Worker, BaseException], Awaitable[None]],
        on_ended: Callable[[], None],
    ) -> None:
        self._name = name
        self._bus = bus
        self._registry = registry
        self._report = report
        self._on_ended = on_ended
        self._hosted: dict[str, HostedWorker] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._running: set[asyncio.Task[None]] = set()
        # Not that of the handler which happens to add a worker.
        self._context = contextvars.copy_context()

    @property
    def is_empty(self) -> bool:
        """Whether no worker is left."""
        return not self._hosted and not self._running

    def get(self, name: str) -> HostedWorker | None:
        """The hosting of the worker of that name."""
        return self._hosted.get(name)

    def workers(self) -> list[Worker]:
        """All workers."""
        return [hosting.worker for hosting in self._hosted.values()]

    def roots(self) -> list[HostedWorker]:
        """Those that no other worker owns."""
        return [hosting for hosting in self._hosted.values() if hosting.is_root]

    def waiting(self) -> list[HostedWorker]:
        """Those not launched yet."""
        return [hosting for hosting in self._hosted.values() if not hosting.is_launched]

    def take(self, workers: Sequence[Worker]) -> list[HostedWorker]:
        """Take workers in under their names, all or none, without launching them.

        Raises:
            DuplicateWorkerError: A name is taken here.
        """
        taken = {self._name, *self._hosted}
        for worker in workers:
            if worker.name in taken:
                raise DuplicateWorkerError(worker.name, f"this runner, {self._name!r}")
            taken.add(worker.name)
        hostings = [HostedWorker(worker, self._bus, self._registry) for worker in workers]
        self._hosted.update({hosting.name: hosting for hosting in hostings})
        return hostings

    def drop(self, hostings: Iterable[HostedWorker]) -> None:
        """Forget workers, unless they run."""
        for hosting in hostings:
            if hosting.task is None and self._hosted.get(hosting.name) is hosting:
                del self._hosted[hosting.name]

    async def launch(self, hosting: HostedWorker) -> None:
        """Register and start a worker; does nothing when that was begun before.

        Raises:
            DuplicateWorkerError: Its name is taken on the channel; it is forgotten here.
            BusUnavailableError: The broker does not answer; likewise.
            RunnerStateError: The runner began to stop meanwhile; likewise.
        """
        if hosting.is_launched:
            return
        hosting.is_launched = True
        try:
            await hosting.open()
        except BaseException:
            self.drop([hosting])
            raise
        if self._hosted.get(hosting.name) is not hosting:  # dropped meanwhile: all is stopping
            await hosting.close()
            raise RunnerStateError(self._name, "is stopping and takes no workers")
        self._idle.clear()
        work, name = self._host(hosting), f"pbus worker {hosting.name}"
        hosting.task = asyncio.create_task(work, name=name, context=self._context.copy())
        self._running.add(hosting.task)

    async def end(self, reason: str | None) -> None:
        """Have all workers end behind what was sent to them before, and wait for it.

        Children end through their parents.
        """
        await self.end_some(self.roots(), reason)
        await self._idle.wait()

    async def end_some(
        self, hostings: Iterable[HostedWorker], reason: str | None, timeout_s: float | None = None
    ) -> None:
        """Have some workers end behind what was sent to them before, and wait for it."""
        running = [hosting for hosting in hostings if hosting.task is not None]
        await asyncio.gather(
            *(hosting.ask_to_end(self._name, reason, timeout_s) for hosting in running)
        )
        await _ended(running)

    async def cancel(self, hostings: Iterable[HostedWorker] | None = None) -> None:
        """Stop workers (all, when not given) at once; those that do not obey are cancelled."""
        wanted = list(self._hosted.values() if hostings is None else hostings)
        self.drop(wanted)
        running = [hosting for hosting in wanted if hosting.task is not None]
        for hosting in running:
            hosting.worker.request_stop(drain=False)
        late = await _ended(running, CANCEL_TIMEOUT_S)
        for hosting in late:
            logger.warning("worker %s does not stop; its tasks are cancelled", hosting.name)
        self.force(late)
        for hosting in await _ended(late, FORCE_TIMEOUT_S):
            logger.error("worker %s ignores its cancellation; it is left behind", hosting.name)
            await hosting.close()
        if hostings is None and self._running:
            await asyncio.wait(self._running, timeout=CANCEL_TIMEOUT_S)

    def force(self, hostings: Iterable[HostedWorker] | None = None) -> None:
        """Cancel the tasks of workers (all, when not given)."""
        for hosting in list(self._hosted.values() if hostings is None else hostings):
            if hosting.task is not None:
                hosting.task.cancel()

    async def _host(self, hosting: HostedWorker) -> None:
        try:
            try:
                await hosting.run()
                await self.cancel(self._children_of(hosting))
            finally:
                if self._hosted.get(hosting.name) is hosting:
                    del self._hosted[hosting.name]  # the name is free, also for an error handler
            if hosting.error is not None:
                await self._report(hosting.worker, hosting.error)
        finally:
            task = asyncio.current_task()
            self._running = {other for other in self._running if other is not task}
            if not self._running:
                self._idle.set()
            self._on_ended()

    def _children_of(self, hosting: HostedWorker) -> list[HostedWorker]:
        return [other for other in self._hosted.values() if other.worker.parent is hosting.worker]


async def _ended(
    hostings: Sequence[HostedWorker], timeout_s: float | None = None
) -> list[HostedWorker]:
    """Wait until these have ended; those that have not in time."""
    tasks = [hosting.task for hosting in hostings if hosting.task is not None]
    if tasks:
        await asyncio.wait(tasks, timeout=timeout_s)
    return [hosting for hosting in hostings if hosting.task and not hosting.task.done()]
