"""The requester's view of a job: whom it asked, who answered what, whether it is over.

A single job is a group of one.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from pbus.errors import (
    JobCancelledError,
    JobError,
    JobFailedError,
    JobTimeoutError,
    JobWorkerLostError,
)
from pbus.jobs.backpressure import Reading
from pbus.jobs.job_events import EventQueue, JobGroupEvent
from pbus.jobs.params import JobGroupParams
from pbus.messages import JobStatus

STOPPED = "stopped"  # the type of an answer that only says that the worker stops
_NAMES_SHOWN = 3


class JobResponse(dict[str, Any]):
    """What a worker answered, and how the job ended there.

    Attributes:
        status: Only COMPLETED is a success.
        worker: The worker that answered: for a group of replicas, which of them.
    """

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, status: JobStatus, worker: str
    ) -> None:
        super().__init__(data or {})
        self.status = status
        self.worker = worker


class JobGroupResponse(msgspec.Struct, frozen=True):
    """All answers to a group of jobs, by the name asked for."""

    job_id: str
    responses: dict[str, JobResponse]


class JobMember:
    """One worker's part of a group.

    Attributes:
        name: The worker or the group of replicas that was asked for.
        worker: The worker that works on it, as far as is known.
        address: Who was asked: the worker, or replicas that share what is asked of them.
        incarnation: The life of that worker which was asked.
        wire_id: The job's id in messages to and from that worker.
        is_asked: Whether the request is (or may be) on its way.
        is_kept: The broker keeps the request until it is answered: no worker's loss ends it.
        lives_lost: How many workers were lost while they worked on it.
        seen: Events received from the worker.
        announced: Events that the worker says it sent before its answer.
        window: Bytes of its events that may be on their way unread.
        reading: How far those of the life at work have been read; None before the first.
        progress: What the last update said.
        response: The answer, or what stands for it when none can come.
        error: Why it is no success.
    """

    def __init__(self, name: str, job_id: str) -> None:
        self.name = name
        self.worker = name
        self.address = name
        self.incarnation = ""
        self.wire_id = job_id
        self.is_asked = False
        self.is_kept = False
        self.lives_lost = 0
        self.seen = 0
        self.announced = 0
        self.window = 0
        self.reading: Reading | None = None
        self.progress: dict[str, Any] | None = None
        self.response: JobResponse | None = None
        self.error: JobError | None = None

    @property
    def status(self) -> str:
        """How it ended, or "open"."""
        return "open" if self.response is None else self.response.status.value

    @property
    def is_open(self) -> bool:
        """Whether an answer is still to come."""
        return self.response is None

    def send_again(self, wire_id: str) -> None:
        """Forget what a lost worker sent: another begins anew."""
        self.wire_id = wire_id
        self.seen = 0
        self.reading = None


class JobGroup:
    """A job asked of one or more workers; it is over once, and then says how.

    Args:
        waiting: A block around each wait for its end.

    Attributes:
        job_id: One id for all its workers.
        label: What the requester called it, for people.
        cancellable: Whether request_cancel_job_group() may cancel it.
        members: By the name asked for.
        error: Why it is no success; None while it is open.
        events: Where updates and stream messages go; None when nobody reads them.
    """

    def __init__(
        self,
        job_id: str,
        names: Iterable[str],
        params: JobGroupParams,
        *,
        waiting: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.job_id = job_id
        self.params = params
        self.label = params.label
        self.cancellable = params.cancellable
        self.members = {name: JobMember(name, job_id) for name in names}
        self.error: JobError | None = None
        self.events: EventQueue[JobGroupEvent] | None = None
        self._over = asyncio.Event()
        self._waiting = waiting

    @property
    def worker_names(self) -> list[str]:
        """Who was asked, in the order given, each once."""
        return list(self.members)

    @property
    def responses(self) -> dict[str, JobResponse]:
        """The answers so far."""
        return {
            member.name: member.response
            for member in self.members.values()
            if member.response is not None
        }

    @property
    def statuses(self) -> dict[str, str]:
        """How each worker's part ended, or "open"."""
        return {member.name: member.status for member in self.members.values()}

    @property
    def is_done(self) -> bool:
        """Whether it is over: all answered, or ended before."""
        return self._over.is_set()

    @property
    def is_settled(self) -> bool:
        """Whether it is over and no event can still be on its way that anybody wants to see."""
        if not self.is_done:
            return False
        return self.error is not None or self.missing_events == 0

    @property
    def missing_events(self) -> int:
        """How many events were sent before the answers, but not seen yet."""
        return sum(max(0, member.announced - member.seen) for member in self.members.values())

    async def wait(self) -> None:
        """Wait until it is over; its own timeout is the deadline."""
        if self._waiting is None:
            await self._over.wait()
            return
        with self._waiting():
            await self._over.wait()

    def open_members(self) -> list[JobMember]:
        """Those that have not answered."""
        return [member for member in self.members.values() if member.is_open]

    def answer(
        self, member: JobMember, status: JobStatus, data: Mapping[str, Any] | None, events: int
    ) -> None:
        """Take a worker's answer."""
        member.announced = events
        member.response = JobResponse(data, status=status, worker=member.worker)
        if is_worker_stopping(status, data):
            self.lose(member, str(member.response.get("error")))
            return
        if status is JobStatus.CANCELLED:
            reason = member.response.get("reason")
            text = None if reason is None else str(reason)
            member.error = JobCancelledError(self.job_id, member.worker, text)
        elif status is not JobStatus.COMPLETED:
            member.error = JobFailedError(
                self.job_id, member.worker, status.value, dict(member.response)
            )
        self._conclude(member)

    def lose(self, member: JobMember, reason: str) -> None:
        """Take note that a worker's answer will never come."""
        error = JobWorkerLostError(self.job_id, member.worker, reason)
        member.error = error
        data = {"error": error.message, "type": type(error).__name__}
        member.response = JobResponse(data, status=JobStatus.ERROR, worker=member.worker)
        self._conclude(member)

    def expire(self, is_there: Callable[[str], bool] = lambda _: False) -> None:
        """End it because its time is up; `is_there` tells who was not what it waited for."""
        members = self.members.values()
        unasked = [one.name for one in members if not (one.is_asked or is_there(one.name))]
        open_members = self.open_members()
        late = [member.name for member in open_members]
        gone = [one.name for one in open_members if one.is_kept and not is_there(one.name)]
        if unasked:
            phase = f"waiting for {name_some(unasked)} to be ready"
        elif gone:  # its loss ends no job that is kept
            phase = f"waiting for {name_some(gone)}, which was stopped and did not come back"
        else:
            phase = f"waiting for the answer of {name_some(late)}"
        timeout = self.params.timeout or 0.0
        self.fail(JobTimeoutError(self.job_id, name_some(late), timeout, phase))

    def cancel(self, reason: str | None) -> None:
        """End it because the requester gave it up."""
        late = [member.name for member in self.open_members()]
        self.fail(JobCancelledError(self.job_id, name_some(late), reason))

    def fail(self, error: JobError) -> None:
        """End it; does nothing when it is over."""
        if self.is_done:
            return
        self.error = error
        self._finish()

    def finish_if_empty(self) -> None:
        """End a group of nobody at once."""
        if not self.members:
            self._finish()

    def _conclude(self, member: JobMember) -> None:
        if member.error is not None and self.params.cancel_on_error:
            self.fail(member.error)
        elif not any(other.is_open for other in self.members.values()):
            self._finish()

    def _finish(self) -> None:
        if self.error is not None:
            self.error.statuses = self.statuses
        self._over.set()


def is_worker_stopping(status: JobStatus, data: Mapping[str, Any] | None) -> bool:
    """Whether an answer only says that the worker stops: the job is not done, nor refused."""
    return status is not JobStatus.COMPLETED and (data or {}).get("type") == STOPPED


def name_some(names: list[str]) -> str:
    """A few names for a message: "a, b, c and 5 more"."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    rest = len(names) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
