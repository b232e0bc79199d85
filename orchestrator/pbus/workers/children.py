"""Children: workers that another worker adds, known in its runner only."""

import asyncio
from typing import ClassVar

import msgspec

from pbus.concurrency.flag import Flag
from pbus.errors import DuplicateWorkerError
from pbus.messages import (
    BusAddWorkerMessage,
    BusCancelWorkerMessage,
    BusEndWorkerMessage,
    BusMessage,
    BusWorkerLocalErrorMessage,
)
from pbus.names import MAX_NAME_LENGTH
from pbus.registry import WorkerErrorData
from pbus.running_handlers import RunningHandler
from pbus.workers.core import base_hook
from pbus.workers.watching import WatchingMixin


class ChildrenMixin(WatchingMixin):
    """Adds children, which end with their parent."""

    EVENTS = frozenset({"on_worker_failed"})
    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusWorkerLocalErrorMessage: "_receive_child_error"
    }

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._children: list[ChildrenMixin] = []
        self._is_alive = False  # while run() is under way
        self._has_ended = Flag()

    @property
    def children(self) -> list["ChildrenMixin"]:
        """The children that have not ended."""
        return list(self._children)

    @base_hook
    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        """Handle an error that a child reported, or its crash."""

    async def add_workers(self, *workers: "ChildrenMixin", watch: bool = True) -> None:
        """Have the runner host children of this worker.

        Args:
            *workers: New workers.
            watch: Whether on_worker_ready is called for them.

        Raises:
            WorkerNotAttachedError: No runner has this worker yet.
            DuplicateWorkerError: A child has the name, or belongs to a parent already.
        """
        for worker in workers:
            self._check_free(worker)
            worker.parent = self
            self._children.append(worker)
            if watch:
                await self.watch_workers(worker.name)
            await self.send_bus_message(
                BusAddWorkerMessage(
                    source=self.address, target=self.registry.runner_name, worker=worker
                )
            )

    async def wait(self) -> None:
        """Wait until the worker and its children have ended."""
        await self._has_ended.wait()

    def _check_free(self, worker: "ChildrenMixin") -> None:
        parent = worker.parent
        if isinstance(parent, ChildrenMixin) and worker in parent.children:
            raise DuplicateWorkerError(worker.name, f"a child of {parent.name!r}")
        if any(child.name == worker.name for child in self._children):
            raise DuplicateWorkerError(worker.name, f"another child of {self.name!r}")

    async def _receive_child_error(self, message: BusWorkerLocalErrorMessage) -> None:
        data = WorkerErrorData(message.source.partition("@")[0], message.error)
        for child in self.children:
            if child.name == data.worker_name and not child._is_alive:  # noqa: SLF001 - of the same class
                self._children.remove(child)  # it was rejected and never ran
        await self._call_hook("on_worker_failed", data)

    async def _end_children(self, reason: str | None, timeout_s: float | None) -> None:
        """Ask the children to finish what is queued for them, and wait for their end."""
        children = self.children
        for child in children:
            await self._bus_send_best_effort(
                BusEndWorkerMessage(
                    source=self.address, target=child.name, reason=reason, timeout_s=timeout_s
                )
            )
        await asyncio.gather(*(child.wait() for child in children))

    async def _cancel_children(self) -> None:
        """Ask the children to stop at once."""
        for child in self.children:
            reason = f"{self.name} finished"
            await self._bus_send_best_effort(
                BusCancelWorkerMessage(source=self.address, target=child.name, reason=reason)
            )

    def _oldest_handler(self) -> RunningHandler | None:
        """The handler that has run longest, of the worker or its children."""
        found = [self._handlers_in_progress.oldest()]
        for child in self.children:
            if (handler := child._oldest_handler()) is not None:  # noqa: SLF001 - of the same class
                name = f"{child.name}.{handler.name}"[:MAX_NAME_LENGTH]
                found.append(msgspec.structs.replace(handler, name=name))
        return min(filter(None, found), key=lambda one: one.since, default=None)

    def _leave_parent(self) -> None:
        """End; the parent may add another child of this name."""
        self._is_alive = False
        self._has_ended.set()
        parent = self.parent
        if isinstance(parent, ChildrenMixin) and self in parent._children:  # noqa: SLF001 - of the same class
            parent._children.remove(self)  # noqa: SLF001 - likewise
