"""Whether a program ends: asyncio.run() cancels all tasks of its loop at once."""

import asyncio


class LoopEnd:
    """Knows whether every task is being cancelled, and asks all tasks at most once a turn of the loop."""

    def __init__(self) -> None:
        self._witness: asyncio.Task[object] | None = None  # was not being cancelled
        self._is_over = False

    def has_come(self) -> bool:
        """Whether every task of the running loop is being cancelled."""
        if self._is_over:
            return True
        loop, witness = asyncio.get_running_loop(), self._witness
        if witness is not None and witness.get_loop() is loop and _goes_on(witness):
            return False
        self._witness = next(filter(_goes_on, asyncio.all_tasks(loop)), None)
        if self._witness is None:
            self._is_over = True
            loop.call_soon(self._forget)
        return self._is_over

    def _forget(self) -> None:
        self._is_over = False


def _goes_on(task: "asyncio.Task[object]") -> bool:
    return not (task.done() or task.cancelling())
