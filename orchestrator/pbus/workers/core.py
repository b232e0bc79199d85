"""The core of a worker: its name and bus, its hooks, and reception of messages."""

import functools
import logging
import operator
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Protocol, TypeVar

from pbus.bus.base import WorkerBus
from pbus.bus.local.deferred_ack import DeferredAcks
from pbus.bus.local.hook_hold import LaneHold
from pbus.bus.local.lane_hold import (
    GatedInlineLaneHold,
    InlineLaneHold,
    current_gate,
    holds_lane,
)
from pbus.concurrency.event_source import Handler
from pbus.concurrency.flag import Flag
from pbus.concurrency.user_code import contained
from pbus.errors import PbusError, WorkerNameError, WorkerNotAttachedError
from pbus.ids import new_token
from pbus.messages import (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobCreditMessage,
    BusJobCreditRequestMessage,
    BusJobMessage,
    BusMessage,
    BusMessagesLostMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
)
from pbus.names import is_worker_name
from pbus.registry import WorkerRegistry
from pbus.running_handlers import RunningHandlers
from pbus.workers.subscription import WorkerSubscription
from pbus.workers.tasks import TasksMixin

logger = logging.getLogger(__name__)

_BASE_HOOK = "__pbus_base_hook__"
_NEWS = (BusWorkerReadyMessage, BusWorkerRegistryMessage)
_WITHOUT_HOOK = frozenset({BusJobCreditMessage, BusJobCreditRequestMessage})

# Taken in by a worker that is inactive or stopping, too: its lifecycle and its jobs go on.
_ALWAYS_ADMITTED = (
    BusActivateWorkerMessage,
    BusCancelWorkerMessage,
    BusDeactivateWorkerMessage,
    BusEndWorkerMessage,
    BusJobMessage,
    BusMessagesLostMessage,
    BusWorkerLocalErrorMessage,
)

H = TypeVar("H", bound=Callable[..., Any])
Receive = Callable[[BusMessage], Awaitable[None]]


def base_hook(function: H) -> H:
    """Mark a hook's default, which is not called unless a subclass overrides it."""
    setattr(function, _BASE_HOOK, True)
    return function


class Runner(Protocol):
    """A runner as its workers see it."""

    @property
    def name(self) -> str:
        """The runner's name."""
        ...

    @property
    def end_timeout(self) -> float | None:
        """Seconds for workers to finish what is queued; None for no limit."""
        ...


class WorkerCore(TasksMixin):
    """The base of all mixins of a worker.

    Attributes:
        takes_opaque: Whether messages and frames of types that its process does not know are received, as
            BusOpaqueMessage and OpaqueFrame; they are refused otherwise.
        RECEIVES: For classes of messages, the attribute (perhaps dotted) that takes them in, before
            the hook on_bus_message.
        sent: The number of messages sent.
        dropped: The number of messages dropped while it was inactive or stopping.
        parent: The worker that added this one; None for a root.
    """

    EVENTS = frozenset({"on_bus_message"})
    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {}
    takes_opaque: bool = False

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = check_name(name or f"{type(self).__name__}-{new_token(24)}")
        self.sent = 0
        self.dropped = 0
        self.parent: WorkerCore | None = None
        self._bus: WorkerBus | None = None
        self._bus_subscription: WorkerSubscription | None = None
        self._registry: WorkerRegistry | None = None
        self._runner: Runner | None = None
        self._active = True
        self._has_started = Flag()  # set when hooks and handlers may be called
        self._is_stopping = False
        self._is_closed = False  # takes in no message any more
        self._bus_names: set[str | None] = {self.name}  # with its group's, as a replica
        self._keeps_order = True  # while a hook waits for its job, only job messages pass
        self._deferred_acks = DeferredAcks()
        self._handlers_in_progress = RunningHandlers()
        self._receivers: dict[type[BusMessage], Receive | None] = {}
        self._is_hooked = self._has_hook("on_bus_message")
        self._is_selective = self._has_hook("accepts_bus_message")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @property
    def bus(self) -> WorkerBus:
        """The bus.

        Raises:
            WorkerNotAttachedError: No runner has the worker yet.
        """
        if self._bus is None:
            raise WorkerNotAttachedError(self.name)
        return self._bus

    @property
    def registry(self) -> WorkerRegistry:
        """The registry.

        Raises:
            WorkerNotAttachedError: No runner has the worker yet.
        """
        if self._registry is None:
            raise WorkerNotAttachedError(self.name)
        return self._registry

    @property
    def worker_runner(self) -> Any:
        """The WorkerRunner that hosts the worker.

        Raises:
            WorkerNotAttachedError: No runner has the worker yet.
        """
        if self._runner is None:
            raise WorkerNotAttachedError(self.name)
        return self._runner

    @property
    def address(self) -> str:
        """The source of its messages: its name; for a child, known in its runner only, name@runner."""
        return self.name if self.parent is None else f"{self.name}@{self.registry.runner_name}"

    @property
    def handles_messages(self) -> bool:
        """Whether start() has ended, so that hooks and handlers may be called."""
        return self._has_started.is_set

    # Sending

    async def _bus_send(self, message: BusMessage) -> bool:
        """Send a message as it is, and count it; returns as WorkerBus.send()."""
        rest = self.bus.begin_send(message)
        is_taken = True if rest is None else await rest
        self.sent += 1
        return is_taken

    async def _bus_send_best_effort(self, message: BusMessage) -> None:
        """Send a message; a failure is logged."""
        try:
            await self._bus_send(message)
        except PbusError as error:
            logger.warning("%s could not send %s: %s", self.name, message, error)

    # Receiving

    @base_hook
    async def on_bus_message(self, message: BusMessage) -> None:
        """Handle a message. Those that pbus acts on have been acted on."""

    def add_event_handler(self, event: str, handler: Handler) -> None:
        """Call the handler at this event; see EventSource."""
        super().add_event_handler(event, handler)
        if event == "on_bus_message" and self._bus_subscription is not None:
            self._bus_subscription.want_news()

    def _hears_news(self) -> bool:
        """Whether anything of the worker takes in the news of others."""
        return (
            self._is_hooked
            or self._is_listened_to("on_bus_message")
            or any(self._receiver_name(kind) for kind in _NEWS)
        )

    @base_hook
    def accepts_bus_message(self, message: BusMessage) -> bool:
        """Whether on_bus_message is called with a message; asked just before."""
        del message
        return True

    def _admits(self, message: BusMessage) -> bool:
        """Whether a message from the bus is taken in."""
        target = message.target
        if self._is_closed or (target is not None and target not in self._bus_names):
            return False
        if (self._active and not self._is_stopping) or isinstance(message, _ALWAYS_ADMITTED):
            return True
        if message.category == "data":
            self.dropped += 1
        return False

    def _receive(self, message: BusMessage) -> Awaitable[None] | None:
        """Take in a message from the bus; returns what is left to be awaited, None if nothing is."""
        kind = type(message)
        receive = self._receivers[kind] if kind in self._receivers else self._receiver(kind)
        if receive is None:
            return self._begin_message_hook(message)
        if self._is_hooked or self._event_handlers or self._is_selective:
            return self._receive_with(receive, message)
        return receive(message)  # as nearly always: nothing follows

    async def _receive_with(self, receive: Receive, message: BusMessage) -> None:
        """Take in a message that pbus acts on; then it is the hook's, unless it is only pbus's."""
        await receive(message)
        if type(message) in _WITHOUT_HOOK:
            return
        rest = self._begin_message_hook(message)
        if rest is not None:
            await rest

    def _begin_message_hook(self, message: BusMessage) -> Awaitable[None] | None:
        """Run on_bus_message until its first wait; unlike other hooks', its errors go to the bus.

        Returns:
            The rest of it, to be awaited; None when it has ended.
        """
        if not self._active or (self._is_selective and not self.accepts_bus_message(message)):
            return None
        if self._event_handlers:
            self._fire_event("on_bus_message", message)
        if not self._is_hooked:
            return None
        hold_class = GatedInlineLaneHold if self._keeps_order else InlineLaneHold
        rest = hold_class(self._waiting_handlers).start(self.on_bus_message(message))
        if rest is None:
            return None
        return self._handlers_in_progress.track("on_bus_message", message, rest)

    def _receiver(self, kind: type[BusMessage]) -> Receive | None:
        """The method that takes in messages of a class, besides the hook."""
        if kind not in self._receivers:
            name = self._receiver_name(kind)
            found = None if name is None else operator.attrgetter(name)(self)
            self._receivers[kind] = found
        return self._receivers[kind]

    def _receiver_name(self, kind: type[BusMessage]) -> str | None:
        return _receiver_name(type(self), kind)  # type: ignore[arg-type]  # a class has a hash

    # Hooks

    def _has_hook(self, hook: str) -> bool:
        """Whether a subclass overrides a hook."""
        return not hasattr(getattr(type(self), hook), _BASE_HOOK)

    async def _call_hook(
        self,
        hook: str,
        *values: Any,
        timeout_s: float | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """Run a hook while it holds its lane, and fire the event of its name. Never raises.

        Args:
            hook: The hook's name.
            *values: Its arguments.
            timeout_s: Seconds for which it holds the lane at most; None for no limit.
            on_done: Called when the hook has ended, which may be after this returns.
        """
        if self._has_hook(hook):
            try:
                where = f"{hook} of {self.name!r}"
                work = contained(getattr(self, hook), where, *values)
                about = values[0] if values else None
                await self._run_hook(work, hook, about, timeout_s=timeout_s, on_done=on_done)
            except Exception:
                logger.exception("%s: %s raised", self.name, hook)
        elif on_done is not None:
            on_done()
        if self._event_handlers:
            self._fire_event(hook, *values)

    async def _run_hook(
        self,
        work: Coroutine[Any, Any, Any],
        hook: str,
        about: object,
        *,
        timeout_s: float | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """Run a hook until it ends, releases the lane, or the time is over; raises its error."""
        gate = current_gate() if self._keeps_order else None
        hold = LaneHold(gate=gate, gate_timeout_s=timeout_s)
        task = hold.start(work, f"{self.name} {hook}")
        entry = self._handlers_in_progress.begin(hook, about)
        task.add_done_callback(lambda _: self._handlers_in_progress.end(entry))
        self._worker_tasks.add(task)
        if on_done is not None:
            task.add_done_callback(lambda _: on_done())
        try:
            if not await hold.wait_released(timeout_s):
                logger.info("%s: %s takes long; messages are handled beside it", self.name, hook)
        finally:
            if not task.done():
                task.add_done_callback(self._on_task_done)
                if not holds_lane():
                    self._deferred_acks.defer_until(task)
            else:
                self._worker_tasks.discard(task)
        if task.done() and not task.cancelled():
            task.result()


@functools.lru_cache(maxsize=1_024)
def _receiver_name(cls: type[WorkerCore], kind: type[BusMessage]) -> str | None:
    """The attribute of a class of workers that takes in messages of a class."""
    return next(
        (
            owner.RECEIVES[base]
            for base in kind.__mro__
            for owner in cls.__mro__
            if issubclass(owner, WorkerCore) and base in owner.__dict__.get("RECEIVES", ())
        ),
        None,
    )


def check_name(name: str) -> str:
    """Check the name of a worker.

    Returns:
        The name.

    Raises:
        WorkerNameError: The bus cannot address it.
    """
    if not isinstance(name, str):
        raise WorkerNameError(name, "it is no text")
    if not is_worker_name(name):
        raise WorkerNameError(
            name, "it is empty, too long, or has characters that names do not have"
        )
    return name
