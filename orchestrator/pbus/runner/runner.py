"""WorkerRunner: hosts workers in this process and ends them in order."""

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar

from pbus.bus.base import WorkerBus
from pbus.bus.memory import AsyncQueueBus
from pbus.bus.subscriber import BusSubscriber
from pbus.concurrency.background import TaskOwner
from pbus.concurrency.backoff import Backoff
from pbus.concurrency.event_source import EventSource
from pbus.concurrency.waiting import first_of
from pbus.errors import (
    BrokerRefusedError,
    BusUnavailableError,
    DuplicateWorkerError,
    PbusError,
    RunnerStateError,
)
from pbus.ids import new_token
from pbus.jobs.listing import BusJobsRequestMessage
from pbus.messages import (
    BusAddWorkerMessage,
    BusCancelMessage,
    BusEndMessage,
    BusMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerRegistryMessage,
)
from pbus.registry import WorkerErrorData, WorkerRegistry
from pbus.runner.hosted_worker import HostedWorker, Worker, one_line
from pbus.runner.hosted_workers import HostedWorkers
from pbus.runner.open_jobs import reply_with_open_jobs
from pbus.runner.signals import signals_to
from pbus.runner.type_checks import BusAcceptanceRequestMessage, answer_acceptance

logger = logging.getLogger(__name__)

_TRY_S = 5.0  # one attempt to reach the broker, of many
END_TIMEOUT_S = 30.0  # what workers get to finish what is queued
_EVENTS_TIMEOUT_S = 2.0
_REPORT_TIMEOUT_S = 2.0
_CANCEL_S = 1.0
_MAX_ERRORS = 100

_CONCERNING = (
    BusWorkerRegistryMessage,
    BusEndMessage,
    BusCancelMessage,
    BusJobsRequestMessage,
    BusAcceptanceRequestMessage,
)


class WorkerRunner(EventSource, BusSubscriber):
    """Runs workers on a bus until they have finished, or it is told to end.

    Events: ``on_ready(runner)`` when the bus works and the workers were started,
    ``on_error(runner, data: WorkerErrorData)`` when a worker failed.

    Args:
        bus: The bus; one within this process when not given. A bus that was not started yet is
            started by `run` and stopped at its end.
        name: Unique among the runners of the channel; random when not given.
        session: What end() and cancel() of a worker end: all runners of the same session. When not
            given, that of the `pbus up` which started this process (PBUS_SESSION), else its own.
        handle_sigint: Cancel on Ctrl-C.
        handle_sigterm: Cancel on SIGTERM.
        start_timeout: Seconds that a bus which `run` starts gets to reach its broker. None: as long
            as it takes, for the workers to register, too, unless the broker refuses them.
    """

    EVENTS: ClassVar[frozenset[str]] = frozenset({"on_ready", "on_error"})
    is_durable = False  # what concerns runners is about now

    def __init__(
        self,
        *,
        bus: WorkerBus | None = None,
        name: str | None = None,
        session: str | None = None,
        handle_sigint: bool = True,
        handle_sigterm: bool = False,
        start_timeout: float | None = 5.0,
    ) -> None:
        super().__init__()
        self.name = name or f"runner-{new_token(32)}"
        self.session = session or os.environ.get("PBUS_SESSION") or new_token()
        self.bus = bus or AsyncQueueBus()
        self.registry = WorkerRegistry(self.name, self.bus, self.session)
        self.registry.on_refused = self._on_refused
        self.end_timeout = END_TIMEOUT_S
        self._start_timeout = start_timeout
        self._signals = [
            number
            for number, wanted in (
                (signal.SIGINT, handle_sigint),
                (signal.SIGTERM, handle_sigterm),
            )
            if wanted
        ]
        self._household = HostedWorkers(
            self.name,
            self.bus,
            self.registry,
            report=self._report,
            on_ended=self._on_ended,
        )
        self._errors: deque[WorkerErrorData] = deque(maxlen=_MAX_ERRORS)
        self._state = "new"
        self._auto_end = True
        self._owns_bus = False
        self._hurry = asyncio.Event()
        self._done = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._tasks = TaskOwner()

    def __repr__(self) -> str:
        return f"<WorkerRunner {self.name!r}>"

    @property
    def errors(self) -> list[WorkerErrorData]:
        """The workers that failed, oldest first; the last hundred."""
        return list(self._errors)

    def get_worker(self, name: str) -> Any:
        """The worker of that name on this runner, or None."""
        hosting = self._household.get(name)
        return None if hosting is None else hosting.worker

    async def add_workers(self, *workers: Worker) -> None:
        """Take workers in; they start with `run`, or at once when it runs.

        Raises:
            DuplicateWorkerError: A name is taken, here (then none is added) or on the channel.
            RunnerStateError: The runner is stopping.
            BusUnavailableError: The broker does not answer.
        """
        if self._state in {"stopping", "stopped"}:
            raise RunnerStateError(self.name, f"is {self._state} and takes no workers")
        hostings = self._household.take(workers)
        try:
            for hosting in hostings:
                await hosting.worker.attach(registry=self.registry, bus=self.bus, runner=self)
            if self._state == "running":
                for hosting in hostings:
                    await self._household.launch(hosting)
        except BaseException:
            self._household.drop(hostings)
            raise

    async def remove_workers(self, *names: str, timeout: float = END_TIMEOUT_S) -> None:  # noqa: ASYNC109 - then it cancels
        """End workers behind what was sent to them before, and forget them.

        Names that are not here are passed over. A worker must not wait for its own removal.

        Args:
            names: Workers of this runner.
            timeout: Seconds they get; then they are cancelled.
        """
        found = [hosting for name in names if (hosting := self._household.get(name))]
        self._household.drop(found)
        try:
            async with asyncio.timeout(timeout):
                await self._household.end_some(found, "removed", timeout)
        except TimeoutError:
            logger.warning("%r: %s did not end within %g s", self, ", ".join(names), timeout)
            await self._household.cancel(found)

    async def run(self, *, auto_end: bool = True) -> None:
        """Start everything, and return when everything has stopped.

        Returns normally too when it was told to end or to cancel, by a signal, by a message or by
        the cancellation of its task; `errors` tells which workers failed.

        Args:
            auto_end: End when the last root worker has finished. Else only when told to.

        Raises:
            BusUnavailableError: The broker was not reached.
            RunnerStateError: It has run before.
        """
        if self._state != "new":
            raise RunnerStateError(self.name, "has run before")
        self._state, self._auto_end = "starting", auto_end
        with signals_to(self._on_signal, self._signals):
            try:
                self._opening = asyncio.create_task(self._open(), name=f"pbus {self.name} opening")
                await self._opening
                await self._done.wait()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    task.uncancel()
                    logger.info("%r: its task was cancelled", self)
            finally:
                await self._close()

    async def end(self, reason: str | None = None) -> None:
        """Begin to end: workers handle what was sent to them before and finish their jobs.

        Returns at once; `run` returns when all have ended, or were cancelled after `end_timeout`.
        """
        self._begin_stop(reason)

    async def cancel(self, reason: str | None = None) -> None:
        """Begin to stop at once, also when it is ending already; `run` returns soon."""
        self._hurry.set()
        self._begin_stop(reason)

    # What the bus says

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Only what concerns runners."""
        if isinstance(message, BusAddWorkerMessage):
            return message.target == self.name
        return isinstance(message, _CONCERNING)

    async def on_bus_message(self, message: BusMessage) -> None:
        """News of other runners, the end of the session, a child."""
        if isinstance(message, BusWorkerRegistryMessage):
            self.registry.hear(message)
        elif isinstance(message, BusAddWorkerMessage):
            self._own(self._add_child(message.worker), "child")
        elif isinstance(message, BusJobsRequestMessage):
            workers = self._household.workers()
            self._own(reply_with_open_jobs(self.bus, self.name, workers, message), "census")
        elif isinstance(message, BusAcceptanceRequestMessage):
            self._own(answer_acceptance(self.bus, self.name, message), "acceptance")
        elif isinstance(message, BusEndMessage | BusCancelMessage):
            if message.session is not None and message.session != self.session:
                return
            if isinstance(message, BusCancelMessage):
                self._hurry.set()
            self._begin_stop(message.reason or f"asked by {message.source}")

    # Within

    async def _open(self) -> None:
        if not self.bus.is_running:
            self._owns_bus = True
            await self._insist(self._start_bus)
        await self._insist(lambda: self.bus.subscribe(self))
        await self.registry.start()
        if self._state == "starting":
            self._state = "running"
        for hosting in self._household.waiting():
            if self._state == "running":
                await self._launch(hosting)
        self._fire_event("on_ready")
        self._on_ended()

    async def _start_bus(self) -> None:
        await self.bus.start(_TRY_S if self._start_timeout is None else self._start_timeout)

    async def _launch(self, hosting: HostedWorker) -> None:
        tries = [hosting]

        async def launch() -> None:
            # A launch that failed has forgotten the worker.
            found = tries.pop() if tries else self._household.take([hosting.worker])[0]
            await self._household.launch(found)

        try:
            await self._insist(launch)
        except PbusError as error:
            await self._report(hosting.worker, error)

    async def _insist(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do this; where the broker may take its time, again until it is there."""
        backoff = Backoff()
        is_told = False
        while True:
            try:
                await step()
            except BusUnavailableError as error:
                is_final = isinstance(error, BrokerRefusedError) or self._state == "stopping"
                if self._start_timeout is not None or is_final:
                    raise
                log = logger.debug if is_told else logger.warning
                log("%r waits for the broker: %s", self, error)
                is_told = True
            else:
                return
            await backoff.pause()

    async def _add_child(self, worker: Worker) -> None:
        try:
            await self.add_workers(worker)
        except PbusError as error:
            await self._report(worker, error)

    def _on_ended(self) -> None:
        """A worker has ended, or none was there to begin with."""
        if self._auto_end and self._state == "running" and not self._household.roots():
            self._own(self._finish_if_empty(), "finish")

    async def _finish_if_empty(self) -> None:
        # A handler of on_ready or on_error may be about to add a worker.
        await self._settle_events(_EVENTS_TIMEOUT_S)
        if not self._household.roots():
            self._begin_stop("all workers have finished")

    def _on_refused(self, name: str, holder: str) -> None:
        hosting = self._household.get(name)
        if hosting is not None:
            hosting.fail(DuplicateWorkerError(name, holder))
            hosting.worker.request_stop(drain=False)

    async def _report(self, worker: Worker, error: BaseException) -> None:
        """Tell everybody that a worker failed: the log, `errors`, handlers, and the bus."""
        data = WorkerErrorData(worker.name, one_line(error))
        trace = None if isinstance(error, PbusError) else error
        logger.error("worker %s failed: %s", worker.name, data.error, exc_info=trace)
        self._errors.append(data)
        self._fire_event("on_error", data)
        # One who was refused must not speak in the name of the worker that has it.
        source = self.name if isinstance(error, DuplicateWorkerError) else worker.name
        if worker.parent is None:
            news: BusMessage = BusWorkerErrorMessage(source=source, error=data.error)
        else:
            news = BusWorkerLocalErrorMessage(
                source=worker.name, target=worker.parent.name, error=data.error
            )
        try:
            async with asyncio.timeout(_REPORT_TIMEOUT_S):
                await self.bus.send(news)
        except (PbusError, TimeoutError) as failure:
            logger.warning("the failure of %s is not told on the bus: %s", worker.name, failure)

    # Stopping

    def _on_signal(self, number: signal.Signals) -> None:
        if self._hurry.is_set():
            self._household.force()
        self._hurry.set()
        self._begin_stop(f"signal {number.name}")

    def _begin_stop(self, reason: str | None) -> None:
        if self._stopping is None and self._state != "new":
            self._state = "stopping"
            logger.info("%r stops: %s", self, reason or "no reason given")
            self._stopping = asyncio.create_task(self._stop(reason), name=f"pbus {self.name} stop")

    async def _stop(self, reason: str | None) -> None:
        try:
            await self._abandon_opening()
            if not await self._ended_gently(reason):
                await self._household.cancel()
        finally:
            self._done.set()

    async def _abandon_opening(self) -> None:
        """Wait until no worker is being launched any more; not for long when in a hurry."""
        opening = self._opening
        if opening is not None and not opening.done():
            await first_of(self._hurry.wait(), asyncio.wait([opening]))
            opening.cancel()
            await asyncio.wait([opening], timeout=_REPORT_TIMEOUT_S)

    async def _ended_gently(self, reason: str | None) -> bool:
        """Whether all workers ended by themselves, in time and with nobody in a hurry."""
        if not self._hurry.is_set():
            self._household.drop(self._household.waiting())
            ending = self._household.end(reason)
            _, ended = await first_of(
                self._hurry.wait(), ending, timeout_s=self.end_timeout, cancel_s=_CANCEL_S
            )
            if ended.done() and not ended.cancelled() and (error := ended.exception()):
                logger.error("%r: ending its workers failed", self, exc_info=error)
        return self._household.is_empty

    async def _close(self) -> None:
        self._hurry.set()
        self._begin_stop("run is over")
        if self._stopping is not None:
            await self._stopping
        await self._tasks.close(_REPORT_TIMEOUT_S)
        await self.registry.stop()
        await self._close_events(_EVENTS_TIMEOUT_S)
        try:
            await self.bus.unsubscribe(self)
        except PbusError as error:
            logger.warning("%r cannot be unsubscribed: %s", self, error)
        if self._owns_bus:
            await self.bus.stop()
        self._state = "stopped"

    def _own(self, work: Coroutine[Any, Any, None], what: str) -> None:
        self._tasks.spawn(work, f"pbus {self.name} {what}")
