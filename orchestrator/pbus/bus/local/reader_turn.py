"""The wait of a lane's reader for its next item, which can end within the callback of a socket."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any


class ReaderTurn(asyncio.Future[None]):
    """A future for one waiting task, which go_on() resumes without a turn of the loop.

    From the socket to the handler it is one turn then, not two: of a message to an idle receiver that
    is a tenth of the processor time.
    """

    _wake_up: Callable[..., Any] | None = None
    _wake_context: contextvars.Context | None = None

    def add_done_callback(
        self, callback: Callable[..., Any], /, *, context: contextvars.Context | None = None
    ) -> None:
        """Note the one task that waits."""
        self._wake_up, self._wake_context = callback, context

    def set_result(self, result: None, /) -> None:
        """Have the task resumed in the next turn of the loop."""
        super().set_result(result)
        self._resume_soon()

    def cancel(self, msg: Any | None = None) -> bool:
        """Have the task resumed with a CancelledError; returns whether it waited."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._resume_soon()
        return is_cancelled

    def go_on(self) -> None:
        """Resume the task here and now, or soon where another task runs here. Idempotent."""
        if self.done():
            return
        resume, context = self._wake_up, self._wake_context
        if resume is None or context is None or asyncio.current_task() is not None:
            self.set_result(None)
            return
        super().set_result(None)
        context.run(resume, self)

    def _resume_soon(self) -> None:
        if self._wake_up is not None:
            self.get_loop().call_soon(self._wake_up, self, context=self._wake_context)
