"""The parts of a worker that jobs need, made when they are first used: most of very many have none."""

from collections.abc import Callable

from pbus.jobs.context import WorkerContext
from pbus.jobs.executor.executor import JobExecutor
from pbus.jobs.requester.client import JobClient
from pbus.jobs.requester.lost_workers import until_over
from pbus.registry import Replicas, Watch, WorkerLostData, WorkerRegistry


class JobParts:
    """Requests and does the jobs of one worker, from the moment it is attached to a runner.

    Args:
        registry: The runner's.
        new_context: Makes the context of the worker.
        max_queued: The number of jobs that are accepted at once.
        max_concurrency: The number of jobs that run at once; None for all.

    Attributes:
        made_client: Requests jobs; None before the first.
        made_executor: Does jobs; None before the first.
    """

    __slots__ = (
        "_context", "_loss_watch", "_max_concurrency", "_max_queued", "_new_context", "_registry", "_replicas",
        "made_client", "made_executor",
    )  # fmt: skip

    def __init__(
        self,
        registry: WorkerRegistry,
        new_context: Callable[[], WorkerContext],
        *,
        max_queued: int,
        max_concurrency: int | None,
    ) -> None:
        self._registry = registry
        self._new_context = new_context
        self._max_queued = max_queued
        self._max_concurrency = max_concurrency
        self._context: WorkerContext | None = None
        self._replicas: Replicas | None = None
        self._loss_watch: Watch[WorkerLostData] | None = None
        self.made_client: JobClient | None = None
        self.made_executor: JobExecutor | None = None

    @property
    def replicas(self) -> Replicas:
        """Chooses replicas for messages and jobs."""
        if self._replicas is None:
            self._replicas = Replicas(self._registry)
        return self._replicas

    def make_client(self) -> JobClient:
        """Make what requests jobs, once."""
        self.made_client = JobClient(self._known_context(), self.replicas)
        return self.made_client

    def make_executor(self) -> JobExecutor:
        """Make what does jobs, once."""
        context = self._known_context()
        self.made_executor = JobExecutor(context, self._max_queued, self._max_concurrency)
        return self.made_executor

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        """Deal with the jobs of a worker that is lost, and with those that it requested."""
        if self.made_executor is not None:
            self.made_executor.abandoned.on_worker_lost(data)
        if self.made_client is not None:
            await self.made_client.lost_workers.on_worker_lost(data)

    async def finish(self) -> None:
        """Wait until accepted jobs are answered, and requested ones over."""
        if self.made_executor is not None:
            await self.made_executor.responder.wait_idle()
        if self.made_client is not None:
            await until_over(self.made_client.groups.values(), self._registry)
            await self.made_client.until_told()

    async def close(self, reason: str) -> None:
        """Cancel all jobs.

        Args:
            reason: For other workers.
        """
        if self.made_client is not None:
            await self.made_client.close(reason)
        if self.made_executor is not None:
            await self.made_executor.close(reason)

    async def end(self, reason: str) -> None:
        """Hear of losses no more, and cancel what was requested meanwhile; arguments as for close()."""
        if self._loss_watch is not None:
            self._loss_watch.cancel()
        if self.made_client is not None:
            await self.made_client.close(reason)

    def _known_context(self) -> WorkerContext:
        if self._context is None:
            self._context = self._new_context()
            self._loss_watch = self._registry.watch_lost(None, self.on_worker_lost)
        return self._context
