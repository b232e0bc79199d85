"""`async with worker.job(...)`: a job that cannot be left open."""

from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from pbus.errors import JobNotDoneError
from pbus.ids import new_id
from pbus.jobs.backpressure import Reading
from pbus.jobs.group import JobGroup, JobResponse
from pbus.jobs.job_events import EventQueue, JobEvent, JobGroupEvent
from pbus.jobs.params import JobGroupParams


class Teller(Protocol):
    """Tells workers how far their events were read."""

    def tell(self, reading: Reading) -> None:
        """Tell one of them, soon."""
        ...


class JobClientProtocol(Protocol):
    """Where jobs are asked for; a worker's own."""

    @property
    def credits(self) -> Teller:
        """See there."""
        ...

    async def open(self, group: JobGroup) -> None:
        """Ask the workers; raises when the job is over before all have been asked."""
        ...

    async def wait(self, group: JobGroup) -> None:
        """Wait until the group is over."""
        ...

    async def next_event(self, group: JobGroup) -> JobGroupEvent | None:
        """The next event; None when there will be none."""
        ...

    async def abandon(self, group: JobGroup, reason: str) -> None:
        """Cancel it where it is still worked on."""
        ...

    def forget(self, group: JobGroup) -> None:
        """Take nothing more for it."""
        ...


class _Context:
    """What JobContext and JobGroupContext share."""

    def __init__(
        self, desk: JobClientProtocol, names: Sequence[str], params: JobGroupParams
    ) -> None:
        self._desk = desk
        self._group = JobGroup(new_id(), names, params)
        self._group.events = EventQueue(desk.credits.tell)

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._group.job_id

    @property
    def missed_events(self) -> int:
        """Events that were lost on the way, or found no room because nobody read them in time."""
        events = self._group.events
        return self._group.missing_events + (0 if events is None else events.missed)

    async def __aenter__(self) -> Self:
        await self._desk.open(self._group)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                await self._desk.abandon(self._group, "the requester left the job early")
                return
            if self._group.events is not None:
                self._group.events.leave()
            await self._wait()
        finally:
            self._desk.forget(self._group)
        if self._group.error is not None:
            raise self._group.error

    async def _wait(self) -> None:
        try:
            await self._desk.wait(self._group)
        except BaseException:
            await self._desk.abandon(self._group, "the requester was cancelled")
            raise

    def __aiter__(self) -> Self:
        return self

    async def _next(self) -> JobGroupEvent:
        event = await self._desk.next_event(self._group)
        if event is None:
            raise StopAsyncIteration
        return event


class JobContext(_Context):
    """A job asked of one worker: ``async with worker.job("db", name="load") as j: ...``.

    Entering waits until the worker is ready and asks it; leaving waits for the answer, and raises
    JobError when there is none. ``async for event in j`` gives its updates and stream messages; a
    worker that sends them waits for a slow reader, until the block is left: then they count as read,
    and only as many are kept as have room. Leaving by an exception cancels the job.

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
        """The worker at work on the job; before it is known which, the name that was asked for."""
        return next(iter(self._group.members.values())).worker

    @property
    def response(self) -> JobResponse:
        """What the worker answered.

        Raises:
            JobNotDoneError: It has not answered yet.
        """
        for member in self._group.members.values():
            if member.response is not None:
                return member.response
        raise JobNotDoneError(self.job_id, ", ".join(self._group.members))

    async def __anext__(self) -> JobEvent:
        event = await self._next()
        return JobEvent(event.type, event.data)


class JobGroupContext(_Context):
    """A job asked of several workers; used like JobContext.

    Leaving raises the first error, unless the group was asked for with cancel_on_error=False: then
    look at the status of each response.

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
        """How each worker's part ended, or "open"."""
        return self._group.statuses

    async def __anext__(self) -> JobGroupEvent:
        return await self._next()
