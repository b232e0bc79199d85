"""Turns: a hook in progress keeps its lane to itself, until it waits for what the lane brings."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

_turn: contextvars.ContextVar["Turn | None"] = contextvars.ContextVar("pbus_turn", default=None)


class Turn:
    """One handler's turn; over when the handler ends, or when it lets the lane go on.

    Tasks that the handler starts belong to its turn. Only one waits for it to be over.
    """

    __slots__ = ("_on_over", "_over")

    def __init__(self, on_over: Callable[[], None] | None = None) -> None:
        self._over = asyncio.get_running_loop().create_future()
        self._on_over = on_over

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a handler in this turn."""
        context = contextvars.copy_context()
        context.run(_turn.set, self)
        task = asyncio.create_task(work, name=name, context=context)
        task.add_done_callback(self.end)
        return task

    def end(self, task: asyncio.Task[Any] | None = None) -> None:
        """Let the lane go on; once is enough."""
        del task
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


def is_in_turn() -> bool:
    """Whether this runs within somebody's turn, and so not in a lane itself."""
    return _turn.get() is not None


def lend_turn() -> None:
    """Let the lane go on beside this handler: called before it waits for what the lane brings."""
    turn = _turn.get()
    if turn is not None:
        turn.end()
