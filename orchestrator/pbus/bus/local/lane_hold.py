"""Turns: a hook in progress keeps its lane to itself, until it waits for what the lane brings."""

import asyncio
import contextvars
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, ClassVar, Protocol

from pbus.bus.lane_gate import LaneGate
from pbus.bus.local.deferred_ack import requeue_current
from pbus.bus.local.lane_reader import LaneReader, current_reader
from pbus.concurrency.user_code import awaitable


class _Lendable(Protocol):
    """What a task knows of the turn it belongs to."""

    @property
    def reader(self) -> LaneReader | None:
        """Whose message it is about."""
        ...

    @property
    def gate(self) -> LaneGate | None:
        """Of the lane that hooks called within this turn hold."""
        ...

    def lend(self) -> None:
        """Let the lane go on, before a wait."""
        ...

    def resume(self) -> None:
        """The wait is over."""
        ...

    def offer(self) -> None:
        """Let the lane go on as soon as the handler waits for anything."""
        ...


_turn: contextvars.ContextVar[_Lendable | None] = contextvars.ContextVar("pbus_turn", default=None)


class LaneHold:
    """The turn of a hook with a task of its own; over when it ends, or lets the lane go on.

    Tasks that the hook starts belong to its turn. Only one waits for it to be over.

    Args:
        on_over: Called once when it is over.
        gate: Of the lane that it goes on holding after it lent it, until the hook ends; None lets
            everything in.
        patience: Seconds after which it holds the lane no longer, unless it waits for a job.
    """

    __slots__ = (
        "_held", "_on_over", "_over", "_patience", "_task", "_timer", "_waits", "gate", "reader",
    )  # fmt: skip

    def __init__(
        self,
        on_over: Callable[[], None] | None = None,
        *,
        gate: LaneGate | None = None,
        patience: float | None = None,
    ) -> None:
        self.reader = current_reader()
        self.gate = gate
        self._held: LaneGate | None = None
        self._over = asyncio.get_running_loop().create_future()
        self._on_over = on_over
        self._patience = patience
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits = 0

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a hook in this turn."""
        context = contextvars.copy_context()
        context.run(_turn.set, self)
        task = self._task = asyncio.create_task(work, name=name, context=context)
        task.add_done_callback(lambda _: self._end())
        return task

    def lend(self) -> None:
        """Let the lane go on, before a wait."""
        self.offer()
        self._waits += 1
        self._stop_timer()

    def resume(self) -> None:
        """The wait is over."""
        self._waits -= 1
        self._be_patient()

    def offer(self) -> None:
        """Let the lane go on: what a hook with a task of its own does, nobody sees it wait."""
        task = self._task
        if self._over.done() or task is None or task.done():
            return
        if self.gate is not None:
            self._held = self.gate
            self._held.hold()
            self._be_patient()
        self._set_over()

    async def over(self, patience: float | None = None) -> bool:
        """Wait until it is over, at most so many seconds; whether it is."""
        if patience is None:
            await self._over
            return True
        done, _ = await asyncio.wait([self._over], timeout=patience)
        if not done:
            self.gate = None  # others were let in: it is too late to hold them
        return bool(done)

    def _end(self) -> None:
        if self._over.done():
            self._let_go()
        else:
            self._set_over()

    def _set_over(self) -> None:
        self._over.set_result(None)
        if self._on_over is not None:
            self._on_over()

    def _be_patient(self) -> None:
        self._stop_timer()
        if self._held is not None and self._patience is not None and not self._waits:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._patience, self._let_go)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_go(self) -> None:
        """Hold the lane no longer; once is enough."""
        self._stop_timer()
        held, self._held = self._held, None
        if held is not None:
            held.release()


class InlineLaneHold:
    """The turn of a handler that runs in the task that reads the lane.

    Most handlers never wait, and a task for each message costs more than all the rest. A handler
    that had to wait is the last its task runs: whoever keeps that task to cancel it hits no other.

    Args:
        handling: Where it is noted while the handler waits.
        has_lane: Whether it keeps the lane to itself; else it runs beside whoever reads that now.

    Attributes:
        HOLDS: Whether it goes on holding the lane after it lent it, until the handler ends.
        task: Runs the handler, from when that had to wait.
    """

    __slots__ = (
        "_ended", "_handling", "_held", "_is_cut_off", "_is_offered", "_is_over", "reader", "task",
    )  # fmt: skip

    HOLDS: ClassVar[bool] = False

    _ended: asyncio.Future[None]  # this and the next two are there once the handler waits
    _is_cut_off: bool
    _is_offered: bool
    _held: LaneGate | None  # once it was lent

    def __init__(self, handling: "set[InlineLaneHold]", *, has_lane: bool = True) -> None:
        self.reader = current_reader()
        self.task: asyncio.Task[Any] | None = None
        self._is_over = not has_lane
        self._handling = handling

    @property
    def gate(self) -> LaneGate | None:
        """Of the lane that hooks called within this turn hold."""
        return self.reader.gate if self.HOLDS and self.reader is not None else None

    def lend(self) -> None:
        """Let the lane go on, before a wait; once is enough."""
        if self._is_over:
            return
        self._is_over = True
        if self.reader is not None:
            self._held = self.gate
            if self._held is not None:
                self._held.hold()
            self.reader.hand_over()

    def resume(self) -> None:
        """The wait is over: it holds the lane until it ends."""

    def offer(self) -> None:
        """Let the lane go on as soon as the handler waits for anything."""
        if self._is_over or not self.HOLDS:
            return
        if self.task is None or self.task is asyncio.current_task():
            self._is_offered = True
        else:  # a task of the handler's: that itself waits already
            self.lend()

    def begin(self, work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
        """Run the handler, in a context of its own, until it waits; the rest is to be awaited."""
        context = contextvars.copy_context()
        context.run(_turn.set, self)
        try:
            send = work.send
        except AttributeError:
            work = _as_coroutine(work)
            send = work.send
        try:
            awaited = context.run(send, None)
        except StopIteration:
            if self._is_over:
                self._let_go()
            self._is_over = True
            return None
        except BaseException:
            self._let_go()
            self._is_over = True
            raise
        return self._go_on(context, work, awaited)

    def cut_off(self) -> asyncio.Future[None]:
        """Cancel a handler that waits; the result is done when it has ended."""
        if self.task is not None and not self._is_cut_off:
            self._is_cut_off = True
            self.task.cancel()
        return self._ended

    async def _go_on(
        self, context: contextvars.Context, work: Coroutine[Any, Any, None], awaited: Any
    ) -> None:
        task = self.task = asyncio.current_task()
        self._ended = asyncio.get_running_loop().create_future()
        self._is_cut_off = False
        self._handling.add(self)
        try:
            await self._drive(context, work, awaited)
        except asyncio.CancelledError:
            if not self._is_cut_off:
                raise
            requeue_current()
        finally:
            self._handling.discard(self)
            if self._is_cut_off and task is not None:
                task.uncancel()
            if not self._ended.done():
                self._ended.set_result(None)
            self._let_go()
            if self.reader is not None and not self._is_over:
                self.reader.hand_over()  # its task reads no more
            self._is_over = True

    @types.coroutine
    def _drive(
        self, context: contextvars.Context, work: Coroutine[Any, Any, None], awaited: Any
    ) -> Generator[Any, Any, None]:
        """Take a coroutine that waits to its end, in a context other than the task's."""
        while True:
            if not self._is_over and getattr(self, "_is_offered", False):
                self.lend()
            resume: Callable[[Any], Any] = work.send
            try:
                value = yield awaited
            except BaseException as error:  # noqa: BLE001 - the handler's to bear
                resume, value = work.throw, error
            try:
                awaited = context.run(resume, value)
            except StopIteration:
                return

    def _let_go(self) -> None:
        """Hold the lane no longer."""
        held = getattr(self, "_held", None)
        if held is not None:
            self._held = None
            held.release()


class HoldingTurn(InlineLaneHold):
    """One that goes on holding its lane: until it ends only what jobs need comes in."""

    __slots__ = ()
    HOLDS = True


async def _as_coroutine(work: Any) -> None:
    await awaitable(work, "on_bus_message")


class lending:  # noqa: N801 - used as a block
    """A block in which the handler at work waits: its lane goes on for what it waits for."""

    __slots__ = ("_turn",)

    def __enter__(self) -> None:
        turn = self._turn = _turn.get()
        if turn is not None:
            turn.lend()

    def __exit__(self, *exc: object) -> None:
        if self._turn is not None:
            self._turn.resume()


def offer_turn() -> None:
    """Let the lane go on as soon as the handler at work waits: it may wait for a job's end."""
    turn = _turn.get()
    if turn is not None:
        turn.offer()


def holds_lane() -> bool:
    """Whether this runs within somebody's turn, and so not in a lane itself."""
    turn = _turn.get()
    return turn is not None and turn.reader is current_reader()


def gate_here() -> LaneGate | None:
    """The gate that a hook called here holds: its lane's, or that of the turn it is called in."""
    reader, turn = current_reader(), _turn.get()
    if turn is not None and turn.reader is reader:
        return turn.gate
    if reader is None or reader.is_released or reader.task is not asyncio.current_task():
        return None
    return reader.gate
