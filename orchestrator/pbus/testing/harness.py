"""WorkerHarness: one worker on a bus in memory; the test sends, and checks what it does."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pbus.errors import NotSeenError
from pbus.messages import (
    BusActivateWorkerMessage,
    BusDeactivateWorkerMessage,
    BusMessage,
    BusWorkerReadyMessage,
)
from pbus.testing.logged_errors import LoggedErrors
from pbus.testing.message_recorder import M, MessageRecorder, Where
from pbus.testing.recording_bus import RecordingBus
from pbus.testing.recording_runner import RecordingRunner
from pbus.testing.stand_in import StandIn
from pbus.workers.base_worker import BaseWorker

TESTER = "tester"
WAIT_S = 5.0

W = TypeVar("W", bound=BaseWorker)


class WorkerHarness(Generic[W]):
    """Runs a worker for a test: ``async with WorkerHarness(Greeter("greeter")) as harness: ...``.

    Entering returns when the worker has started, its first on_activated included. Leaving stops it,
    and raises the error that crashed it or that a hook or task raised: in production it is logged.

    Args:
        worker: The worker under test.
        others: Workers that start before it, StandIns or real ones.
        timeout: Seconds that each wait may take.

    Attributes:
        worker: The worker under test.
        tester: A plain worker of the test: sends, requests jobs, watches.
        bus: The bus of all of them.
    """

    def __init__(self, worker: W, *others: BaseWorker, timeout: float = WAIT_S) -> None:
        self.worker = worker
        self.tester = BaseWorker(TESTER)
        self.bus = RecordingBus(self._note_sent)
        self._others = others
        self._timeout = timeout
        self._recorder = MessageRecorder(f"{worker.name!r} sent")
        self._logged_errors = LoggedErrors()
        self._runner = RecordingRunner(self.bus)
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._logged_errors.open()
        self._running = asyncio.create_task(self._runner.run(auto_end=False), name="pbus test")
        try:
            everyone: tuple[BaseWorker, ...] = (self.tester, *self._others, self.worker)
            for worker in everyone:
                await self._runner.launch(worker, self._timeout)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()
        if error is None:
            self._runner.raise_failure(self.worker)
            self._raise_logged_errors()

    @property
    def errors(self) -> list[Exception]:
        """Errors of hooks and tasks so far; clear it where they are expected."""
        return self._logged_errors.errors

    # To the worker

    async def send(self, message: BusMessage) -> None:
        """Send a message; if it is for the worker, wait until it was handled or refused.

        A handler that waits for a job of its own counts as done; the next message waits for it.

        Raises:
            NotSeenError: It takes longer than the timeout, or the worker ended before.
            Exception: The error of the worker's on_bus_message.
        """
        handling = None
        if message.target in {None, self.worker.name}:
            handling = self.bus.handling(self.worker.name, message)
        await self.tester.send_bus_message(message)
        if handling is None:
            return
        await asyncio.wait([handling], timeout=self._timeout)
        if not handling.done() or handling.cancelled():
            handling.cancel()
            raise NotSeenError(f"{self.worker.name!r} did not handle {message}", self._timeout)
        if (error := handling.exception()) is not None:
            self._logged_errors.forget(error)
            raise error

    async def job(
        self,
        name: str,
        payload: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the job's own
    ) -> dict[str, Any]:
        """Request a job of the worker, and return its response.

        For updates, streams and cancelling use ``harness.tester.job(...)``.

        Raises:
            JobError: There was no response, or an error; see BaseWorker.job.
        """
        timeout = self._timeout if timeout is None else timeout
        request = self.tester.job(self.worker.name, name=name, payload=payload, timeout=timeout)
        async with request:
            pass
        return dict(request.response)

    async def activate(self, args: dict[str, Any] | None = None) -> None:
        """Activate the worker, and wait until its on_activated is done."""
        target = self.worker.name
        await self.send(BusActivateWorkerMessage(source=TESTER, target=target, args=args))

    async def deactivate(self) -> None:
        """Deactivate the worker, and wait until its on_deactivated is done."""
        await self.send(BusDeactivateWorkerMessage(source=TESTER, target=self.worker.name))

    # From the worker

    async def sent(self, kind: type[M], *, where: Where[M] | None = None) -> M:
        """The next message of a kind that the worker sent and no call returned before.

        Raises:
            NotSeenError: It sent none in time; names the others that it sent.
        """
        return await self._recorder.next(kind, where, self._timeout)

    @property
    def messages(self) -> list[BusMessage]:
        """The messages that the worker has sent so far."""
        return list(self._recorder)

    async def ended(self) -> None:
        """Wait until the worker has ended by itself.

        Raises:
            NotSeenError: It has not in time.
            Exception: The error that crashed it.
        """
        await self._runner.until_gone(self.worker, self._timeout)

    # Other workers

    async def add_worker(self, name: str, answers: Mapping[str, Any] | None = None) -> StandIn:
        """Start another worker: a StandIn that records its messages and answers jobs."""
        stand_in = StandIn(name, answers, timeout=self._timeout)
        await self._runner.launch(stand_in, self._timeout)
        return stand_in

    async def remove_worker(self, name: str) -> None:
        """Stop another worker; its watchers are told of its loss."""
        await self._runner.remove_workers(name, timeout=self._timeout)

    # Internal

    def _note_sent(self, message: BusMessage) -> None:
        if message.source == self.worker.name and not isinstance(message, BusWorkerReadyMessage):
            self._recorder.add(message)

    def _raise_logged_errors(self) -> None:
        errors = self.errors
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup(f"hooks or tasks of {self.worker.name!r} raised", errors)

    async def _close(self) -> None:
        try:
            if self._running is not None:
                await self._runner.cancel("the test is over")
                await self._running
        finally:
            self._logged_errors.close()
