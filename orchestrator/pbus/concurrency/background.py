"""Background tasks: started, restarted after an error, cancelled by their owner."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

TaskFunction: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

_RESTART_DELAY_S = 1.0

logger = logging.getLogger(__name__)


class TaskOwner:
    """Holds tasks until they are done, and cancels the rest on close."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self, timeout_s: float | None = None) -> None:
        """Cancel all tasks and wait for their end.

        Args:
            timeout_s: Seconds to wait; None for tasks that end when they are cancelled.
        """
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)


@contextlib.asynccontextmanager
async def running(
    work: Coroutine[Any, Any, T], name: str | None = None
) -> AsyncIterator["asyncio.Task[T]"]:
    """Run a task during a block; at the end of the block it is cancelled and awaited."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def run_forever(
    name: str, function: TaskFunction, on_error: Callable[[], None] | None = None
) -> None:
    """Run a function until cancelled, again one second after each end or error.

    Args:
        name: For the log.
        function: Makes the coroutine.
        on_error: Called after each error.
    """
    errors = ErrorLog(name, on_error)
    while True:
        with errors.catch():
            await function()
        await asyncio.sleep(_RESTART_DELAY_S)


class ErrorLog:
    """Logs errors in place of raising them; of equal errors in a row, the first.

    Args:
        name: The failing part, for the log.
        on_error: Called after each error.
    """

    def __init__(self, name: str, on_error: Callable[[], None] | None = None) -> None:
        self._name = name
        self._on_error = on_error
        self._last = ""

    @contextlib.contextmanager
    def catch(self) -> Iterator[None]:
        """Log an error of the block and suppress it."""
        try:
            yield
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if text != self._last:
                logger.exception("%s ended by an error: a bug in pbus; it goes on", self._name)
            self._last = text
            if self._on_error is not None:
                self._on_error()
