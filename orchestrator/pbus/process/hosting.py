"""Hosts the workers of one process: all in order, and no longer than all of them work."""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from pbus.errors import PbusError
from pbus.registry import WorkerErrorData
from pbus.runner import WorkerRunner
from pbus.workers.base_worker import BaseWorker

logger = logging.getLogger(__name__)


class Hosting:
    """Runs workers until all have ended, or one has failed.

    Args:
        runner: Not started.
        workers: Each with the names of others here that must be ready before it is started.
    """

    def __init__(
        self, runner: WorkerRunner, workers: Iterable[tuple[BaseWorker, Sequence[str]]]
    ) -> None:
        self._runner = runner
        self._workers = tuple(workers)
        self._names = frozenset(worker.name for worker, _ in self._workers)
        self._late: list[asyncio.Task[None]] = []
        self._has_failed = False

    async def run(self) -> int:
        """Run them; returns the exit code: 1 where a worker has failed."""
        await self._runner.add_workers(*(worker for worker, after in self._workers if not after))
        self._runner.add_event_handler("on_ready", self._start_late)
        self._runner.add_event_handler("on_error", self._on_error)
        try:
            await self._runner.run()
        finally:
            for task in self._late:
                task.cancel()
            await asyncio.gather(*self._late, return_exceptions=True)
        failed = any(error.worker_name in self._names for error in self._runner.errors)
        return int(failed or self._has_failed)

    def _start_late(self, _runner: WorkerRunner) -> None:
        self._late = [
            asyncio.create_task(self._start(worker, after), name=f"pbus start of {worker.name}")
            for worker, after in self._workers
            if after
        ]

    async def _start(self, worker: BaseWorker, after: Sequence[str]) -> None:
        for name in after:
            await self._runner.registry.wait_ready(name)
        try:
            await self._runner.add_workers(worker)
        except PbusError as error:
            logger.error("worker %s cannot be started: %s", worker.name, error)  # noqa: TRY400
            await self._fail(worker.name)

    async def _on_error(self, _runner: WorkerRunner, data: WorkerErrorData) -> None:
        if data.worker_name in self._names:
            await self._fail(data.worker_name)

    async def _fail(self, name: str) -> None:
        """End all workers: they are started again together."""
        is_first, self._has_failed = not self._has_failed, True
        if is_first and len(self._workers) > 1:
            await self._runner.end(f"{name} has failed, and ends with all workers of its process")
