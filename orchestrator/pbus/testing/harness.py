"""WorkerHarness: one worker on a bus in memory, and a test that plays the rest of the world."""

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
from pbus.testing.recording_bus import WatchedBus
from pbus.testing.recording_runner import WatchedRunner
from pbus.testing.stand_in import StandIn
from pbus.workers.base import BaseWorker

TESTER = "tester"
WAIT_S = 5.0

W = TypeVar("W", bound=BaseWorker)


class WorkerHarness(Generic[W]):
    """Runs a worker for a test: ``async with WorkerHarness(Greeter("greeter")) as harness: ...``.

    Entering returns when the worker has started, its first on_activated included. Leaving stops it,
    and raises what crashed it or what its hooks and tasks raised: in production that is logged.

    Args:
        worker: The worker under test.
        others: Workers that are there before it, StandIns or real ones.
        timeout: Seconds that each wait may take.

    Attributes:
        worker: The worker under test.
        tester: A plain worker that speaks for the test: sends, asks for jobs, watches.
        bus: What all of them are on.
    """

    def __init__(self, worker: W, *others: BaseWorker, timeout: float = WAIT_S) -> None:
        self.worker = worker
        self.tester = BaseWorker(TESTER)
        self.bus = WatchedBus(self._note_sent)
        self._others = others
        self._timeout = timeout
        self._ledger = MessageRecorder(f"{worker.name!r} sent")
        self._swallowed = LoggedErrors()
        self._runner = WatchedRunner(self.bus)
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._swallowed.open()
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
            self._raise_swallowed()

    @property
    def errors(self) -> list[Exception]:
        """What hooks and tasks raised so far; clear it if that was meant to happen."""
        return self._swallowed.errors

    # What the worker is told

    async def send(self, message: BusMessage) -> None:
        """Send a message; if it is for the worker, wait until it was handled or refused.

        A handler that waits for a job of its own counts as done here; the next message waits for it.

        Raises:
            NotSeenError: It takes longer than the timeout, or the worker ended before.
            Exception: What the worker's on_bus_message raised.
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
            self._swallowed.forget(error)
            raise error

    async def job(
        self,
        name: str,
        payload: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the job's own
    ) -> dict[str, Any]:
        """Ask the worker for a job, and return its answer.

        For updates, streams and cancelling use ``harness.tester.job(...)``.

        Raises:
            JobError: There was no answer, or it was an error; see BaseWorker.job.
        """
        limit_s = self._timeout if timeout is None else timeout
        asked = self.tester.job(self.worker.name, name=name, payload=payload, timeout=limit_s)
        async with asked:
            pass
        return dict(asked.response)

    async def activate(self, args: dict[str, Any] | None = None) -> None:
        """Activate the worker, and wait until its on_activated is done."""
        target = self.worker.name
        await self.send(BusActivateWorkerMessage(source=TESTER, target=target, args=args))

    async def deactivate(self) -> None:
        """Deactivate the worker, and wait until its on_deactivated is done."""
        await self.send(BusDeactivateWorkerMessage(source=TESTER, target=self.worker.name))

    # What the worker does

    async def sent(self, kind: type[M], *, where: Where[M] | None = None) -> M:
        """The next message of a kind that the worker sent and that was not asked for before.

        Raises:
            NotSeenError: It sent none in time; says what it sent instead.
        """
        return await self._ledger.take(kind, where, self._timeout)

    @property
    def messages(self) -> list[BusMessage]:
        """All that the worker has sent so far."""
        return list(self._ledger)

    async def ended(self) -> None:
        """Wait until the worker has ended by itself.

        Raises:
            NotSeenError: It has not in time.
            Exception: What crashed it.
        """
        await self._runner.until_gone(self.worker, self._timeout)

    # Others

    async def add_worker(self, name: str, answers: Mapping[str, Any] | None = None) -> StandIn:
        """Have another worker become ready: a StandIn that keeps what it gets, and answers."""
        stand_in = StandIn(name, answers, timeout=self._timeout)
        await self._runner.launch(stand_in, self._timeout)
        return stand_in

    async def remove_worker(self, name: str) -> None:
        """Have another worker leave: whoever watches it is told of its loss."""
        await self._runner.remove_workers(name, timeout=self._timeout)

    # Within

    def _note_sent(self, message: BusMessage) -> None:
        if message.source == self.worker.name and not isinstance(message, BusWorkerReadyMessage):
            self._ledger.add(message)

    def _raise_swallowed(self) -> None:
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
            self._swallowed.close()
