"""What a worker sends while it works on a job, and the queue between its arrival and `async for`."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import msgspec

from pbus.jobs.backpressure import Reading

EventType = Literal["update", "stream_start", "stream_data", "stream_end"]

MAX_WAITING_BYTES = 4 * 1024 * 1024  # of what no window bounds: urgent updates, what is not read

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

    Those whose sender waits until they were read (they have a `reading`) always find room until
    leave(): the sender's window is the bound. Others are bounded here, and so is what is kept
    for a reader that has left and might come back.

    Args:
        on_due: Called when a sender is to be told how far it was read.
        capacity: Bytes that wait at most.

    Attributes:
        missed: Events that found no room.
    """

    def __init__(
        self,
        on_due: Callable[[Reading], None] = lambda _: None,
        *,
        capacity: int = MAX_WAITING_BYTES,
    ) -> None:
        self.missed = 0
        self._on_due = on_due
        self._capacity = capacity
        self._bytes = 0
        self._events: deque[tuple[E, int, Reading | None, int]] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._is_closed = False
        self._has_left = False

    def put(
        self, event: E, size: int = 0, reading: Reading | None = None, position: int = 0
    ) -> None:
        """Add an event.

        Args:
            event: What happened.
            size: What it counts, bytes.
            reading: Where it is noted that it was read, or will not be.
            position: What is noted there.
        """
        if reading is not None and (self._has_left or self._is_closed):
            self._note(reading, position)
            reading = None
        if self._is_closed:
            return
        if reading is None and self._bytes + size > self._capacity:
            self.missed += 1
            return
        self._events.append((event, size, reading, position))
        self._bytes += size
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def get(self) -> E | None:
        """The next event, or None when it is closed and all have been read."""
        while not self._events and not self._is_closed:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if not self._events:
            return None
        event, size, reading, position = self._events.popleft()
        self._bytes -= size
        if reading is not None:
            self._note(reading, position)
        return event

    def leave(self) -> None:
        """Read no more: no sender waits for it. What fits can still be read. Idempotent."""
        self._has_left = True
        waiting, self._events = self._events, deque()
        for event, size, reading, position in waiting:
            self._events.append((event, size, None, 0))
            if reading is not None:
                self._note(reading, position)

    def _note(self, reading: Reading, position: int) -> None:
        if reading.take(position):
            self._on_due(reading)

    def close(self) -> None:
        """Take no more events; those that wait can still be read."""
        self._is_closed = True
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
