"""Messages of a worker about its accepted jobs: updates, stream messages, and one answer each."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any

from pbus.errors import JobStateError, PbusError, kind_of, sendable, text_of
from pbus.jobs.backpressure import size_of
from pbus.jobs.context import WorkerContext
from pbus.jobs.executor.running import RunningJob
from pbus.jobs.executor.send_window import SendWindow
from pbus.messages import (
    BusJobMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    JobStatus,
    Lane,
)
from pbus.stats.edge_table import is_client
from pbus.trace_context import traceparent_after

logger = logging.getLogger(__name__)

_TRACEBACK_CHARS = 8_000  # the end says most


class JobResponder:
    """The accepted jobs of a worker, until each is answered.

    Args:
        context: The worker's.
        on_removed: Called with each job that is answered or requeued.

    Attributes:
        finished: The number of these jobs.
    """

    def __init__(self, context: WorkerContext, on_removed: Callable[[RunningJob], None]) -> None:
        self._context = context
        self._on_removed = on_removed
        self._jobs: dict[str, RunningJob] = {}
        self._sending = 0
        self.finished = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: RunningJob) -> None:
        """Accept a job."""
        self._jobs[job.request.job_id] = job
        self._idle.clear()

    def get(self, job_id: str) -> RunningJob | None:
        """The accepted job of that id; None when there is none."""
        return self._jobs.get(job_id)

    def all(self) -> list[RunningJob]:
        """All accepted jobs, oldest first."""
        return list(self._jobs.values())

    def has(self, job: RunningJob) -> bool:
        """Whether this job (not another one of the same id) is unanswered."""
        return self._jobs.get(job.request.job_id) is job

    async def wait_idle(self) -> None:
        """Wait until all jobs are answered and all answers are sent."""
        await self._idle.wait()

    # Updates and stream messages

    def send_window(self, job: RunningJob) -> SendWindow | None:
        """The window of a job's events; None when the requester granted none."""
        if job.send_window is None and job.request.window:
            job.send_window = SendWindow(job.request, self._context)
        return job.send_window

    async def report(self, job_id: str, kind: type[BusJobMessage], **fields: Any) -> None:
        """Send an update or a stream message, once the window has room.

        Args:
            job_id: Of an accepted job.
            kind: The class of the message.
            **fields: The message's one field of data.

        Raises:
            JobStateError: The job is not open here, or no longer.
            PbusError: The message cannot be sent.
        """
        job = self._find(job_id)
        window, size = self.send_window(job), 0
        if window is not None and kind.lane is Lane.DATA:
            (data,) = fields.values()
            size = size_of(data)
            if not window.has_room:
                await window.wait_for_room()
                self._find(job_id)
            fields["position"] = window.claim(size)
        if window is None or not window.has_no_reader:
            message = kind(**answer_head(job.request, self._context), **fields)
            await self._send_event(job, message, size)
        if "update" in fields:
            job.progress = fields["update"]

    async def _send_event(self, job: RunningJob, message: BusJobMessage, size: int) -> None:
        job.events += 1
        try:
            await self._context.send(message)
        except BaseException:
            job.events -= 1
            if job.send_window is not None:
                job.send_window.unclaim(size)
            raise

    # Answers

    async def respond(
        self, job_id: str, status: JobStatus, data: dict[str, Any] | None, *, is_urgent: bool
    ) -> None:
        """Answer a job.

        Args:
            job_id: Of an accepted job.
            status: How the job ended.
            data: JSON values.
            is_urgent: Whether the answer overtakes data messages.

        Raises:
            JobStateError: The job is not open here.
            PbusError: The answer cannot be sent; the job stays open.
        """
        kind = BusJobResponseUrgentMessage if is_urgent else BusJobResponseMessage
        job = self._find(job_id)
        head = answer_head(job.request, self._context)
        await self._send(job, kind(**head, status=status, response=data, events=job.events))

    async def finish_stream(self, job_id: str, data: dict[str, Any] | None) -> None:
        """Answer a job by the end of its stream; arguments and errors as in respond()."""
        job = self._find(job_id)
        head = answer_head(job.request, self._context)
        await self._send(job, BusJobStreamEndMessage(**head, data=data, events=job.events))

    async def answer_result(self, job: RunningJob, result: Any) -> None:
        """Answer with a handler's return value, unless the job is answered already."""
        if result is None:
            result = {}
        elif not isinstance(result, dict):
            result = {"result": result}
        try:
            if self.has(job):
                await self._send(job, self._response(job, JobStatus.COMPLETED, result))
        except PbusError as error:  # above all: the value cannot be encoded
            await self.answer_error(job, error)

    async def answer_error(self, job: RunningJob, error: BaseException) -> None:
        """Answer with a handler's exception; a stored job is retried first."""
        if not self.has(job):
            return
        if job.delivery is not None and not job.delivery.is_last_attempt:
            self._remove(job, error)
            return
        brief = {"error": text_of(error), "type": kind_of(error)}
        trace = _traceback_of(error)
        try:
            await self._answer(job, JobStatus.ERROR, {**brief, "traceback": trace}, error)
        except PbusError:  # perhaps the traceback is too large
            await self.answer_best_effort(job, JobStatus.ERROR, brief, error)

    async def answer_best_effort(
        self,
        job: RunningJob,
        status: JobStatus,
        data: dict[str, Any],
        cause: BaseException | None = None,
    ) -> None:
        """Answer and close a job; an answer that cannot be sent is logged.

        Args:
            job: An accepted job.
            status: How it ended.
            data: The response.
            cause: Passed to the settlement of a stored request.
        """
        try:
            await self._answer(job, status, data, cause)
        except PbusError as error:
            logger.warning("%s: no answer to %s: %s", self._context.name, job.request, error)
            self._remove(job, error)

    def requeue(self, job: RunningJob) -> bool:
        """Close a stored job unanswered, so that another consumer gets it.

        Returns:
            Whether the job is stored.
        """
        delivery = job.delivery
        if delivery is None:
            return False
        job.delivery = None
        delivery.requeue()
        self._remove(job, None)
        return True

    def _find(self, job_id: str) -> RunningJob:
        job = self._jobs.get(job_id)
        if job is None:
            raise JobStateError(job_id, self._context.name)
        return job

    async def _answer(
        self,
        job: RunningJob,
        status: JobStatus,
        data: dict[str, Any],
        cause: BaseException | None = None,
    ) -> None:
        if self.has(job):
            await self._send(job, self._response(job, status, data), cause)

    def _response(
        self, job: RunningJob, status: JobStatus, data: dict[str, Any]
    ) -> BusJobResponseMessage:
        request = job.request
        return BusJobResponseMessage(
            source=self._context.address,
            target=request.source,
            job_id=request.job_id,
            traceparent=traceparent_after(request),
            status=status,
            response=data,
            events=job.events,
        )

    async def _send(
        self, job: RunningJob, answer: BusJobMessage, cause: BaseException | None = None
    ) -> None:
        """Send the one answer; the job is open again if that fails."""
        job_id = job.request.job_id
        del self._jobs[job_id]
        self._sending += 1
        try:
            await self._context.send(answer)
        except BaseException:
            self._jobs[job_id] = job
            raise
        finally:
            self._sending -= 1
        self._count(job, answer)
        self._release(job, cause)

    def _count(self, job: RunningJob, answer: BusJobMessage) -> None:
        """Count the outcome of a client's job; workers count those that they requested."""
        edges, request = self._context.bus.edges, job.request
        if edges is not None and is_client(request.source):
            status = getattr(answer, "status", JobStatus.COMPLETED)
            edge = edges.job_edge(request.source, self._context.address, request.job_name or "")
            edge.note(status.value, asyncio.get_running_loop().time() - job.since)

    def _remove(self, job: RunningJob, error: BaseException | None) -> None:
        if self._jobs.pop(job.request.job_id, None) is not None:
            self._release(job, error)

    def _release(self, job: RunningJob, error: BaseException | None) -> None:
        self.finished += 1
        if job.send_window is not None:
            job.send_window.open()
        if job.delivery is not None:
            job.delivery.settle(error)
        if not (self._jobs or self._sending):
            self._idle.set()
        self._on_removed(job)


def _traceback_of(error: BaseException) -> str:
    try:
        return sendable("".join(traceback.format_exception(error)))[-_TRACEBACK_CHARS:]
    except BaseException as failure:  # noqa: BLE001 - it calls methods of the user's
        return f"its traceback cannot be made: {type(failure).__name__}"


def answer_head(request: BusJobRequestMessage, context: WorkerContext) -> dict[str, Any]:
    """The fields that all messages about a job share, by name."""
    return {
        "source": context.address,
        "target": request.source,
        "job_id": request.job_id,
        "traceparent": traceparent_after(request),
    }
