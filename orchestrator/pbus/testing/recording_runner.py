"""The runner of a harness: records the errors that crashed its workers."""

from typing import Any

from pbus.bus import WorkerBus
from pbus.errors import NotSeenError
from pbus.runner import WorkerRunner
from pbus.testing.change_signal import ChangeSignal
from pbus.workers.base_worker import BaseWorker


class RecordingRunner(WorkerRunner):
    """A WorkerRunner for one test.

    Attributes:
        failures: The errors that crashed workers, by worker name.
    """

    def __init__(self, bus: WorkerBus) -> None:
        super().__init__(
            bus=bus, name="test-runner", session="test", handle_sigint=False, handle_sigterm=False
        )
        self.failures: dict[str, BaseException] = {}
        self._changes = ChangeSignal()

    async def launch(self, worker: BaseWorker, timeout_s: float) -> None:
        """Add a worker and wait until it has started, its first hook included.

        Raises:
            NotSeenError: It has not in time.
            Exception: The error that kept it from starting.
        """
        await self.add_workers(worker)
        task = worker.create_task(self._notify_when_started(worker))
        try:
            has_started = await self._changes.wait_for(
                lambda: worker._has_started.is_set or self.is_gone(worker),  # noqa: SLF001 - of one library
                timeout_s,
            )
        finally:
            task.cancel()
        self.raise_failure(worker)
        if not has_started:
            raise NotSeenError(f"{worker.name!r} did not start", timeout_s)

    async def until_gone(self, worker: BaseWorker, timeout_s: float) -> None:
        """Wait until a worker has ended.

        Raises:
            NotSeenError: It has not in time.
            Exception: The error that crashed it.
        """
        is_gone = await self._changes.wait_for(lambda: self.is_gone(worker), timeout_s)
        self.raise_failure(worker)
        if not is_gone:
            raise NotSeenError(f"{worker.name!r} did not end", timeout_s)

    def is_gone(self, worker: BaseWorker) -> bool:
        """Whether the worker has left the runner."""
        return self.get_worker(worker.name) is not worker

    def raise_failure(self, worker: BaseWorker) -> None:
        """Raise the error that crashed a worker, once."""
        failure = self.failures.pop(worker.name, None)
        if failure is not None:
            raise failure

    async def _notify_when_started(self, worker: BaseWorker) -> None:
        await worker._has_started.wait()  # noqa: SLF001 - of one library
        self._changes.notify()

    async def _report(self, worker: Any, error: BaseException) -> None:
        self.failures.setdefault(worker.name, error)
        self._changes.notify()
        await super()._report(worker, error)

    def _on_ended(self) -> None:
        self._changes.notify()
        super()._on_ended()
