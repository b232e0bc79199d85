"""What a worker sends while it works on a job, and the queue between its arrival and `async for`."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import msgspec

EventType = Literal["update", "stream_start", "stream_data", "stream_end"]

MAX_WAITING_EVENTS = 10_000  # then the sender is made to wait, or nobody listens
ROOM_WAIT_S = 10.0  # what the bus waits for a slow receiver, too

E = TypeVar("E")


class JobEvent(msgspec.Struct, frozen=True):
    """An update or a stream message of a job."""

    type: EventType
    data: dict[str, Any]


class JobGroupEvent(msgspec.Struct, frozen=True):
    """An update or a stream message of one worker of a group.

    Attributes:
        worker_name: The worker as the group was asked for it.
        worker: The worker that sent it: for a group of replicas, which of them.
    """

    type: EventType
    worker_name: str
    data: dict[str, Any]
    worker: str


class EventQueue(Generic[E]):
    """Events in the order they came, for one reader.

    Full and being read, it makes the sender wait a while; full and unread, it takes no more.

    Attributes:
        missed: Events that found no room.
    """

    def __init__(self, capacity: int = MAX_WAITING_EVENTS) -> None:
        self.missed = 0
        self._capacity = capacity
        self._events: deque[E] = deque()
        self._changed: asyncio.Future[None] | None = None
        self._is_closed = False
        self._is_read = False
        self._is_stuck = False

    async def put(self, event: E, room_wait: float = ROOM_WAIT_S) -> None:
        """Add an event, waiting up to `room_wait` seconds for a reader that is behind."""
        is_full = len(self._events) >= self._capacity
        if is_full and self._is_read and not self._is_stuck and room_wait:
            await self._wait(room_wait, lambda: len(self._events) < self._capacity)
            self._is_stuck = len(self._events) >= self._capacity  # wait in full only once
        if self._is_closed:
            return
        if len(self._events) >= self._capacity:
            self.missed += 1
            return
        self._events.append(event)
        self._wake()

    async def get(self) -> E | None:
        """The next event, or None when it is closed and all have been read."""
        self._is_read = True
        while not self._events and not self._is_closed:
            await self._wait(None, lambda: bool(self._events))
        if not self._events:
            return None
        event = self._events.popleft()
        self._is_stuck = False
        self._wake()
        return event

    def close(self) -> None:
        """Take no more events; those that wait can still be read."""
        self._is_closed = True
        self._wake()

    async def _wait(self, seconds: float | None, until: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not self._is_closed and not until():
                    if self._changed is None or self._changed.done():
                        self._changed = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._changed)
        except TimeoutError:
            return

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
