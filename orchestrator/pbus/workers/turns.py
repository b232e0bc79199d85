"""Turns: a hook in progress keeps its lane to itself, until it waits for what the lane brings."""

import asyncio
import contextvars
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Protocol

from pbus.bus.reader import LaneReader, current_reader
from pbus.workers.custody import leave_to_others


class _Endable(Protocol):
    """What a task knows of the turn it belongs to."""

    @property
    def reader(self) -> LaneReader | None:
        """Whose message it is about."""
        ...

    def end(self) -> None:
        """Let the lane go on; once is enough."""
        ...


_turn: contextvars.ContextVar[_Endable | None] = contextvars.ContextVar("pbus_turn", default=None)


class Turn:
    """The turn of a hook with a task of its own; over when it ends, or lets the lane go on.

    Tasks that the hook starts belong to its turn. Only one waits for it to be over.
    """

    __slots__ = ("_on_over", "_over", "reader")

    def __init__(self, on_over: Callable[[], None] | None = None) -> None:
        self.reader = current_reader()
        self._over = asyncio.get_running_loop().create_future()
        self._on_over = on_over

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a hook in this turn."""
        context = contextvars.copy_context()
        context.run(_turn.set, self)
        task = asyncio.create_task(work, name=name, context=context)
        task.add_done_callback(lambda _: self.end())
        return task

    def end(self) -> None:
        """Let the lane go on; once is enough."""
        if not self._over.done():
            self._over.set_result(None)
            if self._on_over is not None:
                self._on_over()

    async def over(self, patience: float | None = None) -> bool:
        """Wait until it is over, at most so many seconds; whether it is."""
        if patience is None:
            await self._over
            return True
        done, _ = await asyncio.wait([self._over], timeout=patience)
        return bool(done)


class LaneTurn:
    """The turn of a handler that runs in the task that reads the lane.

    Most handlers never wait, and a task for each message costs more than all the rest. A handler
    that had to wait is the last its task runs: whoever keeps that task to cancel it hits no other.

    Args:
        handling: Where it is noted while the handler waits.
        has_lane: Whether it keeps the lane to itself; else it runs beside whoever reads that now.

    Attributes:
        task: Runs the handler, from when that had to wait.
    """

    __slots__ = ("_ended", "_handling", "_is_cut_off", "_is_over", "reader", "task")

    _ended: asyncio.Future[None]  # this and the next are there once the handler waits
    _is_cut_off: bool

    def __init__(self, handling: "set[LaneTurn]", *, has_lane: bool = True) -> None:
        self.reader = current_reader()
        self.task: asyncio.Task[Any] | None = None
        self._is_over = not has_lane
        self._handling = handling

    def end(self) -> None:
        """Let the lane go on; once is enough."""
        if self.reader is not None and not self._is_over:
            self.reader.release()
        self._is_over = True

    def begin(self, work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
        """Run the handler, in a context of its own, until it waits; the rest is to be awaited."""
        context = contextvars.copy_context()
        context.run(_turn.set, self)
        try:
            awaited = context.run(work.send, None)
        except StopIteration:
            self._is_over = True
            return None
        except BaseException:
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
            await _drive(context, work, awaited)
        except asyncio.CancelledError:
            if not self._is_cut_off:
                raise
            leave_to_others()
        finally:
            self._handling.discard(self)
            if self._is_cut_off and task is not None:
                task.uncancel()
            if not self._ended.done():
                self._ended.set_result(None)
            self.end()


@types.coroutine
def _drive(
    context: contextvars.Context, work: Coroutine[Any, Any, None], awaited: Any
) -> Generator[Any, Any, None]:
    """Take a coroutine that waits to its end, in a context other than the task's."""
    while True:
        resume: Callable[[Any], Any] = work.send
        try:
            value = yield awaited
        except BaseException as error:  # noqa: BLE001 - the handler's to bear
            resume, value = work.throw, error
        try:
            awaited = context.run(resume, value)
        except StopIteration:
            return


def is_in_turn() -> bool:
    """Whether this runs within somebody's turn, and so not in a lane itself."""
    turn = _turn.get()
    return turn is not None and turn.reader is current_reader()


def lend_turn() -> None:
    """Let the lane go on beside this handler: called before it waits for what the lane brings."""
    turn = _turn.get()
    if turn is not None:
        turn.end()
