"""Lane holds: a running handler blocks its lane until it ends or waits for a job."""

import asyncio
import contextvars
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, ClassVar, Protocol

from pbus.bus.lane_gate import LaneGate
from pbus.bus.local.deferred_ack import requeue_current
from pbus.bus.local.lane_reader import LaneReader, current_reader
from pbus.concurrency.user_code import awaitable
from pbus.trace_context import Cause


class Hold(Protocol):
    """The interface of a hold for the tasks that run within it."""

    @property
    def reader(self) -> LaneReader | None:
        """The reader of the message that is handled."""
        ...

    @property
    def gate(self) -> LaneGate | None:
        """The lane's gate, for hooks that are called within this hold."""
        ...

    @property
    def cause(self) -> Cause | None:
        """The message that is handled, for the trace of what is sent meanwhile."""
        ...

    def release(self) -> None:
        """Let the lane read on, before a wait."""
        ...

    def resume(self) -> None:
        """End the wait that followed release()."""
        ...

    def release_on_wait(self) -> None:
        """Let the lane read on at the handler's next wait of any kind."""
        ...


CURRENT_HOLD: contextvars.ContextVar[Hold | None] = contextvars.ContextVar(
    "pbus_lane_hold", default=None
)


class InlineLaneHold:
    """The hold of a handler that runs in the task that reads the lane.

    Most handlers never wait, and a task per message costs more than all the rest. A handler that
    waits is the last one of its task, so cancelling that task affects no other handler.

    Args:
        waiting: Contains this hold while the handler waits.
        has_lane: Whether the lane is blocked; False for a handler in a task of its own.

    Attributes:
        GATED: Whether the gate is held from the release until the handler ends.
        task: The task of a handler that waits; None before the first wait.
    """

    __slots__ = (
        "_ended", "_held_gate", "_is_cancelled", "_is_released", "_releases_on_wait", "_waiting",
        "cause", "reader", "task",
    )  # fmt: skip

    GATED: ClassVar[bool] = False

    _ended: asyncio.Future[None]  # this and the next two exist once the handler waits
    _is_cancelled: bool
    _releases_on_wait: bool
    _held_gate: LaneGate | None  # exists after the release

    def __init__(self, waiting: "set[InlineLaneHold]", *, has_lane: bool = True) -> None:
        reader = self.reader = current_reader()
        self.cause: Cause | None = None if reader is None else reader.message
        self.task: asyncio.Task[Any] | None = None
        self._is_released = not has_lane
        self._waiting = waiting

    @property
    def gate(self) -> LaneGate | None:
        """The lane's gate, for hooks that are called within this hold."""
        return self.reader.gate if self.GATED and self.reader is not None else None

    def release(self) -> None:
        """Let the lane read on, before a wait. Idempotent."""
        if self._is_released:
            return
        self._is_released = True
        if self.reader is not None:
            self._held_gate = self.gate
            if self._held_gate is not None:
                self._held_gate.hold()
            self.reader.hand_over()

    def resume(self) -> None:
        """End the wait that followed release(); the gate stays held."""

    def release_on_wait(self) -> None:
        """Let the lane read on at the handler's next wait of any kind."""
        if self._is_released or not self.GATED:
            return
        if self.task is None or self.task is asyncio.current_task():
            self._releases_on_wait = True
        else:  # called in a task of the handler's, so the handler waits already
            self.release()

    def start(self, work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
        """Run the handler in a context of its own until its first wait.

        Args:
            work: The handler's coroutine.

        Returns:
            The rest of the handler, to be awaited; None when it has ended.
        """
        context = contextvars.copy_context()
        context.run(CURRENT_HOLD.set, self)
        try:
            send = work.send
        except AttributeError:
            work = _as_coroutine(work)
            send = work.send
        try:
            awaited = context.run(send, None)
        except StopIteration:
            if self._is_released:
                self._open_gate()
            self._is_released = True
            return None
        except BaseException:
            self._open_gate()
            self._is_released = True
            raise
        return self._finish(context, work, awaited)

    def cancel(self) -> asyncio.Future[None]:
        """Cancel a handler that waits. Idempotent.

        Returns:
            Done when the handler has ended.
        """
        if self.task is not None and not self._is_cancelled:
            self._is_cancelled = True
            self.task.cancel()
        return self._ended

    async def _finish(
        self, context: contextvars.Context, work: Coroutine[Any, Any, None], awaited: Any
    ) -> None:
        task = self.task = asyncio.current_task()
        self._ended = asyncio.get_running_loop().create_future()
        self._is_cancelled = False
        self._waiting.add(self)
        try:
            await self._drive(context, work, awaited)
        except asyncio.CancelledError:
            if not self._is_cancelled:
                raise
            requeue_current()
        finally:
            self._waiting.discard(self)
            if self._is_cancelled and task is not None:
                task.uncancel()
            if not self._ended.done():
                self._ended.set_result(None)
            self._open_gate()
            if self.reader is not None and not self._is_released:
                self.reader.hand_over()  # this task reads no further message
            self._is_released = True

    @types.coroutine
    def _drive(
        self, context: contextvars.Context, work: Coroutine[Any, Any, None], awaited: Any
    ) -> Generator[Any, Any, None]:
        """Run a waiting coroutine to its end, in a context other than the task's."""
        while True:
            if not self._is_released and getattr(self, "_releases_on_wait", False):
                self.release()
            resume: Callable[[Any], Any] = work.send
            try:
                value = yield awaited
            except BaseException as error:  # noqa: BLE001 - passed on to the handler
                resume, value = work.throw, error
            try:
                awaited = context.run(resume, value)
            except StopIteration:
                return

    def _open_gate(self) -> None:
        """Release the gate. Idempotent."""
        gate = getattr(self, "_held_gate", None)
        if gate is not None:
            self._held_gate = None
            gate.release()


class GatedInlineLaneHold(InlineLaneHold):
    """A hold that keeps the gate after the release: until its end only job messages pass."""

    __slots__ = ()
    GATED = True


async def _as_coroutine(work: Any) -> None:
    await awaitable(work, "on_bus_message")


class release_lane:  # noqa: N801 - used as a block
    """Context manager around a wait: the lane of the current handler reads on meanwhile."""

    __slots__ = ("_hold",)

    def __enter__(self) -> None:
        hold = self._hold = CURRENT_HOLD.get()
        if hold is not None:
            hold.release()

    def __exit__(self, *exc: object) -> None:
        if self._hold is not None:
            self._hold.resume()


def release_lane_on_wait() -> None:
    """Let the lane read on at the current handler's next wait, which may be for a job's end."""
    hold = CURRENT_HOLD.get()
    if hold is not None:
        hold.release_on_wait()


def holds_lane() -> bool:
    """Whether this code runs within a hold of the message that is being read."""
    hold = CURRENT_HOLD.get()
    return hold is not None and hold.reader is current_reader()


def current_gate() -> LaneGate | None:
    """The gate for a hook that is called here: the lane's, or that of the enclosing hold."""
    reader, hold = current_reader(), CURRENT_HOLD.get()
    if hold is not None and hold.reader is reader:
        return hold.gate
    if reader is None or reader.is_released or reader.task is not asyncio.current_task():
        return None
    return reader.gate
