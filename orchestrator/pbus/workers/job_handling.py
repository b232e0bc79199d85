"""Handling of job requests: choice of the handler, rejections, and explicit answers."""

import difflib
import functools
import logging
from typing import Any, ClassVar

from pbus.bus.local.deferred_ack import requeue_current
from pbus.concurrency.user_code import as_handler_error
from pbus.errors import WorkerNotAttachedError, kind_of, text_of
from pbus.handlers import Handlers
from pbus.jobs.executor.executor import JobExecutor
from pbus.jobs.executor.running import Execution, Handler
from pbus.jobs.group import NOT_BEGUN, STOPPED
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
    """Adds job handlers and the methods to answer jobs."""

    EVENTS = frozenset({"on_job_request", "on_job_cancelled", "on_job_update_requested"})
    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusJobRequestMessage: "_receive_job_request",
        BusJobCancelMessage: "_job_executor.on_cancel",
        BusJobCreditMessage: "_job_executor.on_credit",
        BusJobUpdateRequestMessage: "_receive_update_request",
    }
    HANDLERS: ClassVar[Handlers] = Handlers({}, {})

    @property
    def job_names(self) -> tuple[str, ...]:
        """The names of the jobs it has handlers for, sorted."""
        return tuple(sorted(self.HANDLERS.jobs))

    @property
    def active_jobs(self) -> dict[str, BusJobRequestMessage]:
        """The requests of the accepted jobs, by job id."""
        executor = self._made_job_executor
        return {} if executor is None else executor.requests

    # Hooks

    @base_hook
    async def on_job_request(self, message: BusJobRequestMessage) -> Any:
        """Handle a job that has no @job handler. Returning None keeps the job open.

        Without it, handlers of the event of this name do the job, in order; the first result that
        is not None answers it.
        """

    @base_hook
    async def on_job_cancelled(self, message: BusJobCancelMessage) -> None:
        """Handle the cancellation of an accepted job, after that of its handler."""

    @base_hook
    async def on_job_update_requested(self, message: BusJobUpdateRequestMessage) -> None:
        """Handle a request for the progress of a job: call send_job_update()."""

    # Explicit answers

    async def send_job_response(
        self,
        job_id: str,
        response: dict[str, Any] | None = None,
        *,
        status: JobStatus = JobStatus.COMPLETED,
        urgent: bool = False,
    ) -> None:
        """Answer an accepted job. The return value of its handler is then ignored.

        Args:
            job_id: From the request.
            response: JSON values.
            status: How the job ended.
            urgent: Whether the answer overtakes queued data. Earlier updates are still seen.

        Raises:
            JobStateError: The job is answered or cancelled, or unknown here.
            PbusError: The answer cannot be sent; the job stays open.
        """
        await self._job_executor.responder.respond(job_id, status, response, is_urgent=urgent)

    async def send_job_update(
        self, job_id: str, update: dict[str, Any] | None = None, *, urgent: bool = False
    ) -> None:
        """Send the progress of an accepted job. Waits while the requester has too much unread.

        Args:
            job_id: From the request.
            update: JSON values.
            urgent: Whether it overtakes queued data and never waits.

        Raises:
            JobStateError: The job is not open here, or no longer.
            PbusError: The update cannot be sent.
        """
        kind = BusJobUpdateUrgentMessage if urgent else BusJobUpdateMessage
        await self._job_executor.responder.report(job_id, kind, update=update)

    async def send_job_stream_start(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Send the first message of a streamed answer.

        Args:
            job_id: From the request.
            data: JSON values.

        Raises:
            JobStateError: The job is not open here, or no longer.
            PbusError: The message cannot be sent.
        """
        await self._job_executor.responder.report(job_id, BusJobStreamStartMessage, data=data)

    async def send_job_stream_data(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Send a message of a streamed answer. Waits while the requester has too much unread.

        Args:
            job_id: From the request.
            data: JSON values.

        Raises:
            JobStateError: The job is not open here, or no longer.
            PbusError: The message cannot be sent.
        """
        await self._job_executor.responder.report(job_id, BusJobStreamDataMessage, data=data)

    async def send_job_stream_end(self, job_id: str, data: dict[str, Any] | None = None) -> None:
        """Answer a job by the end of its stream.

        Args:
            job_id: From the request.
            data: JSON values, the job's response.

        Raises:
            JobStateError: The job is not open here.
            PbusError: The message cannot be sent; the job stays open.
        """
        await self._job_executor.responder.finish_stream(job_id, data)

    # Messages

    async def _receive_job_request(self, request: BusJobRequestMessage) -> None:
        executor = self._job_executor
        if request.target is None:
            logger.warning("%s: a job requested of everyone is not done: %s", self.name, request)
            return
        await self.registry.follow()  # an earlier incarnation of the requester may be known yet
        was_cancelled, reason = executor.cancelled_before_start(request)
        if was_cancelled:
            await executor.rejections.reject(request, JobStatus.CANCELLED, {"reason": reason})
            return
        if executor.is_duplicate(request):
            logger.warning("%s: %s came twice", self.name, request)
            return
        if self._is_stopping and requeue_current():
            return
        problem = self._problem_of(request)
        if problem is not None:
            reason, text = problem
            kind = STOPPED if self._is_stopping else "refused"
            data = {"error": text, "type": kind, "reason": reason}
            await executor.rejections.reject(request, JobStatus.ERROR, data)
            return
        if self._event_handlers:
            self._announce(request)
        # Code that runs behind this must not wait for the job.
        has_lane = not (self._is_hooked or self._event_handlers.get("on_bus_message"))
        await executor.submit(request, self._execution_of(request), has_lane=has_lane)

    def _announce(self, request: BusJobRequestMessage) -> None:
        """Fire the event of a request, unless its handlers are to do the job."""
        if self._has_handler(request.job_name):
            self._fire_event("on_job_request", request)

    async def _receive_update_request(self, message: BusJobUpdateRequestMessage) -> None:
        if message.job_id in self.active_jobs:
            await self._call_hook("on_job_update_requested", message)

    def _problem_of(self, request: BusJobRequestMessage) -> tuple[str, str] | None:
        """The reason to reject a request: a word, and a sentence; None to accept it."""
        if self._is_stopping:
            return NOT_BEGUN, f"worker {self.name!r} is stopping"
        if not self._active:
            return "inactive", f"worker {self.name!r} is not active"
        if self._job_executor.is_full:
            return "busy", f"worker {self.name!r} is busy with {len(self.active_jobs):,} jobs"
        name = request.job_name
        if not (self._has_handler(name) or self._is_listened_to("on_job_request")):
            return "unknown job", self._unknown(name)
        return self._refusal_of(request) if self._is_selective else None

    def _refusal_of(self, request: BusJobRequestMessage) -> tuple[str, str] | None:
        """The rejection of a request by accepts_bus_message()."""
        where = f"accepts_bus_message() of {self.name!r}"
        try:
            if self.accepts_bus_message(request):
                return None
        except BaseException as raised:
            error = as_handler_error(raised, where)
            if error is None:
                raise
            logger.error("%s: %s raised", self.name, where, exc_info=error)  # noqa: TRY400 - another error
            return "refused", f"{where} raised {kind_of(error)}: {text_of(error)}"
        return "refused", f"worker {self.name!r} does not accept it"

    def _has_handler(self, name: str | None) -> bool:
        """Whether a method does jobs of a name; else event handlers do, and their errors are answers."""
        return name in self.HANDLERS.jobs or self._has_hook("on_job_request")

    def _unknown(self, name: str | None) -> str:
        known = ", ".join(map(repr, self.job_names)) or "none"
        near = difflib.get_close_matches(name or "", self.job_names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {known}"
        return f"worker {self.name!r} has no job {name!r}: {hint}"

    def _execution_of(self, request: BusJobRequestMessage) -> Execution:
        name = request.job_name
        entry = None if name is None else self.HANDLERS.jobs.get(name)
        if entry is not None:
            handler: Handler = getattr(self, entry.method)
        elif self._has_hook("on_job_request"):
            handler = self.on_job_request
        else:
            handler = functools.partial(self._run_event_handlers, "on_job_request")
        if not self._has_started.is_set:
            handler = self._after_start(handler)
        if entry is None:
            return Execution(handler, stays_open=True)
        return Execution(handler, serial_key=name if entry.sequential else None)

    def _after_start(self, handler: Handler) -> Handler:
        async def wait_then_handle(request: BusJobRequestMessage) -> Any:
            await self._has_started.wait()
            return await handler(request)

        return wait_then_handle

    @property
    def _job_executor(self) -> JobExecutor:
        parts = self._job_parts
        if parts is None:
            raise WorkerNotAttachedError(self.name)
        return parts.made_executor or parts.make_executor()

    @property
    def _made_job_executor(self) -> JobExecutor | None:
        return None if self._job_parts is None else self._job_parts.made_executor
