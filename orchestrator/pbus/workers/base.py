"""BaseWorker: what users subclass. Its abilities are the mixins; here is its life."""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from pbus.bus.base import WorkerBus
from pbus.bus.lane_gate import LaneGate
from pbus.bus.local.lane_hold import HoldingTurn, InlineLaneHold, LaneHold
from pbus.bus.subscriber import BusSubscriber
from pbus.concurrency.user_code import contained
from pbus.errors import PbusError, WorkerNotAttachedError
from pbus.handlers import Handlers, find_handlers
from pbus.jobs.context import WorkerContext
from pbus.jobs.executor.executor import JobExecutor
from pbus.jobs.replicas import Replicas
from pbus.jobs.requester.client import JobClient
from pbus.jobs.requester.completion import until_over
from pbus.messages import (
    BusActivateWorkerMessage,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusJobCreditMessage,
    BusJobCreditRequestMessage,
    BusJobMessage,
    BusMessage,
    BusMessagesLostMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    Lane,
)
from pbus.names import group_of
from pbus.registry import Watch, WorkerLostData, WorkerRegistry
from pbus.workers.activation import ActivationMixin
from pbus.workers.children import ChildrenMixin
from pbus.workers.core import Runner, WorkerCore, base_hook
from pbus.workers.definition import check_attributes, check_worker_class
from pbus.workers.job_handling import DEFAULT_MAX_QUEUED_JOBS
from pbus.workers.job_introspection import JobListingMixin
from pbus.workers.job_requesting import EVENT_HOOKS
from pbus.workers.subscription import WorkerSubscription

logger = logging.getLogger(__name__)

STOP_HOOK_S = 10.0  # what stop() gets to clean up
_CHANGING = frozenset({"_active", "_activation_args", "_beginning", "_loss_watch", "_pbus_state"})
EVENT_HANDLERS_S = 2.0  # what event handlers in progress get

Receive = Callable[[BusMessage], Awaitable[None]]

_UNHEARD = frozenset({BusJobCreditMessage, BusJobCreditRequestMessage})  # by hooks

# What reaches a worker that is inactive or stopping: its life, and jobs, goes on.
_ALWAYS_ADMITTED = (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobMessage,
    BusMessagesLostMessage,
    BusWorkerLocalErrorMessage,
)


def _is_of_a_job(kind: type[BusMessage]) -> bool:
    return issubclass(kind, BusJobMessage)


@functools.cache
def _attributes() -> frozenset[str]:
    """The attributes that BaseWorker gives its instances."""
    return frozenset(vars(BaseWorker("probe")))


def _state_of(worker: "BaseWorker") -> dict[str, Any]:
    """A worker's private attributes, but for those that change before it runs."""
    values = vars(worker).items()
    return {name: one for name, one in values if name[0] == "_" and name not in _CHANGING}


def _lasting_state_of(worker: "BaseWorker") -> dict[str, Any]:
    """Those that stay the same objects for as long as a runner has the worker."""
    simple = bool | int | str | None
    return {name: one for name, one in _state_of(worker).items() if not isinstance(one, simple)}


class BaseWorker(ActivationMixin, JobListingMixin, ChildrenMixin):
    """A worker on the bus: subclass it, mark handlers with @job and @worker_ready, override hooks.

    Hooks and handlers of data messages run one at a time, in the order the messages came; jobs run
    beside them, each in a task of its own. While a hook or handler waits for a job of its own, only
    what belongs to jobs comes in: answers, updates, cancels, new requests.

    Args:
        name: Its address; made up when not given.
        active: Whether it begins active.
        interleave: Have the next message handled while a hook or handler waits for its job. What
            it knew before the wait may not be so afterwards.
        max_queued_jobs: How many jobs it takes in at once; more are answered "busy", unless
            the broker keeps them.
        max_concurrency: How many of them run at once, None for all; the others wait their turn,
            those of high priority first. A job runs until it is answered, pending or not.

    Attributes:
        started_at: When run() began, Unix seconds; None before.
    """

    EVENTS = frozenset({"on_bus_message"})
    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusEndWorkerMessage: "_take_end",
        BusCancelWorkerMessage: "_take_cancel_worker",
    }
    HANDLERS: ClassVar[Handlers] = Handlers({}, {})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find the marked handlers, so that mistakes show where the class is defined."""
        super().__init_subclass__(**kwargs)
        check_worker_class(cls, BaseWorker, _attributes())
        cls.HANDLERS = find_handlers(cls)

    def __init__(
        self,
        name: str | None = None,
        *,
        active: bool = True,
        interleave: bool = False,
        max_queued_jobs: int = DEFAULT_MAX_QUEUED_JOBS,
        max_concurrency: int | None = None,
    ) -> None:
        super().__init__(name, active=active)
        if max_concurrency is not None and max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {max_concurrency}")
        self.started_at: float | None = None
        self._keeps_order = not interleave
        self._max_queued_jobs = max_queued_jobs
        self._max_concurrency = max_concurrency
        self._inbox: WorkerSubscription | None = None
        self._names: set[str | None] = {self.name}  # what it is called; replicas share one name
        self._loss_watch: Watch[Any] | None = None
        self._receivers: dict[type[BusMessage], Receive | None] = {}
        self._is_hooked = self._has_hook("on_bus_message")
        self._joined = asyncio.Event()  # the bus delivers to it
        self._gates = self._new_gates()
        self._finished = asyncio.Event()
        self._is_deaf = False  # wound down: whatever still comes would start what nobody ends
        self._beginning: asyncio.Task[None] | None = None
        self._pbus_state = _state_of(self)

    # Hooks

    async def start(self) -> None:
        """Prepare; runs before anyone hears that the worker is ready. What it raises ends it."""

    async def stop(self) -> None:
        """Clean up; runs when nothing is handled any more."""

    @base_hook
    async def on_bus_message(self, message: BusMessage) -> None:
        """A message came; those that pbus itself acts on have been acted on."""

    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Whether on_bus_message wants this message; asked just before."""
        del message
        return True

    # What users call

    async def end(self, reason: str | None = None) -> None:
        """End the session: all its workers finish what is queued, then stop."""
        await self.send_bus_message(
            BusEndMessage(source=self.address, reason=reason, session=self.registry.session)
        )

    async def cancel(self, reason: str | None = None) -> None:
        """Cancel the session: all its workers stop at once."""
        await self.send_bus_message(
            BusCancelMessage(source=self.address, reason=reason, session=self.registry.session)
        )

    # What the runner calls

    async def attach(self, *, registry: WorkerRegistry, bus: WorkerBus, runner: Runner) -> None:
        """Belong to a runner; it has the bus deliver to `inbox` once the name is taken.

        Raises:
            HandlerDefinitionError: The worker's own code has replaced an attribute of BaseWorker's.
        """
        check_attributes(self, self._pbus_state, _attributes())
        self._registry, self._bus, self._runner = registry, bus, runner
        self._reset()
        replicas = self._replicas = Replicas(registry)
        links = WorkerContext(
            name=self.name,
            address=self.address,
            bus=bus,
            registry=registry,
            send=self._transmit,
            spawn=self._spawn,
            call_hook=self._call_hook,
            handling=self._handling,
            joined=self._joined,
            has_event_hooks=any(map(self._has_hook, EVENT_HOOKS)),
        )
        self._job_desk = JobClient(links, replicas)
        self._workbench = JobExecutor(links, self._max_queued_jobs, self._max_concurrency)
        self._names = {self.name, self.address, group_of(self.name)}
        self._inbox = WorkerSubscription(
            self.name,
            self.address,
            self._admits,
            self._receive,
            leaves=lambda: self._is_stopping or self._is_deaf,
            prefetch=self._max_concurrency,
        )
        self._inbox.gates = self._gates
        self._pbus_state = _lasting_state_of(self)

    @property
    def inbox(self) -> BusSubscriber:
        """What the bus delivers to.

        Raises:
            WorkerNotAttachedError: No runner has this worker yet.
        """
        if self._inbox is None:
            raise WorkerNotAttachedError(self.name)
        return self._inbox

    async def run(self) -> None:
        """Live: start, be ready, wait to be stopped, stop. Raises what crashed it."""
        self.started_at = time.time()
        self._is_alive = True
        self._joined.set()
        self._loss_watch = self.registry.watch_lost(None, self._take_loss)
        gate = self._gates[Lane.DATA]  # messages wait until it has begun
        turn = LaneHold(on_over=gate.open, gate=gate if self._keeps_order else None)
        self._beginning = turn.start(self._begin(), f"{self.name} start")
        try:
            await self._until_begun(self._beginning)
            await self._finished.wait()
        except BaseException:
            await self._wind_down()
            raise
        error = await self._wind_down()
        if error is not None:
            raise error

    def request_stop(
        self, *, drain: bool, reason: str | None = None, timeout_s: float | None = None
    ) -> None:
        """Have run() return: at once, or after the jobs in hand and the children are done.

        Args:
            drain: Whether to let them be done.
            reason: For people.
            timeout_s: How long at most; None: the runner's end_timeout.
        """
        if not drain:
            self._finish()
        elif not self._is_stopping:
            self._is_stopping = True
            limit_s = self.worker_runner.end_timeout if timeout_s is None else timeout_s
            self._spawn(self._drain(reason, limit_s), f"{self.name} drain")

    # Its life

    def _reset(self) -> None:
        """Be as new: a worker that was over may be added again."""
        self._is_stopping = self._is_deaf = False
        self._joined = asyncio.Event()
        self._begun = asyncio.Event()
        self._gates = self._new_gates()
        self._finished = asyncio.Event()
        self._is_over = asyncio.Event()

    def _new_gates(self) -> dict[Lane, LaneGate]:
        """The lanes' gates: what comes in while a hook or handler of a lane waits for its job."""
        return {
            Lane.DATA: LaneGate(_is_of_a_job, is_shut=True),
            Lane.SYSTEM: LaneGate(
                lambda kind: _is_of_a_job(kind) or self._receiver(kind) is not None
            ),
        }

    async def _begin(self) -> None:
        await contained(self.start, f"start() of {self.name!r}")
        check_attributes(self, self._pbus_state, _attributes())
        await self.registry.set_ready(self.name)
        await self._transmit_quietly(
            BusWorkerReadyMessage(
                source=self.address,
                runner=self.registry.runner_name,
                parent=None if self.parent is None else self.parent.name,
                active=self._active,
                started_at=self.started_at,
            )
        )
        if self._active:
            await self._tell_activated()
        self._begun.set()
        await self._watch_marked()

    async def _until_begun(self, beginning: asyncio.Task[None]) -> None:
        try:
            await beginning
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._finished.is_set() or (task is not None and task.cancelling()):
                raise  # we are cancelled, not only the start

    def _finish(self) -> None:
        self._is_stopping = True
        self._finished.set()
        if self._beginning is not None and not self._begun.is_set():
            self._beginning.cancel()

    async def _drain(self, reason: str | None, limit_s: float | None) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._tell_stopping()
                await self._end_children(reason, limit_s)
                await self._bench.replies.idle()
                await until_over(self._desk.groups.values(), self.registry)
        except TimeoutError:
            logger.warning(
                "%s: %d jobs and %d children are not done in time; cancelling them",
                self.name, len(self.active_jobs), len(self.children),
            )  # fmt: skip
        finally:
            self._finish()

    async def _tell_stopping(self) -> None:
        """Have others ask somebody else from now on."""
        try:
            await self.registry.set_stopping(self.name)
        except PbusError as error:
            logger.warning("%s: the registry does not know that it stops: %s", self.name, error)

    async def _wind_down(self) -> Exception | None:
        """End all that goes on; what stop() raised."""
        reason = f"worker {self.name!r} was stopped before the job was done"
        self._is_stopping = True
        try:
            await self._cancel_children()
            await self._desk.close(reason)
            await self._bench.close(reason)
            return await self._call_stop()
        finally:
            self._is_deaf = True
            self._unwatch_all()
            if self._loss_watch is not None:
                self._loss_watch.cancel()
            await self._desk.close(reason)
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

    # What comes in

    def _admits(self, message: BusMessage) -> bool:
        target = message.target
        if self._is_deaf or (target is not None and target not in self._names):
            return False
        if (self._active and not self._is_stopping) or isinstance(message, _ALWAYS_ADMITTED):
            return True
        if message.category == "data":
            self.dropped += 1
        return False

    async def _receive(self, message: BusMessage) -> None:
        take = self._receiver(type(message))
        if take is not None:
            await take(message)
            if type(message) in _UNHEARD:
                return
        if self._active and self.accepts_bus_message(message):
            self._fire_event("on_bus_message", message)
            if self._is_hooked:  # unlike other hooks, what this one raises the bus gets to know
                turn = (HoldingTurn if self._keeps_order else InlineLaneHold)(self._handling)
                rest = turn.begin(self.on_bus_message(message))
                if rest is not None:
                    await rest

    def _receiver(self, kind: type[BusMessage]) -> Receive | None:
        """The method that pbus itself has for messages of this class."""
        try:
            return self._receivers[kind]
        except KeyError:
            name = self._receiver_name(kind)
            found = self._receivers[kind] = None if name is None else getattr(self, name)
            return found

    def _receiver_name(self, kind: type[BusMessage]) -> str | None:
        return next(
            (
                owner.RECEIVES[base]
                for base in kind.__mro__
                for owner in type(self).__mro__
                if issubclass(owner, WorkerCore) and base in owner.__dict__.get("RECEIVES", ())
            ),
            None,
        )

    async def _take_loss(self, data: WorkerLostData) -> None:
        self._bench.take_loss(data)
        await self._desk.take_loss(data)

    async def _take_end(self, message: BusEndWorkerMessage) -> None:
        if self.bus.incarnation.startswith(message.incarnation or ""):
            self.request_stop(drain=True, reason=message.reason, timeout_s=message.timeout_s)

    async def _take_cancel_worker(self, message: BusCancelWorkerMessage) -> None:
        del message
        self._finish()
