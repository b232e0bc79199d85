"""Requests of a worker to others: asking, deadlines, answers, cancels."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from pbus.bus.local.lane_hold import release_lane
from pbus.concurrency.waiting import first_of
from pbus.errors import JobStateError
from pbus.jobs.backpressure import Reading, window_for
from pbus.jobs.context import WorkerContext
from pbus.jobs.group import JobGroup, JobMember, is_worker_stopping
from pbus.jobs.handles import EventQueue
from pbus.jobs.job_events import JobGroupEvent
from pbus.jobs.requester.events import JobEvents, event_of, with_own_job_id
from pbus.jobs.requester.lost_workers import LostWorkers
from pbus.jobs.requester.pending import JobCompletion, PendingJob, PendingJobs, workers_of
from pbus.messages import (
    BusJobMessage,
    BusJobRequestMessage,
    BusJobRequestUrgentMessage,
    BusJobResponseMessage,
    BusJobStreamEndMessage,
    BusJobUpdateRequestMessage,
    JobStatus,
)
from pbus.registry import Replicas, WorkerReadyData


class JobClient:
    """Requests jobs and ends each of them once.

    Args:
        context: The requesting worker's.
        replicas: Chooses replicas for the worker.

    Attributes:
        events: Takes in updates and stream messages.
        lost_workers: Takes in the loss of workers.
    """

    def __init__(self, context: WorkerContext, replicas: Replicas) -> None:
        self._context = context
        self._replicas = replicas
        self._pending = PendingJobs(context, replicas)
        self._completion = JobCompletion(context, self._pending, replicas)
        self.events = JobEvents(context, self._pending, self._completion)
        self.lost_workers = LostWorkers(context, self._pending, self._completion, self._request)

    @property
    def groups(self) -> dict[str, JobGroup]:
        """The open jobs by id."""
        return {job.group.job_id: job.group for job in self._pending.all()}

    def pending_jobs(self) -> list[PendingJob]:
        """The state of the open jobs, oldest first."""
        return self._pending.all()

    # Requests

    async def open(self, group: JobGroup, events: EventQueue[JobGroupEvent] | None = None) -> None:
        """Send the requests of a group, each once its worker is ready.

        Args:
            group: A new group.
            events: The queue for its updates and stream messages; None when only hooks read them.

        Raises:
            JobError: The group ended before all requests were sent: by its timeout, or since a
                worker failed.
            PbusError: A request cannot be sent.
        """
        job = self._pending.add(group, events)
        self._set_deadline(job)
        try:
            await self._request_all(job)
        except BaseException:
            await self.abandon(group.job_id, "the requester gave up while it was asking")
            self.forget(group)
            raise
        if group.error is not None and not all(one.is_asked for one in group.members.values()):
            self.forget(group)
            raise group.error

    def _set_deadline(self, job: PendingJob) -> None:
        if (timeout := job.group.params.timeout) is not None:
            job.deadline = job.since + timeout
            job.timer = asyncio.get_running_loop().call_at(job.deadline, self._expire, job)

    async def _request_all(self, job: PendingJob) -> None:
        group = job.group
        if not self._context.joined.is_set:
            await self._until(group, self._context.joined.wait())
        registry = self._context.registry
        await registry.follow()
        if absent := [name for name in group.members if registry.get(name) is None]:
            await self._until_ready(group, absent)  # all are ready before the first begins
        for member in group.members.values():
            await self._request(job, member)
        if group.is_done:
            await self._completion.call_hooks(group, self._completion.conclude(job))

    async def _request(self, job: PendingJob, member: JobMember) -> None:
        group, registry, key = job.group, self._context.registry, job.group.params.key
        choose = self._replicas.choose if key is None else registry.get
        while (data := choose(member.name)) is None and not group.is_done:
            await self._until_ready(group, [member.name])
        if data is None or group.is_done:
            return
        if key is None:
            self._assign(job, member, data)
            await self._context.send(_request_of(job, member, self._context.address))
            return

        async def post(worker: str) -> bool:
            if member.is_asked:  # a queue that was removed meanwhile
                self._pending.release(member)
            self._assign(job, member, registry.get(worker) or data, worker)
            return await self._context.send(_request_of(job, member, self._context.address))

        await registry.owners.send(member.name, key, post)

    def _assign(
        self, job: PendingJob, member: JobMember, data: WorkerReadyData, owner: str | None = None
    ) -> None:
        """Assign a worker to a member; the owner of its key, which need not be there, if it has one."""
        context, worker = self._context, owner or data.worker_name
        member.is_stored = context.stores_jobs and not context.registry.is_child(worker)
        member.worker = member.address = member.name if member.is_stored else worker
        member.target = owner or member.address
        member.incarnation = data.incarnation
        member.restart(job.new_wire_id(worker))
        member.window = window_for(len(job.group.members), has_hooks=context.has_event_hooks)
        member.is_asked = True
        self._pending.expect(job, member)

    async def _until_ready(self, group: JobGroup, names: Sequence[str]) -> None:
        """Wait until these workers are ready, or the group is over."""
        wait_ready = self._context.registry.wait_ready
        await self._until(group, asyncio.gather(*(wait_ready(name) for name in names)))

    @staticmethod
    async def _until(group: JobGroup, event: Awaitable[Any]) -> None:
        """Wait for an event, or until the group is over."""
        with release_lane():
            await first_of(event, group.until_told())

    # Answers

    def on_response(self, message: BusJobResponseMessage) -> Awaitable[None]:
        """Take in an answer."""
        return self._on_answer(message, message.status, message.response, message.events)

    async def on_stream_end(self, message: BusJobStreamEndMessage) -> None:
        """Take in the end of a stream, which is an event and the answer."""
        found = self._pending.find_open(message)
        if found is None:
            return
        job, member = found
        if job.events is not None:
            job.events.put(event_of(member, "stream_end", message.data))
        calls = [("on_job_stream_end", with_own_job_id(job, message))]
        await self._completion.call_hooks(job.group, calls)
        await self._on_answer(message, JobStatus.COMPLETED, message.data, message.events)

    async def _on_answer(
        self,
        message: BusJobMessage,
        status: JobStatus,
        data: dict[str, Any] | None,
        events: int,
    ) -> None:
        found = self._pending.find_open(message)
        if found is None:
            return
        job, member = found
        if is_worker_stopping(status, data) and self.lost_workers.is_asked_again(job, member, data):
            return
        self._replicas.job_ended(member.address)
        member.ended_at = asyncio.get_running_loop().time()
        job.group.answer(member, status, data, events)
        if member.seen >= member.announced:
            self._pending.forget(member)
        if message.job_id != job.group.job_id:
            message = with_own_job_id(job, message)
        cause = message if isinstance(message, BusJobResponseMessage) else None
        calls = self._completion.conclude(job, cause)  # first: a hook may raise, or take long
        if self._context.hears_ends():
            heard = [] if cause is None else [("on_job_response", cause)]
            await self._completion.call_hooks(job.group, [*heard, *calls])

    # The end

    def forget(self, group: JobGroup) -> None:
        """Drop all state of a group. Idempotent."""
        job = self._pending.get(group.job_id)
        if job is None:
            return
        if job.events is not None:
            job.events.close()
        for member in group.open_members():
            self._pending.release(member)
        self._pending.remove(job)

    def cancel(self, job_id: str, reason: str | None) -> bool:
        """Cancel an open job.

        Args:
            job_id: The job's.
            reason: For the workers.

        Returns:
            Whether there is an open job of that id.
        """
        job = self._pending.get(job_id)
        if job is None or job.group.is_done:
            return False
        job.group.cancel(reason)
        self._completion.call_hooks_soon(job.group, self._completion.conclude(job))
        return True

    async def abandon(self, job_id: str, reason: str | None) -> bool:
        """Cancel an open job and wait until the cancels are sent; arguments and result as cancel().

        They are sent even if the caller is cancelled meanwhile.
        """
        is_cancelled = self.cancel(job_id, reason)
        job = self._pending.get(job_id)
        if job is not None and job.cancels is not None:
            await asyncio.shield(job.cancels)
        return is_cancelled

    async def request_update(self, job_id: str, name: str) -> None:
        """Ask a worker of a job for its progress; the answer is an update.

        Args:
            job_id: The job's.
            name: The worker's, as it was asked for.

        Raises:
            JobStateError: The job is not open, or that worker is not part of it.
        """
        job = self._pending.get(job_id)
        member = None if job is None else job.group.members.get(name)
        if job is None or member is None or not (member.is_asked and member.is_open):
            raise JobStateError(job_id, name)
        for worker in workers_of(member, self._replicas):
            await self._context.send(
                BusJobUpdateRequestMessage(
                    source=self._context.address,
                    target=worker,
                    job_id=member.wire_id,
                    traceparent=job.traceparent,
                )
            )

    def send_credit(self, reading: Reading) -> None:
        """Tell a worker, in a task of its own, which of its events were read."""
        self.events.send_credit(reading)

    async def until_told(self) -> None:
        """Wait until the hooks for jobs that are over have run."""
        await self._completion.until_told()

    async def close(self, reason: str) -> None:
        """Cancel all open jobs.

        Args:
            reason: For the workers.
        """
        groups = list(self.groups.values())
        await asyncio.gather(*(self.abandon(group.job_id, reason) for group in groups))
        for group in groups:
            self.forget(group)

    def _expire(self, job: PendingJob) -> None:
        job.group.expire(lambda name: self._context.registry.get(name) is not None)
        self._completion.call_hooks_soon(job.group, self._completion.conclude(job))


def _request_of(job: PendingJob, member: JobMember, source: str) -> BusJobRequestMessage:
    """The request for a member's part of a job."""
    params = job.group.params
    deadline = None
    if job.deadline is not None:
        deadline = time.time() + job.deadline - asyncio.get_running_loop().time()
    kind = BusJobRequestUrgentMessage if params.priority == "high" else BusJobRequestMessage
    return kind(
        source=source,
        target=member.target,
        key=params.key,
        traceparent=job.traceparent,
        job_id=member.wire_id,
        job_name=params.name,
        payload=params.payload,
        deadline=deadline,
        window=member.window,
    )
