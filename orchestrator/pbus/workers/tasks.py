"""Tasks and waiting handlers of a worker, and their end."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from pbus.bus.local.lane_hold import InlineLaneHold
from pbus.concurrency.event_source import EventSource
from pbus.concurrency.user_code import as_handler_error

logger = logging.getLogger(__name__)

_CANCEL_S = 1.0  # for cancelled tasks to clean up, before they are left behind


class TasksMixin(EventSource):
    """Owns the tasks of a worker.

    Attributes:
        name: The worker's.
    """

    name: str

    def __init__(self) -> None:
        super().__init__()
        self._worker_tasks: set[asyncio.Task[Any]] = set()
        self._waiting_handlers: set[InlineLaneHold] = set()  # those that run in lane tasks

    def create_task(
        self, work: Coroutine[Any, Any, Any], name: str | None = None
    ) -> asyncio.Task[Any]:
        """Start a task that ends with the worker. Its errors are logged.

        Args:
            work: The coroutine.
            name: Of the task; made from the coroutine's when not given.
        """
        name = name or f"{self.name} {getattr(work, '__qualname__', 'task')}"
        task = self._spawn_task(self._contain(work, name), name)
        task.add_done_callback(lambda _: work.close())  # it may not have begun
        return task

    async def cancel_task(self, task: asyncio.Task[Any], timeout: float = 1.0) -> bool:  # noqa: ASYNC109 - then it is left behind
        """Cancel a task and wait for its end.

        Args:
            task: Any task.
            timeout: Seconds.

        Returns:
            Whether it has ended.
        """
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=timeout)
        return bool(done)

    async def _contain(self, work: Coroutine[Any, Any, Any], name: str) -> Any:
        """Run a user's coroutine; exits and interrupts become errors of its task."""
        try:
            return await work
        except (SystemExit, KeyboardInterrupt) as error:
            own = as_handler_error(error, f"task {name!r}")
            if own is None:
                raise
            raise own from error

    def _spawn_task(
        self, work: Coroutine[Any, Any, Any], name: str | None = None
    ) -> asyncio.Task[Any]:
        """Start an internal task that ends with the worker."""
        task = asyncio.create_task(work, name=name)
        self._worker_tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._worker_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: task %s raised", self.name, task.get_name(), exc_info=error)

    async def _cancel_tasks(self) -> None:
        """Cancel all tasks and handlers of the worker, except the calling one."""
        current = asyncio.current_task()
        ends: dict[asyncio.Future[Any], str] = {}
        for task in self._worker_tasks - {current}:
            task.cancel()
            ends[task] = task.get_name()
        for hold in [hold for hold in self._waiting_handlers if hold.task is not current]:
            ends[hold.cancel()] = "of a handler"
        if ends:
            _, late = await asyncio.wait(ends, timeout=_CANCEL_S)
            for end in late:
                logger.error("%s: task %s ignores its cancellation", self.name, ends[end])
