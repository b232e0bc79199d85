"""A worker's jobs for others: running handlers, answering, cancelling, and answering for sure."""

import asyncio
import logging
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pbus.errors import JobStateError, PbusError
from pbus.handlers import PENDING
from pbus.jobs.group import STOPPED
from pbus.messages import (
    BusJobCancelMessage,
    BusJobMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamEndMessage,
    JobStatus,
)
from pbus.workers.links import Links

logger = logging.getLogger(__name__)

CANCEL_GRACE_S = 1.0  # what a cancelled handler gets to end before its job is answered for it
MAX_REFUSALS = 1_000  # on their way at once; then the requesters' lane waits
_EARLY_CANCEL_AGE_S = 60.0  # a cancel overtakes its request by milliseconds, by a backlog at most
_MAX_EARLY_CANCELS = 10_000
_TRACEBACK_CHARS = 8_000  # the end says most

Handler = Callable[[BusJobRequestMessage], Awaitable[Any]]


class Order(msgspec.Struct, frozen=True):
    """How a request is to be carried out.

    Attributes:
        handler: Does it.
        lock: Held while it is done, where jobs of its name are done one at a time.
        stays_open: It is answered later when the handler returns nothing.
    """

    handler: Handler
    lock: asyncio.Lock | None = None
    stays_open: bool = False


class OpenJob:
    """One job in hand.

    Attributes:
        events: Updates and stream messages sent so far.
        task: Runs the handler; done while a pending job is still open.
        is_cancelled: Somebody else answers it.
    """

    def __init__(self, request: BusJobRequestMessage) -> None:
        self.request = request
        self.events = 0
        self.task: asyncio.Task[Any] | None = None
        self.is_cancelled = False


class EarlyCancels:
    """Cancels that came before their requests; kept for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reasons: OrderedDict[tuple[str, str], tuple[float, str | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._reasons)

    def note(self, cancel: BusJobCancelMessage) -> None:
        """Keep a cancel of a job that is not known here."""
        now = self._clock()
        while self._reasons:
            key, (since, _) = next(iter(self._reasons.items()))
            if now - since < _EARLY_CANCEL_AGE_S and len(self._reasons) < _MAX_EARLY_CANCELS:
                break
            del self._reasons[key]
        self._reasons[cancel.source, cancel.job_id] = (now, cancel.reason)

    def take(self, request: BusJobRequestMessage) -> tuple[bool, str | None]:
        """Whether a request was cancelled before it came, and why."""
        if not self._reasons:
            return False, None
        noted = self._reasons.pop((request.source, request.job_id), None)
        return (False, None) if noted is None else (True, noted[1])


class Workbench:
    """Sees to it that every job asked of its worker is answered once."""

    def __init__(self, links: Links, max_open: int) -> None:
        self._links = links
        self._max_open = max_open
        self._jobs: dict[str, OpenJob] = {}
        self._early = EarlyCancels()
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusals: set[asyncio.Task[None]] = set()

    @property
    def requests(self) -> dict[str, BusJobRequestMessage]:
        """The jobs in hand, by id."""
        return {job_id: job.request for job_id, job in self._jobs.items()}

    async def idle(self) -> None:
        """Wait until no job is in hand."""
        await self._idle.wait()

    # Taking jobs in

    def is_known(self, request: BusJobRequestMessage) -> bool:
        """Whether this very job is in hand: a request is obeyed once."""
        return request.job_id in self._jobs

    def cancelled_early(self, request: BusJobRequestMessage) -> tuple[bool, str | None]:
        """Whether the job was cancelled before it came, and why."""
        return self._early.take(request)

    @property
    def is_full(self) -> bool:
        """Whether as many jobs are in hand as the worker takes."""
        return len(self._jobs) >= self._max_open

    async def refuse(self, request: BusJobRequestMessage, status: JobStatus, data: Any) -> None:
        """Answer a job that is not taken in; waits only when there are very many of those."""
        answer = BusJobResponseMessage(
            source=self._links.address,
            target=request.source,
            job_id=request.job_id,
            status=status,
            response=data,
        )
        sending = self._links.spawn(self._send_quietly(answer))
        self._refusals.add(sending)
        sending.add_done_callback(self._refusals.discard)
        if len(self._refusals) > MAX_REFUSALS:
            await asyncio.wait({sending})

    def begin(self, request: BusJobRequestMessage, order: Order) -> None:
        """Carry out a request, in a task of its own."""
        job = self._jobs[request.job_id] = OpenJob(request)
        self._idle.clear()
        name = f"{self._links.name} job {request.job_name}"
        job.task = self._links.spawn(self._carry_out(job, order), name)

    async def _carry_out(self, job: OpenJob, order: Order) -> None:
        try:
            if order.lock is None:
                result = await order.handler(job.request)
            else:
                async with order.lock:
                    result = await order.handler(job.request)
        except asyncio.CancelledError:
            if job.is_cancelled:
                raise
            reason = {"reason": "something its handler awaited was cancelled"}
            await self._answer_quietly(job, JobStatus.CANCELLED, reason)
        except Exception as error:  # noqa: BLE001 - whatever it is, the requester gets to know
            await self._answer_error(job, error)
        else:
            is_pending = result is PENDING or (order.stays_open and result is None)
            if not is_pending and not job.is_cancelled:
                await self._answer_result(job, result)

    async def _answer_result(self, job: OpenJob, result: Any) -> None:
        if result is None:
            result = {}
        elif not isinstance(result, dict):
            result = {"result": result}
        try:
            await self._answer(job, JobStatus.COMPLETED, result)
        except PbusError as error:  # above all: what was returned cannot be encoded
            await self._answer_error(job, error)

    async def _answer_error(self, job: OpenJob, error: Exception) -> None:
        if job.is_cancelled:
            logger.debug("%s: cancelled %s raised", self._links.name, job.request, exc_info=error)
            return
        logger.error(
            "%s: the handler of job %s (%s) raised",
            self._links.name, job.request.job_id, job.request.job_name, exc_info=error,
        )  # fmt: skip
        data = {
            "error": str(error) or type(error).__name__,
            "type": type(error).__name__,
            "traceback": "".join(traceback.format_exception(error))[-_TRACEBACK_CHARS:],
        }
        await self._answer_quietly(job, JobStatus.ERROR, data)

    # Answering

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
        await self._send_answer(
            job, kind(**self._to(job), status=status, response=data, events=job.events)
        )

    async def report(self, job_id: str, kind: type[BusJobMessage], **fields: Any) -> None:
        """Send an update or a piece of a stream.

        Raises:
            JobStateError: The job is not in hand.
            PbusError: It cannot be sent.
        """
        job = self._find(job_id)
        job.events += 1
        try:
            await self._links.send(kind(**self._to(job), **fields))
        except PbusError:
            job.events -= 1
            raise

    async def finish_stream(self, job_id: str, data: dict[str, Any] | None) -> None:
        """Answer a job by the end of its stream; see respond()."""
        job = self._find(job_id)
        answer = BusJobStreamEndMessage(**self._to(job), data=data, events=job.events)
        await self._send_answer(job, answer)

    def _to(self, job: OpenJob) -> dict[str, Any]:
        request = job.request
        return {
            "source": self._links.address,
            "target": request.source,
            "job_id": request.job_id,
        }

    def _find(self, job_id: str) -> OpenJob:
        job = self._jobs.get(job_id)
        if job is None:
            raise JobStateError(job_id, self._links.name)
        return job

    async def _send_answer(self, job: OpenJob, answer: BusJobMessage) -> None:
        """Send the one answer; only if that fails may there be another."""
        job_id = job.request.job_id
        del self._jobs[job_id]
        try:
            await self._links.send(answer)
        except BaseException:
            self._jobs[job_id] = job
            raise
        finally:
            if not self._jobs:
                self._idle.set()

    async def _answer(self, job: OpenJob, status: JobStatus, data: dict[str, Any]) -> None:
        if self._jobs.get(job.request.job_id) is job:  # else it was answered already
            await self.respond(job.request.job_id, status, data, is_urgent=False)

    async def _answer_quietly(self, job: OpenJob, status: JobStatus, data: dict[str, Any]) -> None:
        """Answer, or log why that is impossible; either way it is no longer in hand."""
        try:
            await self._answer(job, status, data)
        except PbusError as error:
            logger.warning("%s: no answer to %s: %s", self._links.name, job.request, error)
            self._drop(job)

    async def _send_quietly(self, answer: BusJobMessage) -> None:
        try:
            await self._links.send(answer)
        except PbusError as error:
            logger.warning("%s could not send %s: %s", self._links.name, answer, error)

    def _drop(self, job: OpenJob) -> None:
        self._jobs.pop(job.request.job_id, None)
        if not self._jobs:
            self._idle.set()

    # Cancelling

    def cancel(self, message: BusJobCancelMessage) -> None:
        """Cancel a job for its requester, or have it cancelled when it comes."""
        job = self._jobs.get(message.job_id)
        if job is None:
            self._early.note(message)
        elif job.request.source != message.source:
            logger.warning("%s: %s is not from the job's requester", self._links.name, message)
        elif not job.is_cancelled:
            job.is_cancelled = True
            self._links.spawn(self._see_off(job, message))

    async def _see_off(self, job: OpenJob, message: BusJobCancelMessage) -> None:
        await self._stop_handler(job)
        await self._links.call_hook("on_job_cancelled", message)
        await self._answer_quietly(job, JobStatus.CANCELLED, {"reason": message.reason})

    async def _stop_handler(self, job: OpenJob) -> None:
        """Cancel the handler and wait a while; it may clean up, or answer itself."""
        task = job.task
        if task is None or task.done() or task is asyncio.current_task():
            return
        task.cancel()
        _, late = await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
        if late:
            logger.warning(
                "%s: the handler of job %s goes on after its cancellation; its answer is dropped",
                self._links.name, job.request.job_id,
            )  # fmt: skip

    async def close(self, reason: str) -> None:
        """Cancel and answer everything in hand."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.is_cancelled = True
        await asyncio.gather(*map(self._stop_handler, jobs))
        for job in jobs:
            data = {"error": reason, "type": STOPPED}
            await self._answer_quietly(job, JobStatus.CANCELLED, data)
        if self._refusals:
            await asyncio.wait(self._refusals, timeout=CANCEL_GRACE_S)
