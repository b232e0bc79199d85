"""What a worker says about the jobs in its hands: updates, streams, and to each one answer."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any

from pbus.bus.local.delivery import current_delivery
from pbus.errors import JobStateError, PbusError, kind_of, sendable, text_of
from pbus.jobs.backpressure import size_of
from pbus.jobs.context import WorkerContext
from pbus.jobs.executor.running import RunningJob
from pbus.messages import (
    BusJobMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    JobStatus,
    Lane,
)

logger = logging.getLogger(__name__)

MAX_REFUSALS = 1_000  # on their way at once; then the requesters' lane waits
_TRACEBACK_CHARS = 8_000  # the end says most


class JobResponder:
    """The jobs in hand, until each is answered.

    Args:
        links: The worker's.
        on_gone: Told of each job that is no longer in hand.
    """

    def __init__(self, links: WorkerContext, on_gone: Callable[[RunningJob], None]) -> None:
        self._links = links
        self._on_gone = on_gone
        self._jobs: dict[str, RunningJob] = {}
        self._sending = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: RunningJob) -> None:
        """Have a job in hand."""
        self._jobs[job.request.job_id] = job
        self._idle.clear()

    def get(self, job_id: str) -> RunningJob | None:
        """The job of that id."""
        return self._jobs.get(job_id)

    def all(self) -> list[RunningJob]:
        """All jobs in hand, oldest first."""
        return list(self._jobs.values())

    def has(self, job: RunningJob) -> bool:
        """Whether this very job is in hand."""
        return self._jobs.get(job.request.job_id) is job

    async def idle(self) -> None:
        """Wait until no job is in hand, and all answers are sent."""
        await self._idle.wait()

    # Said on the way

    async def report(self, job_id: str, kind: type[BusJobMessage], **fields: Any) -> None:
        """Send an update or a piece of a stream, once its requester has read enough.

        Raises:
            JobStateError: The job is not in hand, or no longer.
            PbusError: It cannot be sent.
        """
        job = self._find(job_id)
        outflow, size = job.outflow, 0
        if outflow is not None and kind.lane is Lane.DATA:
            (data,) = fields.values()
            size = size_of(data)
            if not outflow.has_room:
                await outflow.wait()
                self._find(job_id)
            fields["position"] = outflow.claim(size)
        if outflow is None or not outflow.is_unread:
            job.events += 1
            try:
                await self._links.send(kind(**_to(job.request, self._links), **fields))
            except BaseException:
                job.events -= 1
                if outflow is not None:
                    outflow.unsent(size)
                raise
        if "update" in fields:
            job.progress = fields["update"]

    # The answer

    async def respond(
        self, job_id: str, status: JobStatus, data: dict[str, Any] | None, *, is_urgent: bool
    ) -> None:
        """Answer a job; it is no longer in hand.

        Raises:
            JobStateError: It is not in hand.
            PbusError: The answer cannot be sent; the job is still in hand.
        """
        kind = BusJobResponseUrgentMessage if is_urgent else BusJobResponseMessage
        job = self._find(job_id)
        answer = kind(
            **_to(job.request, self._links), status=status, response=data, events=job.events
        )
        await self._send(job, answer)

    async def finish_stream(self, job_id: str, data: dict[str, Any] | None) -> None:
        """Answer a job by the end of its stream; see respond()."""
        job = self._find(job_id)
        answer = BusJobStreamEndMessage(
            **_to(job.request, self._links), data=data, events=job.events
        )
        await self._send(job, answer)

    async def answer_result(self, job: RunningJob, result: Any) -> None:
        """Answer with what a handler returned, unless the job was answered."""
        if result is None:
            result = {}
        elif not isinstance(result, dict):
            result = {"result": result}
        try:
            await self._answer(job, JobStatus.COMPLETED, result)
        except PbusError as error:  # above all: what was returned cannot be encoded
            await self.answer_error(job, error)

    async def answer_error(self, job: RunningJob, error: BaseException) -> None:
        """Answer with what a handler raised; a stored job is tried again first."""
        if not self.has(job):
            return
        if job.delivery is not None and not job.delivery.is_last_attempt:
            self._drop(job, error)
            return
        brief = {"error": text_of(error), "type": kind_of(error)}
        trace = _trace_of(error)
        try:
            await self._answer(job, JobStatus.ERROR, {**brief, "traceback": trace}, error)
        except PbusError:  # perhaps there is no room for so much
            await self.answer_quietly(job, JobStatus.ERROR, brief, error)

    async def answer_quietly(
        self,
        job: RunningJob,
        status: JobStatus,
        data: dict[str, Any],
        cause: BaseException | None = None,
    ) -> None:
        """Answer, or log why that is impossible; either way it is no longer in hand."""
        try:
            await self._answer(job, status, data, cause)
        except PbusError as error:
            logger.warning("%s: no answer to %s: %s", self._links.name, job.request, error)
            self._drop(job, error)

    def give_back(self, job: RunningJob) -> bool:
        """Leave a stored job to the next who takes it; whether it is one."""
        delivery = job.delivery
        if delivery is None:
            return False
        job.delivery = None
        delivery.give_back()
        self._drop(job, None)
        return True

    def _find(self, job_id: str) -> RunningJob:
        job = self._jobs.get(job_id)
        if job is None:
            raise JobStateError(job_id, self._links.name)
        return job

    async def _answer(
        self,
        job: RunningJob,
        status: JobStatus,
        data: dict[str, Any],
        cause: BaseException | None = None,
    ) -> None:
        if not self.has(job):  # answered already
            return
        answer = BusJobResponseMessage(
            **_to(job.request, self._links), status=status, response=data, events=job.events
        )
        await self._send(job, answer, cause)

    async def _send(
        self, job: RunningJob, answer: BusJobMessage, cause: BaseException | None = None
    ) -> None:
        """Send the one answer; only if that fails may there be another."""
        job_id = job.request.job_id
        del self._jobs[job_id]
        self._sending += 1
        try:
            await self._links.send(answer)
        except BaseException:
            self._jobs[job_id] = job
            raise
        finally:
            self._sending -= 1
        self._let_go(job, cause)

    def _drop(self, job: RunningJob, error: BaseException | None) -> None:
        if self._jobs.pop(job.request.job_id, None) is not None:
            self._let_go(job, error)

    def _let_go(self, job: RunningJob, error: BaseException | None) -> None:
        if job.outflow is not None:
            job.outflow.free()
        if job.delivery is not None:
            job.delivery.finish(error)
        if not (self._jobs or self._sending):
            self._idle.set()
        self._on_gone(job)


class Rejections:
    """Answers to jobs that are not taken in.

    Args:
        links: The worker's.
    """

    def __init__(self, links: WorkerContext) -> None:
        self._links = links
        self._sending: set[asyncio.Task[None]] = set()

    async def refuse(self, request: BusJobRequestMessage, status: JobStatus, data: Any) -> None:
        """Answer a job that is not taken in; waits only when there are very many of those.

        Raises:
            PbusError: The answer to a stored job cannot be sent: it comes again.
        """
        answer = BusJobResponseMessage(**_to(request, self._links), status=status, response=data)
        if current_delivery() is not None:
            await self._links.send(answer)
            return
        sending = self._links.spawn(self._send_quietly(answer))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        if len(self._sending) > MAX_REFUSALS:
            await asyncio.wait({sending})

    async def sent(self, within_s: float) -> None:
        """Wait until refusals are sent, at most so long."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=within_s)

    async def _send_quietly(self, answer: BusJobMessage) -> None:
        try:
            await self._links.send(answer)
        except PbusError as error:
            logger.warning("%s could not send %s: %s", self._links.name, answer, error)


def _trace_of(error: BaseException) -> str:
    try:
        return sendable("".join(traceback.format_exception(error)))[-_TRACEBACK_CHARS:]
    except BaseException as failure:  # noqa: BLE001 - it calls methods of the user's
        return f"its traceback cannot be made: {type(failure).__name__}"


def _to(request: BusJobRequestMessage, links: WorkerContext) -> dict[str, Any]:
    return {"source": links.address, "target": request.source, "job_id": request.job_id}
