"""Updates and stream messages of a worker's jobs, and credit for the workers that send them."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from pbus.errors import PbusError
from pbus.jobs.backpressure import Reading, size_of
from pbus.jobs.called_hooks import CalledHooks
from pbus.jobs.context import WorkerContext
from pbus.jobs.group import JobMember
from pbus.jobs.job_events import EventType, JobGroupEvent
from pbus.jobs.requester.pending import JobCompletion, PendingJob, PendingJobs
from pbus.messages import (
    BusJobCreditMessage,
    BusJobCreditRequestMessage,
    BusJobMessage,
    BusJobStreamDataMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
)

logger = logging.getLogger(__name__)

NO_READER = -1  # the position of a job that is not open here


class JobEvents:
    """Passes the events of open jobs to queues and hooks, and tells workers what was read.

    Args:
        context: The worker's.
        pending: Its open jobs.
        completion: Ends them.
    """

    def __init__(
        self, context: WorkerContext, pending: PendingJobs, completion: JobCompletion
    ) -> None:
        self._context = context
        self._pending = pending
        self._completion = completion

    async def on_update(self, message: BusJobUpdateMessage) -> None:
        """Take in an update."""
        await self._on_event(message, "update", message.update, message.position)

    async def on_stream_start(self, message: BusJobStreamStartMessage) -> None:
        """Take in the first message of a stream."""
        await self._on_event(message, "stream_start", message.data, message.position)

    async def on_stream_data(self, message: BusJobStreamDataMessage) -> None:
        """Take in a message of a stream."""
        await self._on_event(message, "stream_data", message.data, message.position)

    async def _on_event(
        self, message: BusJobMessage, kind: EventType, data: dict[str, Any] | None, position: int
    ) -> None:
        found = self._pending.find(message.job_id, message.source)
        if found is None:
            logger.debug("%s: %s is about no open job", self._context.name, message)
            return
        job, member = found
        member.seen += 1
        if kind == "update":
            member.progress = data
        self._completion.stop_grace(job)  # a slow hook is no silence
        reading = None
        if position:
            has_queue = job.events is not None
            reading = self.reading(member, message.source, position, has_queue=has_queue)
            size, reading.arrived = position - reading.arrived, position
        else:
            size = size_of(data)
        if job.events is not None:
            job.events.put(event_of(member, kind, data), size, reading, position)
        on_done = None
        if reading is not None:
            began = asyncio.get_running_loop().time()
            on_done = functools.partial(self._on_heard, job, member, reading, size, began)
        hook = "on_job_update" if kind == "update" else f"on_job_{kind}"
        await self._call_hook(job, hook, with_own_job_id(job, message), on_done)
        if job.is_concluded:
            self._completion.settle(job)

    async def _call_hook(
        self, job: PendingJob, hook: str, message: BusJobMessage, on_done: Callable[[], None] | None
    ) -> None:
        if not self._context.has_event_hooks:
            await self._context.call_hook(hook, message, on_done=on_done)
            return
        job.group.hooks = job.group.hooks or CalledHooks()
        with job.group.hooks.calling() as on_ended:

            def note_end() -> None:
                on_ended()
                if on_done is not None:
                    on_done()

            await self._context.call_hook(hook, message, on_done=note_end)

    def _on_heard(
        self, job: PendingJob, member: JobMember, reading: Reading, size: int, began: float
    ) -> None:
        """Note that the hook of an event has ended; hooks that wait may end in any order."""
        took = asyncio.get_running_loop().time() - began
        is_current = member.reading is reading and self._pending.get(job.group.job_id) is job
        if reading.hear(size, took) and is_current:
            self.send_credit(reading)

    def reading(self, member: JobMember, source: str, position: int, *, has_queue: bool) -> Reading:
        """The record of what was read of a worker's events.

        Args:
            member: The worker's part of the job.
            source: The worker's address.
            position: Of the event that arrived.
            has_queue: Whether events are queued for `async for`.
        """
        reading = member.reading
        if reading is None or position <= reading.arrived:  # another incarnation starts from 0
            reading = member.reading = Reading(
                source, member.wire_id, member.window, has_queue=has_queue
            )
        return reading

    def send_credit(self, reading: Reading) -> None:
        """Send the position that was read to a worker, in a task of its own."""
        self._context.spawn(self._send(reading.source, reading.wire_id, reading.granted))

    async def on_credit_request(self, message: BusJobCreditRequestMessage) -> None:
        """Send the position that was read to a worker that waits."""
        found = self._pending.find(message.job_id, message.source)
        position, is_idle = NO_READER, False
        if found is not None:
            reading = found[1].reading
            stats = self._context.bus.stats(self._context.name)
            position = 0 if reading is None else reading.granted
            is_read = reading is None or reading.read == reading.arrived
            is_idle = is_read and stats.queued == stats.held
        await self._send(message.source, message.job_id, position, is_idle=is_idle)

    async def _send(
        self, worker: str, wire_id: str, position: int, *, is_idle: bool = False
    ) -> None:
        found = self._pending.find(wire_id, worker)
        with contextlib.suppress(PbusError):  # the worker asks again
            await self._context.send(
                BusJobCreditMessage(
                    source=self._context.address,
                    target=worker,
                    job_id=wire_id,
                    position=position,
                    is_idle=is_idle,
                    traceparent=None if found is None else found[0].traceparent,
                )
            )


def event_of(member: JobMember, kind: EventType, data: dict[str, Any] | None) -> JobGroupEvent:
    """An event as readers of the group get it."""
    return JobGroupEvent(kind, member.name, data or {}, member.worker)


def with_own_job_id(job: PendingJob, message: Any) -> Any:
    """A message with the job's own id, in place of the wire id of a repeated request."""
    if message.job_id == job.group.job_id:
        return message
    return msgspec.structs.replace(message, job_id=job.group.job_id)
