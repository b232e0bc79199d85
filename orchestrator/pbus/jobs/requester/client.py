"""A worker's jobs at others: asking, deadlines, what comes back, lost workers, retries."""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec

from pbus.bus.local.lane_hold import lending
from pbus.concurrency.waiting import first_of
from pbus.errors import JobStateError, PbusError
from pbus.jobs.backpressure import Reading, size_of, window_for
from pbus.jobs.context import WorkerContext
from pbus.jobs.group import JobGroup, JobMember, is_worker_stopping
from pbus.jobs.job_events import EventType, JobGroupEvent
from pbus.jobs.replicas import Replicas
from pbus.jobs.requester.completion import JobCompletion
from pbus.jobs.requester.pending import PendingJob, PendingJobs
from pbus.jobs.requester.stream_credit import Credits
from pbus.messages import (
    BusJobMessage,
    BusJobRequestMessage,
    BusJobRequestUrgentMessage,
    BusJobResponseMessage,
    BusJobUpdateRequestMessage,
    JobStatus,
)
from pbus.registry import WorkerLostData, WorkerReadyData

logger = logging.getLogger(__name__)

LOSS_GRACE_S = 0.1  # an answer sent before the loss is still taken when it comes so late
CATCH_UP_ROUNDS = 50  # or later, while messages wait here, but no later than so many times that


class JobClient:
    """Sees to it that every job its worker asks for ends once, and that the worker learns how.

    Attributes:
        credits: What was read of the jobs' events.
    """

    def __init__(self, links: WorkerContext, replicas: Replicas) -> None:
        self._links = links
        self._replicas = replicas
        self._cases = PendingJobs()
        self.credits = Credits(links, self._cases)
        self._endings = JobCompletion(links, self._cases, replicas)

    @property
    def groups(self) -> dict[str, JobGroup]:
        """The jobs that are not over, by id."""
        return self._cases.groups()

    def open_cases(self) -> list[PendingJob]:
        """What is known of the jobs that are not over."""
        return self._cases.all()

    # Asking

    async def open(self, group: JobGroup) -> None:
        """Ask all workers of the group, each once it is ready.

        Raises:
            JobError: It was over before all had been asked: its time was up, or a worker failed.
            PbusError: The request cannot be sent.
        """
        case = self._cases.add(group)
        self._set_deadline(case)
        try:
            await self._ask_all(case)
        except BaseException:
            await self.abandon(group, "the requester gave up while it was asking")
            self.forget(group)
            raise
        is_all_asked = all(member.is_asked for member in group.members.values())
        if group.error is not None and not is_all_asked:
            self.forget(group)
            raise group.error

    def _set_deadline(self, case: PendingJob) -> None:
        timeout = case.group.params.timeout
        if timeout is not None:
            case.deadline = case.since + timeout
            case.timer = asyncio.get_running_loop().call_at(case.deadline, self._expire, case)

    async def _ask_all(self, case: PendingJob) -> None:
        group = case.group
        group.finish_if_empty()
        if not self._links.joined.is_set():
            await self._until(group, self._links.joined.wait())
        registry = self._links.registry
        absent = [name for name in group.members if registry.get(name) is None]
        if absent:  # nobody begins before all are there
            await self._until_ready(group, absent)
        for member in group.members.values():
            await self._ask(case, member)
        await self._endings.tell(self._endings.conclude(case))

    async def _ask(self, case: PendingJob, member: JobMember) -> None:
        group = case.group
        while (data := self._replicas.choose(member.name)) is None and not group.is_done:
            await self._until_ready(group, [member.name])
        if data is None or group.is_done:
            return
        self._assign(case, member, data)
        remaining = None
        if case.deadline is not None:
            remaining = case.deadline - asyncio.get_running_loop().time()
        is_urgent = group.params.priority == "high"
        kind = BusJobRequestUrgentMessage if is_urgent else BusJobRequestMessage
        await self._links.send(
            kind(
                source=self._links.address,
                target=member.address,
                job_id=member.wire_id,
                job_name=group.params.name,
                payload=group.params.payload,
                deadline=None if remaining is None else time.time() + remaining,
                window=member.window,
            )
        )

    def _assign(self, case: PendingJob, member: JobMember, data: WorkerReadyData) -> None:
        links = self._links
        member.is_kept = links.keeps_jobs and not links.registry.is_child(data.worker_name)
        member.worker = member.address = member.name if member.is_kept else data.worker_name
        member.incarnation = data.incarnation
        member.send_again(case.wire_id(data.worker_name))
        member.window = window_for(len(case.group.members), has_hooks=links.has_event_hooks)
        member.is_asked = True
        self._cases.expect(case, member)
        self._replicas.begin(member.address)

    async def _until_ready(self, group: JobGroup, names: Sequence[str]) -> None:
        """Wait until all of these are ready, or the group is over."""
        wait_ready = self._links.registry.wait_ready
        await self._until(group, asyncio.gather(*(wait_ready(name) for name in names)))

    @staticmethod
    async def _until(group: JobGroup, happens: Awaitable[Any]) -> None:
        """Wait until something happens, or the group is over."""
        with lending():
            await first_of(happens, group.wait())

    # Waiting

    async def wait(self, group: JobGroup) -> None:
        """Wait until the group is over."""
        with lending():
            await group.wait()

    async def next_event(self, group: JobGroup) -> JobGroupEvent | None:
        """The group's next event; None when there will be none."""
        with lending():
            return None if group.events is None else await group.events.get()

    def forget(self, group: JobGroup) -> None:
        """Keep nothing of a group any longer."""
        case = self._cases.get(group.job_id)
        if case is None:
            return
        if group.events is not None:
            group.events.close()
        for member in group.open_members():
            self._endings.release(member)
        self._cases.remove(case)

    # What comes back

    async def take_response(self, message: BusJobResponseMessage) -> None:
        """Take in an answer."""
        await self._take_answer(message, message.status, message.response, message.events)

    async def take_stream_end(
        self, message: BusJobMessage, data: dict[str, Any] | None, events: int
    ) -> None:
        """Take in the end of a stream: an event, and the answer."""
        found = self._cases.find(message.job_id, message.source)
        if found is None or not found[1].is_open:
            logger.debug("%s: %s is about no open job", self._links.name, message)
            return
        case, member = found
        if case.group.events is not None:
            case.group.events.put(_event_of(member, "stream_end", data))
        await self._links.call_hook("on_job_stream_end", _with_own_job_id(case, message))
        await self._take_answer(message, JobStatus.COMPLETED, data, events)

    async def take_event(
        self, message: BusJobMessage, kind: EventType, data: dict[str, Any] | None, position: int
    ) -> None:
        """Take in an update or a piece of a stream; its position as in the message."""
        found = self._cases.find(message.job_id, message.source)
        if found is None:
            logger.debug("%s: %s is about no open job", self._links.name, message)
            return
        case, member = found
        member.seen += 1
        if kind == "update":
            member.progress = data
        self._endings.stop_grace(case)  # a hook may take long: that is no silence
        reading, queue = None, case.group.events
        if position:
            reading = self.credits.reading(
                member, message.source, position, has_queue=queue is not None
            )
            size, reading.arrived = position - reading.arrived, position
        else:
            size = size_of(data)
        if queue is not None:
            queue.put(_event_of(member, kind, data), size, reading, position)
        on_done = None
        if reading is not None:
            began = asyncio.get_running_loop().time()
            on_done = functools.partial(self._note_heard, case, member, reading, size, began)
        hook = "on_job_update" if kind == "update" else f"on_job_{kind}"
        await self._links.call_hook(hook, _with_own_job_id(case, message), on_done=on_done)
        if case.is_concluded:
            self._endings.settle(case)

    def _note_heard(
        self, case: PendingJob, member: JobMember, reading: Reading, size: int, began: float
    ) -> None:
        """Note that the hook of an event has ended; hooks that wait may end in any order."""
        took = asyncio.get_running_loop().time() - began
        is_current = member.reading is reading and self._cases.get(case.group.job_id) is case
        if reading.hear(size, took) and is_current:
            self.credits.tell(reading)

    async def _take_answer(
        self,
        message: BusJobMessage,
        status: JobStatus,
        data: dict[str, Any] | None,
        events: int,
    ) -> None:
        found = self._cases.find(message.job_id, message.source)
        if found is None or not found[1].is_open:
            logger.debug("%s: %s is about no open job", self._links.name, message)
            return
        case, member = found
        if is_worker_stopping(status, data) and self._may_ask_again(case, member):
            return  # its loss is noticed when it has gone, and then another is asked
        self._replicas.end(member.address)
        case.group.answer(member, status, data, events)
        if member.seen >= member.announced:
            self._cases.unexpect(member)
        message = _with_own_job_id(case, message)
        cause = message if isinstance(message, BusJobResponseMessage) else None
        notices = self._endings.conclude(case, cause)  # first: a hook may raise, or take long
        if cause is not None:
            await self._links.call_hook("on_job_response", cause)
        await self._endings.tell(notices)

    # Lost workers

    async def take_loss(self, data: WorkerLostData) -> None:
        """A life of a worker is over: what it had not answered goes to another, or ends."""
        for case, member in self._cases.asked_of(data.worker_name, data.incarnation):
            work = self._bear_loss(case, member, data)
            self._links.spawn(work, f"{self._links.name} job {case.group.job_id} lost its worker")

    async def _bear_loss(self, case: PendingJob, member: JobMember, data: WorkerLostData) -> None:
        await self._until_caught_up()
        if case.group.is_done or not member.is_open or member.incarnation != data.incarnation:
            return
        self._endings.release(member)
        if self._may_ask_again(case, member):
            member.lives_lost += 1
            await self._ask_another(case, member, data.reason)
        else:
            await self._give_up(case, member, data.reason)

    def _may_ask_again(self, case: PendingJob, member: JobMember) -> bool:
        return member.lives_lost < case.group.params.retries

    async def _until_caught_up(self) -> None:
        """Let what was sent before the loss arrive: the news of it overtakes data."""
        for _ in range(CATCH_UP_ROUNDS):
            await asyncio.sleep(LOSS_GRACE_S)
            stats = self._links.bus.stats(self._links.name)
            if stats.queued == stats.held:  # no answer is among those held back
                return

    async def _ask_another(self, case: PendingJob, member: JobMember, reason: str) -> None:
        logger.info(
            "%s: job %s is asked for again: %s was lost (%s)",
            self._links.name, case.group.job_id, member.worker, reason,
        )  # fmt: skip
        try:
            await self._ask(case, member)
        except PbusError as error:
            self._endings.release(member)
            await self._give_up(case, member, f"{reason}, and nobody else could be asked: {error}")

    async def _give_up(self, case: PendingJob, member: JobMember, reason: str) -> None:
        case.group.lose(member, reason)
        await self._endings.tell(self._endings.conclude(case))

    # The end

    def cancel(self, job_id: str, reason: str | None) -> bool:
        """Cancel a job of this worker; whether there was one."""
        case = self._cases.get(job_id)
        if case is None or case.group.is_done:
            return False
        case.group.cancel(reason)
        self._endings.tell_soon(self._endings.conclude(case))
        return True

    async def abandon(self, group: JobGroup, reason: str) -> None:
        """Cancel a group and wait until its workers have been sent their cancels.

        Being cancelled oneself meanwhile does not keep them from being sent.
        """
        self.cancel(group.job_id, reason)
        case = self._cases.get(group.job_id)
        if case is not None and case.cancels is not None:
            await asyncio.shield(case.cancels)

    async def request_update(self, job_id: str, name: str) -> None:
        """Ask a worker of a job how far it is.

        Raises:
            JobStateError: The job is not open, or that worker is not part of it.
        """
        case = self._cases.get(job_id)
        member = None if case is None else case.group.members.get(name)
        if member is None or not (member.is_asked and member.is_open):
            raise JobStateError(job_id, name)
        for worker in self._replicas.working_on(member):
            await self._links.send(
                BusJobUpdateRequestMessage(
                    source=self._links.address, target=worker, job_id=member.wire_id
                )
            )

    async def close(self, reason: str) -> None:
        """Cancel everything that is open."""
        groups = list(self.groups.values())
        await asyncio.gather(*(self.abandon(group, reason) for group in groups))
        for group in groups:
            self.forget(group)

    def _expire(self, case: PendingJob) -> None:
        case.group.expire(lambda name: self._links.registry.get(name) is not None)
        self._endings.tell_soon(self._endings.conclude(case))


def _event_of(member: JobMember, kind: EventType, data: dict[str, Any] | None) -> JobGroupEvent:
    return JobGroupEvent(kind, member.name, data or {}, member.worker)


def _with_own_job_id(case: PendingJob, message: Any) -> Any:
    """The message with the job's own id, where the worker was asked by another."""
    if message.job_id == case.group.job_id:
        return message
    return msgspec.structs.replace(message, job_id=case.group.job_id)
