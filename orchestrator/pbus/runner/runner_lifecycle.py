"""The lifecycle of a runner: start of the bus and the workers, orderly and immediate stop."""

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ClassVar

from pbus.bus.base import WorkerBus
from pbus.bus.memory import AsyncQueueBus
from pbus.bus.otel import trace_if_configured
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
from pbus.registry import WorkerErrorData, WorkerRegistry
from pbus.runner.hosted_worker import HostedWorker, Worker
from pbus.runner.hosted_workers import HostedWorkers
from pbus.runner.signals import signals_to
from pbus.runner.stack_dump import stacks_on_request
from pbus.settings import DRAIN_VARIABLE, GRACE_VARIABLE

logger = logging.getLogger(__name__)

_TRY_S = 5.0  # one attempt to reach the broker, of many
END_TIMEOUT_S = 30.0  # for workers to finish what is queued
_EVENTS_TIMEOUT_S = 2.0
_STEP_TIMEOUT_S = 2.0  # for a cancelled task of the runner
_CANCEL_S = 1.0
_MAX_ERRORS = 100


def _grace_of(environ: Mapping[str, str]) -> float:
    """Seconds for running jobs by `stop: {grace}` of a topology, if it started this process."""
    try:
        return float(environ[GRACE_VARIABLE])
    except (KeyError, ValueError):
        return END_TIMEOUT_S


def _own_bus() -> AsyncQueueBus:
    """A bus of this process alone."""
    bus = AsyncQueueBus()
    trace_if_configured(bus, os.environ)
    return bus


class RunnerLifecycle(EventSource, BusSubscriber):
    """The base of WorkerRunner: state, start and stop.

    Attributes:
        name: The runner's.
        session: Of its workers.
        bus: Of its workers.
        registry: Of its workers.
        end_timeout: Seconds for workers to finish what is queued; None for no limit.
        drains_on_signal: Whether the first signal ends the workers in order, and only the second one
            at once; set by `stop: {drain}` of a topology.
    """

    EVENTS: ClassVar[frozenset[str]] = frozenset({"on_ready", "on_error"})
    is_durable = False  # messages to runners are about now

    def __init__(
        self,
        *,
        bus: WorkerBus | None = None,
        name: str | None = None,
        session: str | None = None,
        handle_sigint: bool = True,
        handle_sigterm: bool | None = None,
        start_timeout: float | None = 5.0,
    ) -> None:
        super().__init__()
        self.name = name or f"runner-{new_token(32)}"
        self.session = session or os.environ.get("PBUS_SESSION") or new_token()
        self.bus = bus or _own_bus()
        self.registry = WorkerRegistry(self.name, self.bus, self.session)
        self.registry.on_name_taken = self._on_name_taken
        self.registry.follow_when_asked(self)
        self.end_timeout = _grace_of(os.environ)
        self.drains_on_signal = os.environ.get(DRAIN_VARIABLE) != "0"
        self._start_timeout = start_timeout
        self._signal_choice = {signal.SIGINT: handle_sigint, signal.SIGTERM: handle_sigterm}
        self._hosted = HostedWorkers(
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
        self._cancel_requested = asyncio.Event()
        self._done = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._tasks = TaskOwner()

    def __repr__(self) -> str:
        return f"<WorkerRunner {self.name!r}>"

    async def run(self, *, auto_end: bool = True) -> None:
        """Start the bus and the workers, and return when all have stopped.

        It returns normally, too, after end() or cancel(), a signal, a message that ends the session,
        and the cancellation of its task. `errors` has the workers that failed.

        Args:
            auto_end: Whether to end when the last root worker has finished.

        Raises:
            BusUnavailableError: The broker was not reached.
            RunnerStateError: It has run before.
        """
        if self._state != "new":
            raise RunnerStateError(self.name, "has run before")
        self._state, self._auto_end = "starting", auto_end
        with signals_to(self._on_signal, self._signal_choice), stacks_on_request():
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
        """Request an orderly end: workers handle earlier messages and finish their jobs.

        Returns at once; `run` returns when all have ended, or were cancelled after `end_timeout`.

        Args:
            reason: For people.
        """
        self._begin_stop(reason)

    async def cancel(self, reason: str | None = None) -> None:
        """Request an immediate stop, also during an orderly end. Returns at once.

        Args:
            reason: For people.
        """
        self._cancel_requested.set()
        self._begin_stop(reason)

    # Start

    async def _open(self) -> None:
        if not self.bus.is_running:
            self._owns_bus = True
            await self._retry_until_reachable(self._start_bus)
        await self._retry_until_reachable(lambda: self.bus.subscribe(self))
        await self.registry.start()
        if self._state == "starting":
            self._state = "running"
        for hosted in self._hosted.waiting():
            if self._state == "running":
                await self._launch(hosted)
        self._fire_event("on_ready")
        self._on_ended()

    async def _start_bus(self) -> None:
        await self.bus.start(_TRY_S if self._start_timeout is None else self._start_timeout)

    async def _launch(self, hosted: HostedWorker) -> None:
        tries = [hosted]

        async def launch() -> None:
            # A failed launch has removed the worker.
            found = tries.pop() if tries else self._hosted.add([hosted.worker])[0]
            await self._hosted.launch(found)

        try:
            await self._retry_until_reachable(launch)
        except PbusError as error:
            await self._report(hosted.worker, error)

    async def _retry_until_reachable(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run a step; without a start timeout again until the broker is reachable."""
        backoff = Backoff()
        is_logged = False
        while True:
            try:
                await step()
            except BusUnavailableError as error:
                is_final = isinstance(error, BrokerRefusedError) or self._state == "stopping"
                if self._start_timeout is not None or is_final:
                    raise
                log = logger.debug if is_logged else logger.warning
                log("%r waits for the broker: %s", self, error)
                is_logged = True
            else:
                return
            await backoff.pause()

    def _on_ended(self) -> None:
        """End the runner if no root worker is left."""
        if self._auto_end and self._state == "running" and not self._hosted.has_roots:
            self._spawn(self._finish_if_empty(), "finish")

    async def _finish_if_empty(self) -> None:
        # A handler of on_ready or on_error may be about to add a worker.
        await self._settle_events(_EVENTS_TIMEOUT_S)
        if not self._hosted.has_roots:
            self._begin_stop("all workers have finished")

    # Stopping

    def _on_signal(self, number: signal.Signals) -> None:
        """End in order, at the next signal at once, and at the third without waiting."""
        if self._cancel_requested.is_set():
            self._hosted.force()
        is_open = self._opening is not None and self._opening.done()
        if is_open and self._stopping is None and self.drains_on_signal:
            self._hosted.stop_starting()
        else:
            self._cancel_requested.set()
        self._begin_stop(f"signal {number.name}")

    def _begin_stop(self, reason: str | None) -> None:
        if self._stopping is None and self._state != "new":
            self._state = "stopping"
            logger.info("%r stops: %s", self, reason or "no reason given")
            self._stopping = asyncio.create_task(self._stop(reason), name=f"pbus {self.name} stop")

    async def _stop(self, reason: str | None) -> None:
        try:
            await self._abandon_opening()
            if not await self._drained(reason):
                await self._hosted.cancel()
        finally:
            self._done.set()

    async def _abandon_opening(self) -> None:
        """Wait until no worker is being launched; for a cancellation cut that short."""
        opening = self._opening
        if opening is not None and not opening.done():
            await first_of(self._cancel_requested.wait(), asyncio.wait([opening]))
            opening.cancel()
            await asyncio.wait([opening], timeout=_STEP_TIMEOUT_S)

    async def _drained(self, reason: str | None) -> bool:
        """End all workers in order.

        Returns:
            Whether all have ended, in time and before a request to cancel.
        """
        if not self._cancel_requested.is_set():
            self._hosted.drop(self._hosted.waiting())
            ending = self._hosted.end(reason)
            _, ended = await first_of(
                self._cancel_requested.wait(),
                ending,
                timeout_s=self.end_timeout,
                cancel_s=_CANCEL_S,
            )
            if ended.done() and not ended.cancelled() and (error := ended.exception()):
                logger.error("%r: ending its workers failed", self, exc_info=error)
        return self._hosted.is_empty

    async def _close(self) -> None:
        self._cancel_requested.set()
        self._begin_stop("run is over")
        if self._stopping is not None:
            await self._stopping
        await self._tasks.close(_STEP_TIMEOUT_S)
        await self.registry.stop()
        await self._close_events(_EVENTS_TIMEOUT_S)
        try:
            await self.bus.unsubscribe(self)
        except PbusError as error:
            logger.warning("%r cannot be unsubscribed: %s", self, error)
        if self._owns_bus:
            await self.bus.stop()
        self._state = "stopped"

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        self._tasks.spawn(work, f"pbus {self.name} {what}")

    def _on_name_taken(self, name: str, holder: str) -> None:
        hosted = self._hosted.get(name)
        if hosted is not None:
            hosted.fail(DuplicateWorkerError(name, holder))
            hosted.worker.request_stop(drain=False)

    async def _report(self, worker: Worker, error: BaseException) -> None:
        """Report the failure of a worker."""
        raise NotImplementedError
