"""The lifecycle of a worker: attached to a runner, started, drained, stopped."""

import asyncio
import logging
import time
from typing import ClassVar

from pbus.bus.base import WorkerBus
from pbus.bus.lane_gate import LaneGate
from pbus.bus.local.hook_hold import LaneHold
from pbus.bus.subscriber import BusSubscriber
from pbus.concurrency.flag import Flag
from pbus.concurrency.user_code import contained
from pbus.errors import PbusError, WorkerNotAttachedError
from pbus.jobs.context import WorkerContext
from pbus.jobs.job_parts import JobParts
from pbus.messages import (
    BusCancelWorkerMessage,
    BusJobMessage,
    BusMessage,
    BusWorkerReadyMessage,
    Lane,
)
from pbus.names import group_of
from pbus.registry import WorkerRegistry
from pbus.workers.activation import ActivationMixin
from pbus.workers.children import ChildrenMixin
from pbus.workers.core import Runner
from pbus.workers.job_handling import DEFAULT_MAX_QUEUED_JOBS
from pbus.workers.job_introspection import JobListingMixin
from pbus.workers.job_requesting import EVENT_HOOKS
from pbus.workers.leaving import LeavingMixin
from pbus.workers.subscription import WorkerSubscription

logger = logging.getLogger(__name__)

STOP_HOOK_S = 10.0  # for stop() to clean up
EVENT_HANDLERS_S = 2.0  # for event handlers in progress


def _is_of_a_job(kind: type[BusMessage]) -> bool:
    return issubclass(kind, BusJobMessage)


class LifecycleMixin(LeavingMixin, ActivationMixin, JobListingMixin, ChildrenMixin):
    """Adds the lifecycle.

    Attributes:
        started_at: When run() began, Unix seconds; None before.
    """

    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusCancelWorkerMessage: "_receive_cancel_worker",
    }

    def __init__(self, name: str | None = None, *, active: bool = True) -> None:
        super().__init__(name, active=active)
        self.started_at: float | None = None
        self._max_queued_jobs = DEFAULT_MAX_QUEUED_JOBS
        self._max_concurrency: int | None = None
        self._joined = Flag()  # set when the bus delivers to it
        self._gates = self._new_gates()
        self._finished = Flag()
        self._starting: asyncio.Task[None] | None = None

    # Hooks

    async def start(self) -> None:
        """Prepare, before the worker is ready. An error ends the worker."""

    async def stop(self) -> None:
        """Clean up, after the last handler has ended."""

    def _check_attributes(self) -> None:
        """Raise HandlerDefinitionError if the worker's own code has replaced an attribute."""

    # The runner's interface

    async def attach(self, *, registry: WorkerRegistry, bus: WorkerBus, runner: Runner) -> None:
        """Attach the worker to a runner, which subscribes `bus_subscription` once it has the name.

        Args:
            registry: The runner's.
            bus: The runner's.
            runner: Will call run().

        Raises:
            HandlerDefinitionError: The worker's own code has replaced an attribute of BaseWorker.
        """
        self._check_attributes()
        self._registry, self._bus, self._runner = registry, bus, runner
        self._reset_run()
        self._job_parts = JobParts(
            registry,
            self._new_worker_context,
            max_queued=self._max_queued_jobs,
            max_concurrency=self._max_concurrency,
        )
        self._bus_names = {self.name, self.address, group_of(self.name)}
        self._bus_subscription = WorkerSubscription(
            self.name,
            self.address,
            admits=self._admits,
            receive=self._receive,
            gates=self._gates,
            is_draining=lambda: self._is_stopping or self._is_closed,
        )
        self._bus_subscription.prefetch = self._max_concurrency
        self._bus_subscription.takes_opaque = self.takes_opaque
        self._bus_subscription.news = "few" if self._hears_news() else "none"

    def _new_worker_context(self) -> WorkerContext:
        return WorkerContext(
            name=self.name,
            address=self.address,
            bus=self.bus,
            registry=self.registry,
            send=self._bus_send,
            spawn=self._spawn_task,
            call_hook=self._call_hook,
            waiting_handlers=self._waiting_handlers,
            running_handlers=self._handlers_in_progress,
            joined=self._joined,
            stores_jobs=self.bus.delivery == "at-least-once",
            has_event_hooks=any(map(self._has_hook, EVENT_HOOKS)),
            hears_ends=self._hears_ends,
        )

    @property
    def bus_subscription(self) -> BusSubscriber:
        """The subscriber to which the bus delivers.

        Raises:
            WorkerNotAttachedError: No runner has the worker yet.
        """
        if self._bus_subscription is None:
            raise WorkerNotAttachedError(self.name)
        return self._bus_subscription

    async def run(self) -> None:
        """Start, work until a request to stop, and stop. Raises the error that ended the worker."""
        self.started_at = time.time()
        self._is_alive = True
        self._joined.set()
        gate = self._gates[Lane.DATA]  # shut until the worker has started
        hold = LaneHold(on_released=gate.open, gate=gate if self._keeps_order else None)
        self._starting = hold.start(self._run_start(), f"{self.name} start")
        try:
            await self._wait_started(self._starting)
            self._starting = None
            del hold
            await self._finished.wait()
        except BaseException:
            await self._wind_down()
            raise
        if (error := await self._wind_down()) is not None:
            raise error

    def request_stop(
        self, *, drain: bool, reason: str | None = None, timeout_s: float | None = None
    ) -> None:
        """Have run() return.

        Args:
            drain: Whether accepted jobs and children are finished first.
            reason: For people.
            timeout_s: Seconds for that; None for the runner's end_timeout.
        """
        if not drain:
            self._finish_run()
        elif not self._is_stopping:
            self._is_stopping = True
            limit_s = self.worker_runner.end_timeout if timeout_s is None else timeout_s
            self._spawn_task(self._drain_queue(reason, limit_s), f"{self.name} drain")

    # Start

    def _reset_run(self) -> None:
        """Return to the initial state: a worker that has ended may be added again."""
        self._is_stopping = self._is_closed = False
        self._joined = Flag()
        self._has_started = Flag()
        self._gates = self._new_gates()
        self._finished = Flag()
        self._has_ended = Flag()
        self._receivers.clear()

    def _new_gates(self) -> dict[Lane, LaneGate]:
        """Gates that let job messages pass while a hook or handler waits for its job."""
        return {
            Lane.DATA: LaneGate(_is_of_a_job, is_shut=True),
            Lane.SYSTEM: LaneGate(
                lambda kind: _is_of_a_job(kind) or self._receiver(kind) is not None
            ),
        }

    async def _run_start(self) -> None:
        start = contained(self.start, f"start() of {self.name!r}")
        await self._handlers_in_progress.track("start", None, start)
        self._check_attributes()
        await self.registry.set_ready(self.name)
        await self._bus_send_best_effort(
            BusWorkerReadyMessage(
                source=self.address,
                runner=self.registry.runner_name,
                parent=None if self.parent is None else self.parent.name,
                active=self._active,
                started_at=self.started_at,
            )
        )
        if self._active:
            await self._call_activated()
        self._has_started.set()
        await self._watch_marked()

    async def _wait_started(self, starting: asyncio.Task[None]) -> None:
        try:
            await starting
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._finished.is_set or (task is not None and task.cancelling()):
                raise  # run() is cancelled, not only the start

    # Messages

    async def _receive_cancel_worker(self, message: BusCancelWorkerMessage) -> None:
        del message
        self._finish_run()

    # Stop

    def _finish_run(self) -> None:
        self._is_stopping = True
        self._finished.set()
        if self._starting is not None and not self._has_started.is_set:
            self._starting.cancel()

    async def _drain_queue(self, reason: str | None, limit_s: float | None) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._announce_stopping()
                await self._end_children(reason, limit_s)
                if self._job_parts is not None:
                    await self._job_parts.finish()
        except TimeoutError:
            logger.warning(
                "%s: %d jobs and %d children are not done in time; cancelling them",
                self.name, len(self.active_jobs), len(self.children),
            )  # fmt: skip
        finally:
            self._finish_run()

    async def _announce_stopping(self) -> None:
        """Have requesters choose another worker from now on."""
        try:
            await self.registry.set_stopping(self.name)
        except PbusError as error:
            logger.warning("%s: the registry does not know that it stops: %s", self.name, error)

    async def _wind_down(self) -> Exception | None:
        """End all activity of the worker.

        Returns:
            The error of stop().
        """
        reason = f"worker {self.name!r} was stopped before the job was done"
        self._is_stopping = True
        try:
            await self._cancel_children()
            if self._job_parts is not None:
                await self._job_parts.close(reason)
            return await self._call_stop()
        finally:
            self._is_closed = True
            self._unwatch_all()
            if self._job_parts is not None:
                await self._job_parts.end(reason)
            await self._cancel_tasks()
            await self._close_events(EVENT_HANDLERS_S)
            self._leave_parent()

    async def _call_stop(self) -> Exception | None:
        try:
            async with asyncio.timeout(STOP_HOOK_S):
                await contained(self.stop, f"stop() of {self.name!r}")
        except Exception as error:
            logger.exception("%s: stop() raised, or took over %g s", self.name, STOP_HOOK_S)
            return error
        return None
