"""A job as its requester sees it: the workers that were asked, their answers, and the end.

A single job is a group of one.
"""

import asyncio
import contextlib
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
from pbus.jobs.called_hooks import CalledHooks
from pbus.jobs.params import JobGroupParams
from pbus.messages import JobStatus

STOPPED = "stopped"  # the type of an answer that says only that the worker stops
NOT_BEGUN = "stopping"  # the reason in it, of a worker that has not begun the job
_NAMES_SHOWN = 3


class JobResponse(dict[str, Any]):
    """A worker's answer.

    Attributes:
        status: COMPLETED for success; any other for a failure.
        worker: The worker that answered: for a group of replicas, one of them.
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


class JobMember(msgspec.Struct, eq=False):
    """One worker's part of a group.

    Attributes:
        name: The worker or the group of replicas that was asked for.
        wire_id: The job's id in messages to and from the worker.
        worker: The worker that does it, as far as is known.
        address: The worker that may answer, or replicas of which any may.
        target: The target of the request.
        incarnation: The worker's, when it was asked.
        is_asked: Whether the request is sent or being sent.
        is_stored: Whether the broker stores the request: no loss of a worker ends it.
        workers_lost: The number of workers that were lost while they did it.
        seen: The number of events received from the worker.
        announced: The number of events that the worker says it sent before its answer.
        window: Bytes of events that may be unread.
        reading: The record of the events that were read; None before the first one.
        progress: The last update.
        response: The answer, or a substitute when none can come; None while it is open.
        ended_at: When the answer came, by the loop's clock.
        error: The reason for a failure.
    """

    name: str
    wire_id: str
    worker: str = ""
    address: str = ""
    target: str = ""
    incarnation: str = ""
    is_asked: bool = False
    is_stored: bool = False
    workers_lost: int = 0
    seen: int = 0
    announced: int = 0
    window: int = 0
    reading: Reading | None = None
    progress: dict[str, Any] | None = None
    response: JobResponse | None = None
    ended_at: float | None = None
    error: JobError | None = None

    @property
    def status(self) -> str:
        """The status of the answer, or "open"."""
        return "open" if self.response is None else self.response.status.value

    @property
    def is_open(self) -> bool:
        """Whether the answer is still to come."""
        return self.response is None

    def restart(self, wire_id: str) -> None:
        """Prepare for a request to another worker: events of the lost one do not count."""
        self.wire_id = wire_id
        self.seen = 0
        self.reading = None


class JobGroup:
    """A job at one or more workers. It ends once.

    Args:
        waiting: A context manager around each wait for the end.

    Attributes:
        job_id: The id that all parts share.
        label: The requester's, for people.
        cancellable: Whether request_cancel_job_group() may cancel it.
        members: The parts, by the name asked for.
        error: The reason for a failure; None while it is open.
        hooks: Those of the requester that are called for it; None before the first.
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
        self.members = {name: JobMember(name, job_id, name, name) for name in names}
        self.error: JobError | None = None
        self._over = asyncio.Event()
        if not self.members:
            self._over.set()
        self.hooks: CalledHooks | None = None
        self._waiting = waiting

    @property
    def worker_names(self) -> list[str]:
        """The names asked for, in the order given, each once."""
        return list(self.members)

    @property
    def responses(self) -> dict[str, JobResponse]:
        """The answers so far, by the name asked for."""
        return {
            member.name: member.response
            for member in self.members.values()
            if member.response is not None
        }

    @property
    def statuses(self) -> dict[str, str]:
        """The status of each part, or "open"."""
        return {member.name: member.status for member in self.members.values()}

    @property
    def is_done(self) -> bool:
        """Whether it has ended: by all answers, or before."""
        return self._over.is_set()

    @property
    def is_settled(self) -> bool:
        """Whether it has ended and no event of a successful job is on its way."""
        return self.is_done and (self.error is not None or self.missing_events == 0)

    @property
    def missing_events(self) -> int:
        """The number of events that were sent before the answers, and have not arrived."""
        return sum(max(0, member.announced - member.seen) for member in self.members.values())

    async def wait(self) -> None:
        """Wait as until_told(), and raise its error.

        Raises:
            JobError: The first failure; none with cancel_on_error=False.
        """
        with contextlib.nullcontext() if self._waiting is None else self._waiting():
            await self.until_told()
        if self.error is not None:
            raise self.error

    async def until_told(self) -> None:
        """Wait until it has ended and the hooks called for it have; its timeout limits that."""
        await self._over.wait()
        if self.hooks is not None:
            await self.hooks.until_ended()

    def open_members(self) -> list[JobMember]:
        """The parts without an answer."""
        return [member for member in self.members.values() if member.is_open]

    def answer(
        self, member: JobMember, status: JobStatus, data: Mapping[str, Any] | None, events: int
    ) -> None:
        """Take in a worker's answer.

        Args:
            member: The worker's part.
            status: How it ended.
            data: The response.
            events: The number of events that the worker sent before.
        """
        member.announced = events
        member.response = JobResponse(data, status=status, worker=member.worker)
        if is_worker_stopping(status, data):
            self.mark_worker_lost(member, str(member.response.get("error")))
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

    def mark_worker_lost(self, member: JobMember, reason: str) -> None:
        """End a part whose answer will never come."""
        error = JobWorkerLostError(self.job_id, member.worker, reason)
        member.error = error
        data = {"error": error.message, "type": type(error).__name__}
        member.response = JobResponse(data, status=JobStatus.ERROR, worker=member.worker)
        self._conclude(member)

    def expire(self, is_there: Callable[[str], bool] = lambda _: False) -> None:
        """End it by its timeout.

        Args:
            is_there: Tells whether a worker of a name is ready; the error names absent ones.
        """
        late = name_some([member.name for member in self.open_members()])
        timeout = self.params.timeout or 0.0
        self.fail(JobTimeoutError(self.job_id, late, timeout, self._phase(late, is_there)))

    def _phase(self, late: str, is_there: Callable[[str], bool]) -> str:
        absent = [one for one in self.members.values() if not is_there(one.name)]
        unasked = [one.name for one in absent if not one.is_asked]
        if unasked:
            return f"waiting for {name_some(unasked)} to be ready"
        gone = [one.name for one in absent if one.is_stored and one.is_open]
        if gone:  # the loss of a worker ends no stored job
            return f"waiting for {name_some(gone)}, which was stopped and did not come back"
        return f"waiting for the answer of {late}"

    def cancel(self, reason: str | None) -> None:
        """End it by a cancellation of the requester's."""
        late = [member.name for member in self.open_members()]
        self.fail(JobCancelledError(self.job_id, name_some(late), reason))

    def fail(self, error: JobError) -> None:
        """End it by an error. Does nothing after its end."""
        if self.is_done:
            return
        self.error = error
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
    """Whether an answer says only that the worker stops: the job is neither done nor rejected."""
    return status is not JobStatus.COMPLETED and (data or {}).get("type") == STOPPED


def name_some(names: list[str]) -> str:
    """A few names for a message: "a, b, c and 5 more"."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    rest = len(names) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
