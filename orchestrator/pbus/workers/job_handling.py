"""The worker's side of jobs: which handler does a request, and answering by hand."""

import difflib
import logging
from typing import Any, ClassVar

from pbus.bus.local.deferred_ack import requeue_current
from pbus.errors import WorkerNotAttachedError
from pbus.handlers import Handlers
from pbus.jobs.executor.executor import JobExecutor
from pbus.jobs.executor.running import Execution, Handler
from pbus.jobs.group import STOPPED
from pbus.messages import (
    BusJobCancelMessage,
    BusJobCreditMessage,
    BusJobRequestMessage,
    BusJobStreamDataMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    BusMessage,
    JobStatus,
)
from pbus.workers.core import base_hook
from pbus.workers.sending import SendingMixin

logger = logging.getLogger(__name__)

DEFAULT_MAX_QUEUED_JOBS = 1_000


class JobHandlingMixin(SendingMixin):
    """Lets a worker do jobs for others."""

    EVENTS = frozenset({"on_job_request", "on_job_cancelled", "on_job_update_requested"})
    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusJobRequestMessage: "_take_request",
        BusJobCancelMessage: "_take_cancel",
        BusJobCreditMessage: "_take_credit",
        BusJobUpdateRequestMessage: "_take_update_request",
    }
    HANDLERS: ClassVar[Handlers] = Handlers({}, {})

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._workbench: JobExecutor | None = None

    @property
    def job_names(self) -> tuple[str, ...]:
        """The jobs it has handlers for, sorted."""
        return tuple(sorted(self.HANDLERS.jobs))

    @property
    def active_jobs(self) -> dict[str, BusJobRequestMessage]:
        """The jobs in hand, by id."""
        return {} if self._workbench is None else self._workbench.requests

    # Hooks

    @base_hook
    async def on_job_request(self, message: BusJobRequestMessage) -> Any:
        """Do a job that no @job handler is for; returning nothing keeps it open."""

    @base_hook
    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        """A job in hand was cancelled by its requester; its handler has been."""

    @base_hook
    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        """The requester wants to know how far a job is: call send_job_update()."""

    # Answering by hand

    async def send_job_response(
        self,
        job_id: str,
        response: dict[str, Any] | None = None,
        *,
        status: JobStatus = JobStatus.COMPLETED,
        urgent: bool = False,
    ) -> None:
        """Answer a job in hand; what its handler returns is then ignored.

        Args:
            job_id: From the request.
            response: JSON values.
            status: How it ended.
            urgent: Overtake queued data. Updates sent before are still seen.

        Raises:
            JobStateError: It is not in hand: answered, cancelled, never asked of this worker.
        """
        await self._bench.replies.respond(job_id, status, response, is_urgent=urgent)

    async def send_job_update(
        self, job_id: str, update: dict[str, Any] | None = None, *, urgent: bool = False
    ) -> None:
        """Tell the requester how far a job in hand is; waits while it has too much unread.

        Args:
            job_id: From the request.
            update: JSON values.
            urgent: Overtake queued data, and wait for nobody.

        Raises:
            JobStateError: It is not in hand, or no longer.
        """
        kind = BusJobUpdateUrgentMessage if urgent else BusJobUpdateMessage
        await self._bench.replies.report(job_id, kind, update=update)

    async def send_job_stream_start(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Begin a streamed answer.

        Raises:
            JobStateError: The job is not in hand.
        """
        await self._bench.replies.report(job_id, BusJobStreamStartMessage, data=data)

    async def send_job_stream_data(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Send a piece of a streamed answer; waits while the requester has too much unread.

        Raises:
            JobStateError: The job is not in hand, or no longer.
        """
        await self._bench.replies.report(job_id, BusJobStreamDataMessage, data=data)

    async def send_job_stream_end(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """End a streamed answer; the data is the job's response, and the job is answered.

        Raises:
            JobStateError: The job is not in hand.
        """
        await self._bench.replies.finish_stream(job_id, data)

    # What comes in

    async def _take_request(self, request: BusJobRequestMessage) -> None:
        if request.target is None:
            logger.warning("%s: a job asked of everyone is nobody's: %s", self.name, request)
            return
        bench = self._bench
        was_cancelled, reason = bench.cancelled_early(request)
        if was_cancelled:
            await bench.refusals.refuse(request, JobStatus.CANCELLED, {"reason": reason})
            return
        if bench.passes_over(request):
            logger.warning("%s: %s came twice", self.name, request)
            return
        if self._is_stopping and requeue_current():
            return
        refusal = self._refusal(request)
        if refusal is not None:
            reason, text = refusal
            kind = STOPPED if self._is_stopping else "refused"
            data = {"error": text, "type": kind, "reason": reason}
            await bench.refusals.refuse(request, JobStatus.ERROR, data)
            return
        self._fire_event("on_job_request", request)
        # What comes after this is not to wait for the job.
        hook = "on_bus_message"
        has_lane = not (self._has_hook(hook) or self._is_listened_to(hook))
        await bench.begin(request, self._order(request), has_lane=has_lane)

    async def _take_cancel(self, message: BusJobCancelMessage) -> None:
        self._bench.cancel(message)

    async def _take_credit(self, message: BusJobCreditMessage) -> None:
        self._bench.take_credit(message)

    async def _take_update_request(self, message: BusJobUpdateRequestMessage) -> None:
        if message.job_id in self.active_jobs:
            await self._call_hook("on_job_update_requested", message)

    def _refusal(self, request: BusJobRequestMessage) -> tuple[str, str] | None:
        """Why a job is not taken in: a word, and a sentence."""
        if self._is_stopping:
            return "stopping", f"worker {self.name!r} is stopping"
        if not self._active:
            return "inactive", f"worker {self.name!r} is not active"
        if self._bench.is_full:
            return "busy", f"worker {self.name!r} is busy with {len(self.active_jobs):,} jobs"
        if request.job_name not in self.HANDLERS.jobs and not self._has_hook("on_job_request"):
            return "unknown job", self._unknown(request.job_name)
        return None

    def _unknown(self, name: str | None) -> str:
        known = ", ".join(map(repr, self.job_names)) or "none"
        near = difflib.get_close_matches(name or "", self.job_names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {known}"
        return f"worker {self.name!r} has no job {name!r}: {hint}"

    def _order(self, request: BusJobRequestMessage) -> Execution:
        name = request.job_name
        entry = None if name is None else self.HANDLERS.jobs.get(name)
        handler: Handler = self.on_job_request if entry is None else getattr(self, entry.method)
        if not self._begun.is_set():
            handler = self._once_begun(handler)
        if entry is None:
            return Execution(handler, stays_open=True)
        return Execution(handler, turn_key=name if entry.sequential else None)

    def _once_begun(self, handler: Handler) -> Handler:
        async def wait_then_do(request: BusJobRequestMessage) -> Any:
            await self._begun.wait()
            return await handler(request)

        return wait_then_do

    @property
    def _bench(self) -> JobExecutor:
        if self._workbench is None:
            raise WorkerNotAttachedError(self.name)
        return self._workbench
