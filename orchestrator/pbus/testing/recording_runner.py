"""The runner of a harness: keeps what crashed its workers, and can be waited for."""

from typing import Any

from pbus.bus import WorkerBus
from pbus.errors import NotSeenError
from pbus.runner import WorkerRunner
from pbus.testing.change_signal import ChangeSignal
from pbus.workers.base import BaseWorker


class WatchedRunner(WorkerRunner):
    """A WorkerRunner for one test.

    Attributes:
        failures: What crashed workers, by name.
    """

    def __init__(self, bus: WorkerBus) -> None:
        super().__init__(bus=bus, name="test-runner", session="test", handle_sigint=False)
        self.failures: dict[str, BaseException] = {}
        self._bell = ChangeSignal()

    async def launch(self, worker: BaseWorker, limit_s: float) -> None:
        """Add a worker and wait until it has started, its first hook included.

        Raises:
            NotSeenError: It has not in time.
            Exception: What kept it from starting.
        """
        await self.add_workers(worker)
        task = worker.create_task(self._ring_when_begun(worker))
        try:
            has_begun = await self._bell.until(
                lambda: worker._begun.is_set() or self.is_gone(worker),  # noqa: SLF001 - one house
                limit_s,
            )
        finally:
            task.cancel()
        self.raise_failure(worker)
        if not has_begun:
            raise NotSeenError(f"{worker.name!r} did not start", limit_s)

    async def until_gone(self, worker: BaseWorker, limit_s: float) -> None:
        """Wait until a worker has ended.

        Raises:
            NotSeenError: It has not in time.
            Exception: What crashed it.
        """
        is_gone = await self._bell.until(lambda: self.is_gone(worker), limit_s)
        self.raise_failure(worker)
        if not is_gone:
            raise NotSeenError(f"{worker.name!r} did not end", limit_s)

    def is_gone(self, worker: BaseWorker) -> bool:
        """Whether the runner has this worker no longer."""
        return self.get_worker(worker.name) is not worker

    def raise_failure(self, worker: BaseWorker) -> None:
        """Raise what crashed a worker, once."""
        failure = self.failures.pop(worker.name, None)
        if failure is not None:
            raise failure

    async def _ring_when_begun(self, worker: BaseWorker) -> None:
        await worker._begun.wait()  # noqa: SLF001 - one house
        self._bell.ring()

    async def _report(self, worker: Any, error: BaseException) -> None:
        self.failures.setdefault(worker.name, error)
        self._bell.ring()
        await super()._report(worker, error)

    def _on_ended(self) -> None:
        self._bell.ring()
        super()._on_ended()
