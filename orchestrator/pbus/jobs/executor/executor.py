"""Execution of a worker's jobs: accept, run the handler, cancel, and answer each job once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pbus.bus.local.delivery import current_delivery
from pbus.bus.local.lane_hold import InlineLaneHold
from pbus.concurrency.user_code import as_handler_error
from pbus.handlers import PENDING
from pbus.jobs.context import WorkerContext
from pbus.jobs.executor.abandoned import AbandonedJobs, is_expired
from pbus.jobs.executor.limiter import ConcurrencyLimiter
from pbus.jobs.executor.rejections import Rejections
from pbus.jobs.executor.responder import JobResponder
from pbus.jobs.executor.running import Execution, PendingCancels, RunningJob
from pbus.jobs.group import STOPPED
from pbus.messages import (
    BusJobCancelMessage,
    BusJobCreditMessage,
    BusJobRequestMessage,
    JobStatus,
)
from pbus.trace_context import give_cause

logger = logging.getLogger(__name__)

CANCEL_GRACE_S = 1.0  # for a cancelled handler to end before its job is answered
_SAME_CLOCK_S = 1.0  # a deadline that differs by less was set by a clock like ours


class JobExecutor:
    """Runs the jobs of one worker and answers each of them once.

    Args:
        context: The worker's.
        max_open: The number of jobs that are accepted at once.
        slots: The number of jobs that run at once; None for all.

    Attributes:
        responder: Has the accepted jobs.
        rejections: Answers the others.
        abandoned: Cancels jobs that no requester waits for.
    """

    def __init__(self, context: WorkerContext, max_open: int, slots: int | None = None) -> None:
        self._context = context
        self._max_open = max_open
        self._has_slots = slots is not None
        self._limiter: ConcurrencyLimiter[RunningJob] = ConcurrencyLimiter(slots)
        self._pending_cancels = PendingCancels()
        self.responder = JobResponder(context, self._release_slot)
        self.rejections = Rejections(context)
        self.abandoned = AbandonedJobs(context, self.responder, self._cancel)

    @property
    def requests(self) -> dict[str, BusJobRequestMessage]:
        """The requests of the accepted jobs, by job id."""
        return {job.request.job_id: job.request for job in self.responder.all()}

    # Accepting jobs

    def is_duplicate(self, request: BusJobRequestMessage) -> bool:
        """Whether a job of this id is open; the second copy of a stored request is requeued."""
        if self.responder.get(request.job_id) is None:
            return False
        delivery = current_delivery()
        if delivery is not None:  # the first delivery is still to be settled
            delivery.defer_ack()
            delivery.requeue()
        return True

    def cancelled_before_start(self, request: BusJobRequestMessage) -> tuple[bool, str | None]:
        """Whether a request was cancelled, or expired, before it arrived; and the reason."""
        delivery = current_delivery()
        if delivery is not None and is_expired(request, delivery):
            return True, "its time was up before it came"
        return self._pending_cancels.take(request) if self._pending_cancels else (False, None)

    @property
    def is_full(self) -> bool:
        """Whether no further job is accepted; stored requests always are, the broker limits them."""
        return len(self.responder) >= self._max_open and current_delivery() is None

    async def submit(
        self, request: BusJobRequestMessage, execution: Execution, *, has_lane: bool
    ) -> None:
        """Accept a job and run it as soon as there is a slot.

        Args:
            request: The request.
            execution: The handler, and when it may run.
            has_lane: Whether nothing else in the lane handles this message: then the handler starts
                in the lane's task, and the lane reads on once the handler waits.
        """
        job = self._new_job(request, execution)
        self.responder.add(job)
        if not self.abandoned.is_watching:
            self.abandoned.watch()
        if self._has_slots or execution.serial_key is not None:
            job.has_slot = self._limiter.acquire(job)
            if job.has_slot:
                self._start(job)
        elif has_lane:
            await self._run_inline(job)
        else:
            self._start(job)

    def _new_job(self, request: BusJobRequestMessage, execution: Execution) -> RunningJob:
        requester, delivery = self._context.registry.get(request.source), current_delivery()
        now, due = asyncio.get_running_loop().time(), None
        if delivery is not None:
            delivery.defer_ack()  # settled when the job has ended
        if request.deadline is not None:
            # The requester's clock says nothing here: a stored request counts from its storing, by
            # the broker's clock, others from their arrival.
            since = now if delivery is None else delivery.stored_at
            due = since + request.deadline - request.time
            deadline = time.time() + due - now  # by this process's clock, for handlers
            if abs(deadline - request.deadline) >= _SAME_CLOCK_S:
                request = msgspec.structs.replace(request, deadline=deadline)
        incarnation = "" if requester is None else requester.incarnation
        return RunningJob(request, execution, now, due, incarnation, delivery)

    # Running handlers

    async def _run_inline(self, job: RunningJob) -> None:
        """Run a job in the lane's task: most handlers never wait."""
        hold = job.lane_hold = InlineLaneHold(self._context.waiting_handlers)
        if (rest := hold.start(self._run_handler(job))) is not None:
            hold.release()
            if (task := asyncio.current_task()) is not None:
                task.set_name(self._task_name(job))
            await self._track(job, rest)

    def _start(self, job: RunningJob) -> None:
        task = self._context.spawn(self._run_in_task(job), self._task_name(job))
        if job.has_slot:
            task.add_done_callback(lambda _: self._release_slot(job))

    async def _run_in_task(self, job: RunningJob) -> None:
        if job.is_cancelled:
            job.is_handled = True
            return
        give_cause(job.request)  # this task may be of the end of another job
        hold = job.lane_hold = InlineLaneHold(self._context.waiting_handlers, has_lane=False)
        if (rest := hold.start(self._run_handler(job))) is not None:
            await self._track(job, rest)

    def _track(self, job: RunningJob, rest: Awaitable[None]) -> Awaitable[None]:
        running, request = self._context.running_handlers, job.request
        return running.track(f"job {request.job_name}", request, rest)

    def _task_name(self, job: RunningJob) -> str:
        return f"{self._context.name} job {job.request.job_name}"

    async def _run_handler(self, job: RunningJob) -> None:
        execution, task = job.execution, asyncio.current_task()
        try:
            result = await execution.handler(job.request)
        except asyncio.CancelledError:
            if not job.is_cancelled:
                reason = {"reason": "something its handler awaited was cancelled"}
                await self.responder.answer_best_effort(job, JobStatus.CANCELLED, reason)
        except BaseException as raised:
            where = f"the handler of job {job.request.job_name!r}"
            error = as_handler_error(raised, where, task)
            if error is None:
                raise
            await self._reply_uncancelled(job, self._on_handler_error, error)
        else:
            is_pending = result is PENDING or (execution.stays_open and result is None)
            if not is_pending and not job.is_cancelled:
                await self._on_handler_result(job, result)
        finally:
            job.is_handled = True

    def _on_handler_result(self, job: RunningJob, result: Any) -> Awaitable[None]:
        if result is not None and not self.responder.has(job):
            logger.warning(
                "%s: job %s (%s) was answered before its handler returned: the value is dropped",
                self._context.name, job.request.job_id, job.request.job_name,
            )  # fmt: skip
        return self._reply_uncancelled(job, self.responder.answer_result, result)

    async def _reply_uncancelled(
        self, job: RunningJob, reply: Callable[[RunningJob, Any], Awaitable[None]], outcome: Any
    ) -> None:
        """Answer a job, even if its handler's task is cancelled meanwhile.

        The cancellation ends here: a stored request that is answered must not be requeued.
        """
        try:
            await reply(job, outcome)
        except asyncio.CancelledError:
            if job.is_cancelled or not self.responder.has(job):
                raise
            self._context.spawn(reply(job, outcome))

    async def _on_handler_error(self, job: RunningJob, error: BaseException) -> None:
        name, request = self._context.name, job.request
        if job.is_cancelled:
            logger.debug("%s: cancelled %s raised", name, request, exc_info=error)
            return
        logger.error(
            "%s: the handler of job %s (%s) raised",
            name, request.job_id, request.job_name, exc_info=error,
        )  # fmt: skip
        await self.responder.answer_error(job, error)

    def _release_slot(self, job: RunningJob) -> None:
        """Pass a job's slot on, once its handler has ended and it is answered."""
        if job.has_slot and job.is_handled and not self.responder.has(job):
            job.has_slot = False
            next_job = self._limiter.release(job)
            if next_job is not None:
                next_job.has_slot = True
                self._start(next_job)

    # Messages about accepted jobs

    async def on_cancel(self, message: BusJobCancelMessage) -> None:
        """Cancel a job for its requester, or keep the cancel until the request arrives."""
        job = self.responder.get(message.job_id)
        if job is None:
            self._pending_cancels.add(message)
        elif job.request.source != message.source:
            logger.warning("%s: %s is not from the job's requester", self._context.name, message)
        else:
            self._cancel(job, message)

    async def on_credit(self, message: BusJobCreditMessage) -> None:
        """Apply the position up to which a requester has read a job's events."""
        job = self.responder.get(message.job_id)
        if job is not None and job.send_window and job.request.source == message.source:
            job.send_window.on_credit(message)

    def _cancel(self, job: RunningJob, message: BusJobCancelMessage) -> None:
        if not job.is_cancelled:
            job.is_cancelled = True
            self._limiter.withdraw(job)
            self._context.spawn(self._finish_cancelled(job, message))

    async def _finish_cancelled(self, job: RunningJob, message: BusJobCancelMessage) -> None:
        await self._stop_handler(job)
        await self._context.call_hook("on_job_cancelled", message)
        data: dict[str, Any] = {"reason": message.reason}
        await self.responder.answer_best_effort(job, JobStatus.CANCELLED, data)

    async def _stop_handler(self, job: RunningJob) -> None:
        """Cancel the handler and wait a while; it may clean up, or answer itself."""
        hold = job.lane_hold
        if hold is None or job.is_handled or hold.task in {None, asyncio.current_task()}:
            return
        _, late = await asyncio.wait({hold.cancel()}, timeout=CANCEL_GRACE_S)
        if late:
            logger.warning(
                "%s: the handler of job %s goes on after its cancellation; its answer is dropped",
                self._context.name, job.request.job_id,
            )  # fmt: skip

    async def close(self, reason: str) -> None:
        """Cancel all jobs, answer them, and requeue those that are stored.

        Args:
            reason: For the requesters.
        """
        self.abandoned.close()
        self._limiter.clear()
        jobs = self.responder.all()
        for job in jobs:
            job.is_cancelled = True
        await asyncio.gather(*map(self._stop_handler, jobs))
        for job in jobs:
            if not self.responder.requeue(job):
                data = {"error": reason, "type": STOPPED}
                await self.responder.answer_best_effort(job, JobStatus.CANCELLED, data)
        await self.rejections.flush(CANCEL_GRACE_S)
