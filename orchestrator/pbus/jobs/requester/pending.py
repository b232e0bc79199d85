"""The open jobs of a requester: found by message, and closed once each."""

import asyncio
import logging
import weakref
from collections.abc import Sequence
from typing import Any

import msgspec

from pbus.bus.local.causes import new_traceparent
from pbus.errors import JobCancelledError, JobError, JobTimeoutError, JobWorkerLostError
from pbus.jobs.called_hooks import CalledHooks
from pbus.jobs.context import WorkerContext
from pbus.jobs.group import JobGroup, JobGroupResponse, JobMember
from pbus.jobs.handles import EventQueue
from pbus.jobs.job_events import JobGroupEvent
from pbus.messages import BusJobCancelMessage, BusJobResponseMessage, JobStatus
from pbus.names import group_of
from pbus.registry import Replicas

logger = logging.getLogger(__name__)

EVENT_GRACE_S = 5.0  # without news for so long, events that an urgent answer overtook are lost

Key = tuple[str, str]  # job id on the wire, address of the worker
HookCall = tuple[str, Any]  # the name of a hook, and its argument


class PendingJob(msgspec.Struct, eq=False):
    """One open group.

    Attributes:
        since: When it was requested, by the loop's clock.
        events: The queue of its updates and stream messages; None when only hooks read them.
        deadline: When its timeout ends, by the loop's clock; None for never.
        timer: Ends it at the deadline.
        grace: Ends the wait for events that an urgent answer overtook.
        cancels: Sends cancels to its workers.
        is_concluded: Whether its end has been dealt with.
        traceparent: Of all its messages.
        asked: All wire ids that were used, by worker.
    """

    group: JobGroup
    since: float
    events: EventQueue[JobGroupEvent] | None = None
    deadline: float | None = None
    timer: asyncio.TimerHandle | None = None
    grace: asyncio.TimerHandle | None = None
    cancels: asyncio.Task[None] | None = None
    is_concluded: bool = False
    traceparent: str = msgspec.field(default_factory=new_traceparent)
    asked: set[Key] = msgspec.field(default_factory=set)

    def new_wire_id(self, worker: str) -> str:
        """An id for a request to this worker: the job's own, but never the same twice.

        Otherwise a late answer to an earlier request would count as the answer to this one.
        """
        wire_id, attempt = self.group.job_id, 1
        while (wire_id, worker) in self.asked:
            attempt += 1
            wire_id = f"{self.group.job_id}~{attempt}"
        self.asked.add((wire_id, worker))
        return wire_id

    def stop_timers(self) -> None:
        """Cancel both timers. Idempotent."""
        for handle in (self.timer, self.grace):
            if handle is not None:
                handle.cancel()
        self.timer = self.grace = None


class PendingJobs:
    """All open jobs of one worker, by id and by the requests that are unanswered.

    Args:
        context: The worker's.
        replicas: Counts the open jobs of each replica.
    """

    def __init__(self, context: WorkerContext, replicas: Replicas) -> None:
        self._context = context
        self._replicas = replicas
        self._by_id: dict[str, PendingJob] = {}
        self._by_key: dict[Key, tuple[PendingJob, JobMember]] = {}

    def add(self, group: JobGroup, events: EventQueue[JobGroupEvent] | None) -> PendingJob:
        """Open a job.

        Args:
            group: The job.
            events: The queue for its events, if there is a reader.
        """
        job = PendingJob(group, asyncio.get_running_loop().time(), events)
        self._by_id[group.job_id] = job
        return job

    def get(self, job_id: str) -> PendingJob | None:
        """The open job of that id; None when there is none."""
        return self._by_id.get(job_id)

    def all(self) -> list[PendingJob]:
        """All open jobs, oldest first."""
        return list(self._by_id.values())

    def expect(self, job: PendingJob, member: JobMember) -> None:
        """Route messages of a member's worker about this job to the member."""
        self._by_key[member.wire_id, member.address] = (job, member)
        self._replicas.job_started(member.address)

    def find(self, job_id: str, source: str) -> tuple[PendingJob, JobMember] | None:
        """The member that a message is about.

        Args:
            job_id: From the message.
            source: Its sender.

        Returns:
            None when the job is over or its sender was never asked.
        """
        if (found := self._by_key.get((job_id, source))) is not None:
            return found
        name = source.partition("@")[0]  # a child's is name@runner
        found = self._by_key.get((job_id, name))
        if found is None and (group := group_of(name)) is not None:
            found = self._by_key.get((job_id, group))
            if found is not None:
                found[1].worker = name  # which of the replicas it is
        return found

    def find_open(self, message: Any) -> tuple[PendingJob, JobMember] | None:
        """The member that an answer is about; None, and a debug log, when none is unanswered."""
        found = self.find(message.job_id, message.source)
        if found is None or found[1].response is not None:
            logger.debug("%s: %s is about no open job", self._context.name, message)
            return None
        return found

    def unanswered_by(self, worker: str, incarnation: str) -> list[tuple[PendingJob, JobMember]]:
        """The members that wait for the answer of one incarnation of a worker."""
        return [
            (job, member)
            for job, member in self._by_key.values()
            if member.is_open
            and not member.is_stored
            and (member.worker, member.incarnation) == (worker, incarnation)
        ]

    def forget(self, member: JobMember) -> bool:
        """Stop routing messages of a member's worker.

        Returns:
            Whether messages were routed.
        """
        return self._by_key.pop((member.wire_id, member.address), None) is not None

    def release(self, member: JobMember) -> bool:
        """Expect no answer from a member's worker any more.

        Returns:
            Whether one was expected.
        """
        if not self.forget(member):
            return False
        self._replicas.job_ended(member.address)
        return True

    def remove(self, job: PendingJob) -> None:
        """Drop all state of a job. Idempotent."""
        job.stop_timers()
        self._by_id.pop(job.group.job_id, None)
        for member in job.group.members.values():
            self.forget(member)


class JobCompletion:
    """Ends jobs: cancels workers, waits for late events, reports to hooks.

    Args:
        context: The worker's.
        pending: Its open jobs.
        replicas: Knows the replicas that a cancel concerns.
    """

    def __init__(self, context: WorkerContext, pending: PendingJobs, replicas: Replicas) -> None:
        self._context = context
        self._pending = pending
        self._replicas = replicas
        self._told: weakref.WeakSet[JobGroup] = weakref.WeakSet()  # hooks may still run for these

    def conclude(
        self, job: PendingJob, cause: BusJobResponseMessage | None = None
    ) -> list[HookCall]:
        """Deal with the end of a group that is over, once: cancel workers, stop timers.

        Args:
            job: An open job.
            cause: The answer that ended it.

        Returns:
            The hooks to call; empty when the group is not over.
        """
        group = job.group
        if job.is_concluded or not group.is_done:
            return []
        job.is_concluded = True
        self._count(job)
        if job.timer is not None:
            job.timer.cancel()
        late = [member for member in group.open_members() if self._pending.release(member)]
        if late:
            work, name = (
                self._send_cancels(job, late),
                f"{self._context.name} job cancels",
            )
            job.cancels = self._context.spawn(work, name)
        self.settle(job)
        if group.error is None:
            return [("on_job_completed", JobGroupResponse(group.job_id, group.responses))]
        return [("on_job_error", cause or self._error_message(group.error))]

    def _count(self, job: PendingJob) -> None:
        """Count the outcome of each part that was asked, and the time to it."""
        edges, group = self._context.bus.edges, job.group
        if edges is None:
            return
        for member in group.members.values():
            edge = edges.job_edge(self._context.address, member.worker, group.params.name or "")
            ended_at = member.ended_at
            if ended_at is None:
                ended_at = asyncio.get_running_loop().time()
            edge.note(_outcome_of(member, group), ended_at - job.since)

    def settle(self, job: PendingJob) -> None:
        """Close a job that is over, unless events are still on their way."""
        if job.group.is_settled:
            self._close(job)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + EVENT_GRACE_S
        if job.deadline is not None:
            due = min(due, job.deadline)
        self.stop_grace(job)
        job.grace = loop.call_at(due, self._end_grace, job)

    def stop_grace(self, job: PendingJob) -> None:
        """Wait for late events without a limit, until settle() is called again."""
        if job.grace is not None:
            job.grace.cancel()
            job.grace = None

    async def call_hooks(self, group: JobGroup, calls: Sequence[HookCall]) -> None:
        """Call hooks, one after another; the wait for the end of the group includes them."""
        if not (calls and self._context.hears_ends()):
            return
        group.hooks = group.hooks or CalledHooks()
        self._told.add(group)
        with group.hooks.calling(len(calls)) as on_done:
            for hook, argument in calls:
                await self._context.call_hook(hook, argument, on_done=on_done)

    def call_hooks_soon(self, group: JobGroup, calls: Sequence[HookCall]) -> None:
        """Call hooks in a task of their own."""
        if calls:
            work = self.call_hooks(group, calls)
            group.hooks = group.hooks or CalledHooks()
            group.hooks.include(self._context.spawn(work, f"{self._context.name} job hooks"))

    async def until_told(self) -> None:
        """Wait until no hook runs for a job that is over."""
        await asyncio.gather(*(group.until_told() for group in self._told if group.is_done))

    def _end_grace(self, job: PendingJob) -> None:
        is_late = job.deadline is not None and asyncio.get_running_loop().time() >= job.deadline
        stats = self._context.bus.stats(self._context.name)
        if not is_late and stats.queued > stats.held:
            self.settle(job)  # they may be queued behind a slow handler
            return
        logger.warning(
            "%s: %d events of job %s were lost on the way",
            self._context.name, job.group.missing_events, job.group.job_id,
        )  # fmt: skip
        self._close(job)

    def _close(self, job: PendingJob) -> None:
        if job.events is not None:
            job.events.close()
        if job.cancels is None or job.cancels.done():
            self._pending.remove(job)
        else:  # kept until then: abandon() waits for it
            job.stop_timers()
            job.cancels.add_done_callback(lambda _: self._pending.remove(job))

    async def _send_cancels(self, job: PendingJob, members: Sequence[JobMember]) -> None:
        reason = _reason(job.group)
        cancels = [
            BusJobCancelMessage(
                source=self._context.address,
                target=worker,
                job_id=member.wire_id,
                reason=reason,
                traceparent=job.traceparent,
            )
            for member in members
            for worker in workers_of(member, self._replicas)
        ]
        results = await asyncio.gather(*map(self._context.send, cancels), return_exceptions=True)
        for cancel, result in zip(cancels, results, strict=True):
            if isinstance(result, BaseException):
                logger.warning("%s could not send %s: %s", self._context.name, cancel, result)

    def _error_message(self, error: JobError) -> BusJobResponseMessage:
        """A message in place of an answer that never came, so that one hook learns of every end."""
        was_cancelled = isinstance(error, JobCancelledError)
        return BusJobResponseMessage(
            source=error.worker,
            target=self._context.address,
            job_id=error.job_id,
            status=JobStatus.CANCELLED if was_cancelled else JobStatus.ERROR,
            response={"error": error.message, "type": type(error).__name__},
        )


def workers_of(member: JobMember, replicas: Replicas) -> list[str]:
    """The workers that may do a member's part: of what is stored for replicas, any of them."""
    if member.worker != member.name or not member.is_stored:
        return [member.worker]
    found = replicas.all_of(member.name) or [member.name]
    if member.target == member.name:
        return found
    return list(dict.fromkeys((member.target, *found)))  # the owner of its key may be away


def _outcome_of(member: JobMember, group: JobGroup) -> str:
    if member.error is not None and isinstance(member.error, JobWorkerLostError):
        return "lost"
    if member.response is not None:
        return member.response.status.value
    return "timeout" if isinstance(group.error, JobTimeoutError) else "cancelled"


def _reason(group: JobGroup) -> str | None:
    """The reason that cancels give."""
    error = group.error
    if isinstance(error, JobTimeoutError):
        return "timeout"
    if isinstance(error, JobCancelledError):
        return error.reason
    return None if error is None else error.message
