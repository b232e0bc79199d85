"""Watches: handlers that are called when a worker is ready, or lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Hashable
from typing import Any, Generic, Self, TypeVar

from pbus.bus.local.lane_hold import release_lane
from pbus.concurrency.user_code import contained
from pbus.names import group_of
from pbus.registry.event_data import WorkerLostData, WorkerReadyData
from pbus.registry.table import Change, WorkerJoined

logger = logging.getLogger(__name__)

_CANCEL_S = 1.0  # for a cancelled handler to clean up

T = TypeVar("T")
Calls = set[asyncio.Task[None]]
Handler = Callable[[T], Awaitable[None]]


class Watch(Generic[T]):
    """One watch. Each call of its handler is a task, so that a slow handler delays no other.

    Calls begin in the order of the events. Awaited, it waits for the calls in progress.

    Attributes:
        name: Of a worker or a group; None for all workers.
    """

    def __init__(self, name: str | None, handler: Handler[T], watches: "WatchList[T]") -> None:
        self.name = name
        self.handler: Handler[T] = handler
        self._watches = watches
        self._calls: Calls = set()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._until_called().__await__()

    async def _until_called(self) -> Self:
        calls = self._calls - {_current_task()}
        if calls:
            with release_lane():
                await asyncio.wait(calls)
        return self

    def cancel(self) -> None:
        """End the watch and cancel its calls, except the one that calls this."""
        self._watches.forget(self)
        for call in self._calls:
            if call is not _current_task():
                call.cancel()

    def call(self, data: T) -> None:
        """Call the handler in a new task."""
        call = asyncio.create_task(self._call(data), name=f"pbus watch {self.name or '*'}")
        for calls in (self._calls, self._watches.calls):
            calls.add(call)
            call.add_done_callback(calls.discard)

    async def _call(self, data: T) -> None:
        try:
            await contained(self.handler, f"the watcher of {self.name or 'all workers'}", data)
        except Exception:
            logger.exception("a watcher of %s raised for %s", self.name or "all workers", data)


class WatchList(Generic[T]):
    """The watches of one kind of event, by name; None is all names.

    Attributes:
        calls: The calls in progress.
    """

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self._watches: dict[str | None, dict[Hashable, Watch[T]]] = {}

    def add(self, name: str | None, handler: Handler[T]) -> tuple[Watch[T], bool]:
        """Add a watch.

        Returns:
            The watch of this name and handler, and True if it is new.
        """
        watches = self._watches.setdefault(name, {})
        key = _key_of(handler)
        if key in watches:
            return watches[key], False
        watch = watches[key] = Watch(name, handler, self)
        return watch, True

    def call(self, name: str | None, data: T) -> None:
        """Call the handlers of a name."""
        for watch in list(self._watches.get(name, {}).values()):
            watch.call(data)

    def all(self) -> list[Watch[T]]:
        """All watches."""
        return [watch for watches in self._watches.values() for watch in watches.values()]

    def forget(self, watch: Watch[T]) -> None:
        """Remove a watch. Idempotent."""
        watches, key = self._watches.get(watch.name, {}), _key_of(watch.handler)
        if watches.get(key) is watch:
            del watches[key]
            if not watches:
                del self._watches[watch.name]


class Watches:
    """The watches for readiness and for losses."""

    def __init__(self) -> None:
        self._calls: Calls = set()
        self.ready: WatchList[WorkerReadyData] = WatchList(self._calls)
        self.lost: WatchList[WorkerLostData] = WatchList(self._calls)

    def notify(self, change: Change) -> None:
        """Call the watchers of a worker and of its group."""
        if isinstance(change, WorkerJoined):
            name = change.data.worker_name
            self.ready.call(name, change.data)
            if change.first and (group := group_of(name)) is not None:
                self.ready.call(group, change.data)
            return
        name = change.worker_name
        self.lost.call(name, change)
        if (group := group_of(name)) is not None:
            self.lost.call(group, change)
        self.lost.call(None, change)

    async def close(self) -> None:
        """Cancel all watches and wait, at most 1 s, until no handler runs."""
        for ready in self.ready.all():
            ready.cancel()
        for lost in self.lost.all():
            lost.cancel()
        running = [call for call in self._calls if call is not _current_task()]
        if running:
            await asyncio.wait(running, timeout=_CANCEL_S)


def _key_of(handler: Handler[Any]) -> Hashable:
    """The key that equal handlers have in common; an object that has no hash is equal to itself only."""
    try:
        hash(handler)
    except TypeError:
        return id(handler)
    return handler


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs: a watch may be cancelled after its end
        return None
