"""`async with worker.job(...)`: a job that cannot be left open, and the queue of its events."""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from pbus.bus.local.lane_hold import release_lane
from pbus.errors import JobNotDoneError
from pbus.ids import new_id
from pbus.jobs.backpressure import Reading
from pbus.jobs.group import JobGroup, JobResponse
from pbus.jobs.job_events import JobEvent, JobGroupEvent
from pbus.jobs.params import JobGroupParams

MAX_QUEUED_BYTES = 4 * 1024 * 1024  # of events without a window: urgent ones, and unread ones

E = TypeVar("E")


class EventQueue(Generic[E]):
    """Events in order of arrival, for one reader.

    Events with a `reading` always find room until leave(), since the sender's window limits them.
    Other events are limited here, as are those that are kept after leave().

    Args:
        on_due: Called when a sender is to be told which of its events were read.
        capacity: Bytes.

    Attributes:
        missed: The number of events that found no room.
    """

    __slots__ = (
        "_bytes", "_capacity", "_events", "_has_left", "_is_closed", "_on_due", "_reader", "missed",
    )  # fmt: skip

    def __init__(
        self,
        on_due: Callable[[Reading], None] = lambda _: None,
        *,
        capacity: int = MAX_QUEUED_BYTES,
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
            event: The event.
            size: Bytes.
            reading: The record of the sender's events that were read.
            position: The event's, for that record.
        """
        if reading is not None and (self._has_left or self._is_closed):
            self._take(reading, position)
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
        """Wait for the next event.

        Returns:
            None when the queue is closed and empty.
        """
        while not self._events and not self._is_closed:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if not self._events:
            return None
        event, size, reading, position = self._events.popleft()
        self._bytes -= size
        if reading is not None:
            self._take(reading, position)
        return event

    def leave(self) -> None:
        """Count all events as read, so that no sender waits; they stay readable. Idempotent."""
        self._has_left = True
        if not self._events:
            return
        queued, self._events = self._events, deque()
        for event, size, reading, position in queued:
            self._events.append((event, size, None, 0))
            if reading is not None:
                self._take(reading, position)

    def close(self) -> None:
        """Accept no more events; queued ones stay readable. Idempotent."""
        self._is_closed = True
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _take(self, reading: Reading, position: int) -> None:
        if reading.take(position):
            self._on_due(reading)


class JobClientProtocol(Protocol):
    """The part of a JobClient that contexts use; errors as there."""

    async def open(self, group: JobGroup, events: EventQueue[JobGroupEvent] | None) -> None:
        """Send the requests of a group."""
        ...

    async def abandon(self, job_id: str, reason: str | None) -> bool:
        """Cancel a job and wait until the cancels are sent; returns whether it was open."""
        ...

    def forget(self, group: JobGroup) -> None:
        """Drop all state of a group."""
        ...

    def send_credit(self, reading: Reading) -> None:
        """Tell a worker which of its events were read."""
        ...


class _Context:
    """The common part of JobContext and JobGroupContext."""

    def __init__(
        self, client: JobClientProtocol, names: Sequence[str], params: JobGroupParams
    ) -> None:
        self._client = client
        self._group = JobGroup(new_id(), names, params)
        self._events: EventQueue[JobGroupEvent] = EventQueue(client.send_credit)

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._group.job_id

    @property
    def missed_events(self) -> int:
        """The number of events that were lost on the way or found no room in the queue."""
        return self._group.missing_events + self._events.missed

    async def __aenter__(self) -> Self:
        await self._client.open(self._group, self._events)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                await self._client.abandon(self._group.job_id, "the requester left the job early")
                return
            self._events.leave()
            await self._wait()
        finally:
            self._client.forget(self._group)
        if self._group.error is not None:
            raise self._group.error

    async def _wait(self) -> None:
        try:
            with release_lane():
                await self._group.until_told()
        except BaseException:
            await self._client.abandon(self._group.job_id, "the requester was cancelled")
            raise

    def __aiter__(self) -> Self:
        return self

    async def _next(self) -> JobGroupEvent:
        with release_lane():
            event = await self._events.get()
        if event is None:
            raise StopAsyncIteration
        return event


class JobContext(_Context):
    """A job at one worker: ``async with worker.job("db", name="load") as j: ...``.

    Entering waits until the worker is ready and sends the request. Leaving waits for the answer,
    and raises JobError without one. ``async for event in j`` gives updates and stream messages; a
    worker that sends them waits for a slow reader until the block is left. From then on they count
    as read, and the queue keeps as many as have room. Leaving by an exception cancels the job.

    Without a block it is awaited: ``response = await worker.job("db", name="load")``.
    """

    def __await__(self) -> Generator[Any, Any, JobResponse]:
        return self._answered().__await__()

    async def _answered(self) -> JobResponse:
        async with self:
            pass
        return self.response

    @property
    def worker(self) -> str:
        """The worker that does the job; until that is known, the name asked for."""
        return next(iter(self._group.members.values())).worker

    @property
    def response(self) -> JobResponse:
        """The worker's answer.

        Raises:
            JobNotDoneError: There is none yet.
        """
        for member in self._group.members.values():
            if member.response is not None:
                return member.response
        raise JobNotDoneError(self.job_id, ", ".join(self._group.members))

    async def __anext__(self) -> JobEvent:
        event = await self._next()
        return JobEvent(event.type, event.data)


class JobGroupContext(_Context):
    """A job at several workers; used like JobContext.

    Leaving raises the first error. With cancel_on_error=False it does not, and the status of each
    response tells how that part ended.

    Without a block it is awaited: ``responses = await worker.job_group("a", "b", name="load")``.
    """

    def __await__(self) -> Generator[Any, Any, dict[str, JobResponse]]:
        return self._answered().__await__()

    async def _answered(self) -> dict[str, JobResponse]:
        async with self:
            pass
        return self.responses

    @property
    def responses(self) -> dict[str, JobResponse]:
        """The answers so far, by the name asked for."""
        return self._group.responses

    @property
    def statuses(self) -> dict[str, str]:
        """The status of each worker's part, or "open", by the name asked for."""
        return self._group.statuses

    async def __anext__(self) -> JobGroupEvent:
        return await self._next()
