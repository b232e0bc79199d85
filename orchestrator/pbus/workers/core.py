"""What every part of a worker stands on: its name, its bus, its tasks and its hooks."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Protocol, TypeVar

from pbus.bus.base import WorkerBus
from pbus.bus.local.deferred_ack import DeferredAcks
from pbus.bus.local.lane_hold import InlineLaneHold, LaneHold, gate_here, holds_lane
from pbus.concurrency.event_source import EventSource
from pbus.concurrency.user_code import as_handler_error, contained
from pbus.errors import PbusError, WorkerNameError, WorkerNotAttachedError
from pbus.ids import new_token
from pbus.messages import BusMessage
from pbus.names import WORKER_NAME
from pbus.registry import WorkerRegistry

logger = logging.getLogger(__name__)

_BASE_HOOK = "__pbus_base_hook__"
_CANCEL_S = 1.0  # what cancelled tasks get to clean up before they are left behind

H = TypeVar("H", bound=Callable[..., Any])


def base_hook(function: H) -> H:
    """Mark a hook of pbus' own, so that calling it can be saved unless a subclass has another."""
    setattr(function, _BASE_HOOK, True)
    return function


class Runner(Protocol):
    """What a worker knows of its runner."""

    @property
    def name(self) -> str:
        """The runner's name."""
        ...

    @property
    def end_timeout(self) -> float | None:
        """Seconds that workers get to finish what is queued."""
        ...


class WorkerCore(EventSource):
    """Names a worker, gives it a bus, and owns its tasks.

    Attributes:
        RECEIVES: Which method takes in messages of a class, besides the hook on_bus_message.
        sent: Messages sent.
        dropped: Messages for somebody who is inactive or stopping; nobody handled them.
        parent: The worker that added this one, or None for a root.
    """

    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {}

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = check_name(name or f"{type(self).__name__}-{new_token(24)}")
        self.sent = 0
        self.dropped = 0
        self.parent: WorkerCore | None = None
        self._bus: WorkerBus | None = None
        self._registry: WorkerRegistry | None = None
        self._runner: Runner | None = None
        self._active = True
        self._begun = asyncio.Event()  # set when hooks and handlers may be called
        self._is_stopping = False
        self._keeps_order = True  # a hook that waits for its job lets in only what jobs need
        self._tasks: set[asyncio.Task[Any]] = set()
        self._handling: set[InlineLaneHold] = set()  # handlers in the lanes' own tasks, that wait
        self._custody = DeferredAcks()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @property
    def bus(self) -> WorkerBus:
        """The bus it sends on.

        Raises:
            WorkerNotAttachedError: No runner has it yet.
        """
        if self._bus is None:
            raise WorkerNotAttachedError(self.name)
        return self._bus

    @property
    def registry(self) -> WorkerRegistry:
        """Who is there.

        Raises:
            WorkerNotAttachedError: No runner has it yet.
        """
        if self._registry is None:
            raise WorkerNotAttachedError(self.name)
        return self._registry

    @property
    def worker_runner(self) -> Any:
        """The WorkerRunner that hosts it.

        Raises:
            WorkerNotAttachedError: No runner has it yet.
        """
        if self._runner is None:
            raise WorkerNotAttachedError(self.name)
        return self._runner

    @property
    def address(self) -> str:
        """Where messages reach it: children are known within their runner only."""
        return self.name if self.parent is None else f"{self.name}@{self.registry.runner_name}"

    def create_task(
        self, work: Coroutine[Any, Any, Any], name: str | None = None
    ) -> asyncio.Task[Any]:
        """Start a task that ends with the worker; what it raises is logged."""
        name = name or f"{self.name} {getattr(work, '__qualname__', 'task')}"
        task = self._spawn(self._contain(work, name), name)
        task.add_done_callback(lambda _: work.close())  # it may not have begun
        return task

    async def _contain(self, work: Coroutine[Any, Any, Any], name: str) -> Any:
        """Run a user's coroutine; what would end the process is an error of its task."""
        try:
            return await work
        except (SystemExit, KeyboardInterrupt) as error:
            own = as_handler_error(error, f"task {name!r}")
            if own is None:
                raise
            raise own from error

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Start a task of pbus' own that ends with the worker."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    async def cancel_task(self, task: asyncio.Task[Any], timeout: float = 1.0) -> bool:  # noqa: ASYNC109 - then it is left behind
        """Cancel a task and wait, at most so many seconds; whether it ended."""
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=timeout)
        return bool(done)

    async def _transmit(self, message: BusMessage) -> None:
        """Send as it is, and count it."""
        await self.bus.send(message)
        self.sent += 1

    async def _transmit_quietly(self, message: BusMessage) -> None:
        """Send what nobody here waits for; a failure is logged."""
        try:
            await self._transmit(message)
        except PbusError as error:
            logger.warning("%s could not send %s: %s", self.name, message, error)

    def _has_hook(self, hook: str) -> bool:
        """Whether a subclass has a hook of its own."""
        return not hasattr(getattr(type(self), hook), _BASE_HOOK)

    async def _call_hook(
        self,
        hook: str,
        *values: Any,
        patience: float | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """Run a hook in its turn and fire the event of its name; what it raises is logged.

        `on_done` is called when the hook has ended, which may be after its turn is over.
        """
        if self._has_hook(hook):
            try:
                where = f"{hook} of {self.name!r}"
                work = contained(getattr(self, hook), where, *values)
                await self._in_turn(work, hook, patience=patience, on_done=on_done)
            except Exception:
                logger.exception("%s: %s raised", self.name, hook)
        elif on_done is not None:
            on_done()
        self._fire_event(hook, *values)

    async def _in_turn(
        self,
        work: Coroutine[Any, Any, Any],
        what: str,
        *,
        patience: float | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """Run a hook until it ends, or lets the lane go on, or patience (seconds) ends."""
        turn = LaneHold(gate=gate_here() if self._keeps_order else None, patience=patience)
        task = turn.start(work, f"{self.name} {what}")
        self._tasks.add(task)
        if on_done is not None:
            task.add_done_callback(lambda _: on_done())
        try:
            if not await turn.over(patience):
                logger.info("%s: %s takes long; messages are handled beside it", self.name, what)
        finally:
            if not task.done():
                task.add_done_callback(self._on_task_done)
                if not holds_lane():
                    self._custody.keep(task)
            else:
                self._tasks.discard(task)
        if task.done() and not task.cancelled():
            task.result()

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: task %s raised", self.name, task.get_name(), exc_info=error)

    async def _cancel_tasks(self) -> None:
        """End every task and handler of the worker, except the one that asks."""
        current = asyncio.current_task()
        ends: dict[asyncio.Future[Any], str] = {}
        for task in self._tasks - {current}:
            task.cancel()
            ends[task] = task.get_name()
        for turn in [turn for turn in self._handling if turn.task is not current]:
            ends[turn.cut_off()] = "of a handler"
        if ends:
            _, late = await asyncio.wait(ends, timeout=_CANCEL_S)
            for end in late:
                logger.error("%s: task %s ignores its cancellation", self.name, ends[end])


def check_name(name: str) -> str:
    """The name, if the bus can address it.

    Raises:
        WorkerNameError: It cannot.
    """
    if not isinstance(name, str):
        raise WorkerNameError(name, "it is no text")
    if not WORKER_NAME.fullmatch(name):
        raise WorkerNameError(name, "it has characters that names do not have")
    return name
