"""The workers of one runner: added, launched, and stopped together."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pbus.bus.base import WorkerBus
from pbus.errors import DuplicateWorkerError, RunnerStateError
from pbus.registry import WorkerRegistry
from pbus.runner.hosted_worker import HostedWorker, Worker

logger = logging.getLogger(__name__)

CANCEL_TIMEOUT_S = 5.0  # for workers to stop at once
FORCE_TIMEOUT_S = 1.0  # for a cancelled task to clean up


class HostedWorkers:
    """Workers by name, each with a task of its own.

    Args:
        name: The runner's.
        bus: Delivers to the workers.
        registry: Knows the workers.
        report: Called with each worker that failed, and its error.
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
        self._families: dict[int | None, dict[str, HostedWorker]] = {}  # see HostedWorker.family
        self._idle = asyncio.Event()
        self._idle.set()
        self._running: set[asyncio.Task[None]] = set()
        # Not the context of a handler that adds a worker.
        self._context = contextvars.copy_context()

    @property
    def is_empty(self) -> bool:
        """Whether no worker is left."""
        return not self._hosted and not self._running

    def get(self, name: str) -> HostedWorker | None:
        """The hosted worker of a name; None when there is none."""
        return self._hosted.get(name)

    def workers(self) -> list[Worker]:
        """All workers."""
        return [hosted.worker for hosted in self._hosted.values()]

    def roots(self) -> list[HostedWorker]:
        """The workers without a parent."""
        return list(self._families.get(None, {}).values())

    @property
    def has_roots(self) -> bool:
        """Whether a worker without a parent is left."""
        return None in self._families

    def waiting(self) -> list[HostedWorker]:
        """The workers that are not launched yet."""
        return [hosted for hosted in self._hosted.values() if not hosted.is_launched]

    def add(self, workers: Sequence[Worker]) -> list[HostedWorker]:
        """Add workers, all or none, without launching them.

        Args:
            workers: New workers.

        Raises:
            DuplicateWorkerError: A name is taken here.
        """
        taken = {self._name, *self._hosted}
        for worker in workers:
            if worker.name in taken:
                raise DuplicateWorkerError(worker.name, f"this runner, {self._name!r}")
            taken.add(worker.name)
        hosted_workers = [HostedWorker(worker, self._bus, self._registry) for worker in workers]
        for hosted in hosted_workers:
            self._hosted[hosted.name] = hosted
            self._families.setdefault(hosted.family, {})[hosted.name] = hosted
        return hosted_workers

    def drop(self, hosted_workers: Iterable[HostedWorker]) -> None:
        """Remove workers that do not run."""
        for hosted in hosted_workers:
            if hosted.task is None:
                self._remove(hosted)

    async def launch(self, hosted: HostedWorker) -> None:
        """Register and start a worker. Idempotent.

        Args:
            hosted: An added worker.

        Raises:
            DuplicateWorkerError: Its name is taken on the channel; it is removed here.
            BusUnavailableError: The broker does not answer; likewise.
            RunnerStateError: The runner began to stop meanwhile; likewise.
        """
        if hosted.is_launched:
            return
        hosted.is_launched = True
        try:
            await hosted.open()
        except BaseException:
            self.drop([hosted])
            raise
        if self._hosted.get(hosted.name) is not hosted:  # dropped meanwhile: the runner is stopping
            await hosted.close()
            raise RunnerStateError(self._name, "is stopping and takes no workers")
        self._idle.clear()
        work, name = self._host(hosted), f"pbus worker {hosted.name}"
        hosted.task = asyncio.create_task(work, name=name, context=self._context.copy())
        self._running.add(hosted.task)

    async def end(self, reason: str | None) -> None:
        """End all workers after earlier messages to them are handled; parents end their children.

        Args:
            reason: For people.
        """
        await self.end_some(self.roots(), reason)
        await self._idle.wait()

    async def end_some(
        self,
        hosted_workers: Iterable[HostedWorker],
        reason: str | None,
        timeout_s: float | None = None,
    ) -> None:
        """End some workers after earlier messages to them are handled, and wait for it.

        Args:
            hosted_workers: The workers.
            reason: For people.
            timeout_s: Seconds for their accepted jobs; None for the runner's end_timeout.
        """
        running = [hosted for hosted in hosted_workers if hosted.task is not None]
        await asyncio.gather(
            *(hosted.ask_to_end(self._name, reason, timeout_s) for hosted in running)
        )
        await _ended(running)

    def stop_starting(self) -> None:
        """Stop the workers that have not started: none of them has anything in hand."""
        for hosted in self._hosted.values():
            if hosted.task is not None and not hosted.worker.handles_messages:
                hosted.worker.request_stop(drain=False)

    async def cancel(self, hosted_workers: Iterable[HostedWorker] | None = None) -> None:
        """Stop workers (all, when not given) at once; cancel the tasks of those that do not stop."""
        wanted = list(self._hosted.values() if hosted_workers is None else hosted_workers)
        self.drop(wanted)
        running = [hosted for hosted in wanted if hosted.task is not None]
        for hosted in running:
            hosted.worker.request_stop(drain=False)
        late = await _ended(running, CANCEL_TIMEOUT_S)
        for hosted in late:
            logger.warning("worker %s does not stop; its tasks are cancelled", hosted.name)
        self.force(late)
        for hosted in await _ended(late, FORCE_TIMEOUT_S):
            logger.error("worker %s ignores its cancellation; it is left behind", hosted.name)
            await hosted.close()
        if hosted_workers is None and self._running:
            await asyncio.wait(self._running, timeout=CANCEL_TIMEOUT_S)

    def force(self, hosted_workers: Iterable[HostedWorker] | None = None) -> None:
        """Cancel the tasks of workers (all, when not given)."""
        for hosted in list(self._hosted.values() if hosted_workers is None else hosted_workers):
            if hosted.task is not None:
                hosted.task.cancel()

    async def _host(self, hosted: HostedWorker) -> None:
        try:
            try:
                await hosted.run()
                await self.cancel(self._children_of(hosted))
            finally:
                self._remove(hosted)  # the name is free before error handlers run
            if hosted.error is not None:
                await self._report(hosted.worker, hosted.error)
        finally:
            if (task := asyncio.current_task()) is not None:
                self._running.discard(task)
            if not self._running:
                self._idle.set()
            self._on_ended()

    def _children_of(self, hosted: HostedWorker) -> list[HostedWorker]:
        return list(self._families.get(id(hosted.worker), {}).values())

    def _remove(self, hosted: HostedWorker) -> None:
        """Forget a worker, unless another has its name. Idempotent."""
        if self._hosted.get(hosted.name) is not hosted:
            return
        del self._hosted[hosted.name]
        family = self._families[hosted.family]
        del family[hosted.name]
        if not family:
            del self._families[hosted.family]


async def _ended(
    hosted_workers: Sequence[HostedWorker], timeout_s: float | None = None
) -> list[HostedWorker]:
    """Wait until workers have ended.

    Returns:
        Those that have not in time.
    """
    tasks = [hosted.task for hosted in hosted_workers if hosted.task is not None]
    if tasks:
        await asyncio.wait(tasks, timeout=timeout_s)
    return [hosted for hosted in hosted_workers if hosted.task and not hosted.task.done()]
