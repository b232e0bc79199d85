"""A worker's jobs for others: taking them in, running handlers, cancelling, and never forgetting."""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from pbus.bus.local.delivery import current_delivery
from pbus.bus.local.lane_hold import InlineLaneHold
from pbus.concurrency.user_code import as_handler_error
from pbus.handlers import PENDING
from pbus.jobs.context import WorkerContext
from pbus.jobs.executor.limiter import ConcurrencyLimiter
from pbus.jobs.executor.responder import JobResponder, Rejections
from pbus.jobs.executor.running import Execution, PendingCancels, RunningJob, time_given
from pbus.jobs.executor.stream_pause import Outflow
from pbus.jobs.group import STOPPED
from pbus.messages import (
    BusJobCancelMessage,
    BusJobCreditMessage,
    BusJobRequestMessage,
    JobStatus,
)
from pbus.registry import WorkerLostData

logger = logging.getLogger(__name__)

CANCEL_GRACE_S = 1.0  # what a cancelled handler gets to end before its job is answered for it
OVERDUE_S = (
    5.0  # a requester whose time is up says so itself; one that cannot is waited for so long
)
_SWEEP_S = 1.0


class JobExecutor:
    """Sees to it that every job asked of its worker is answered once.

    Args:
        links: The worker's.
        max_open: How many jobs are taken in at once.
        places: How many of them run at once; None for all.
    """

    def __init__(self, links: WorkerContext, max_open: int, places: int | None = None) -> None:
        self._links = links
        self._max_open = max_open
        self._has_places = places is not None
        self._line: ConcurrencyLimiter[RunningJob] = ConcurrencyLimiter(places)
        self._early = PendingCancels()
        self._sweep: asyncio.TimerHandle | None = None
        self.replies = JobResponder(links, self._release)
        self.refusals = Rejections(links)

    @property
    def requests(self) -> dict[str, BusJobRequestMessage]:
        """The jobs in hand, by id."""
        return {job.request.job_id: job.request for job in self.replies.all()}

    # Taking jobs in

    def passes_over(self, request: BusJobRequestMessage) -> bool:
        """Whether this very job is in hand: a request is obeyed once."""
        if self.replies.get(request.job_id) is None:
            return False
        delivery = current_delivery()
        if delivery is not None:  # given to us a second time; the first is still to be settled
            delivery.hold()
            delivery.give_back()
        return True

    def cancelled_early(self, request: BusJobRequestMessage) -> tuple[bool, str | None]:
        """Whether the job was cancelled before it came, or came too late; and why."""
        delivery = current_delivery()
        if delivery is not None and request.deadline is not None:
            age = asyncio.get_running_loop().time() - delivery.stored_at
            if age > time_given(request) + OVERDUE_S:
                return True, "its time was up before it came"
        return self._early.take(request)

    @property
    def is_full(self) -> bool:
        """Whether as many jobs are in hand as the worker takes; stored ones wait here as well."""
        return len(self.replies) >= self._max_open and current_delivery() is None

    async def begin(
        self, request: BusJobRequestMessage, order: Execution, *, has_lane: bool
    ) -> None:
        """Carry out a request as soon as there is a place for it.

        Args:
            request: What is asked for.
            order: How.
            has_lane: Whether this is the last of the message in its lane: then the handler may run
                here and now, and the lane goes on beside it once it waits.
        """
        loop = asyncio.get_running_loop()
        asker = self._links.registry.get(request.source)
        delivery = current_delivery()
        job = RunningJob(
            request,
            order,
            since=loop.time(),
            requester="" if asker is None else asker.incarnation,
            delivery=delivery,
        )
        if delivery is not None:
            delivery.hold()  # it is settled when the job is over
        if request.window:
            job.outflow = Outflow(request, self._links)
        self.replies.add(job)
        if self._sweep is None:
            self._sweep = loop.call_later(_SWEEP_S, self._look_around)
        if self._has_places or order.turn_key is not None:
            job.has_place = self._line.enter(job)
            if job.has_place:
                self._start(job)
        elif has_lane:
            await self._work_here(job)
        else:
            self._start(job)

    async def _work_here(self, job: RunningJob) -> None:
        """Carry out a job in the task that reads the lane: most handlers never wait."""
        turn = job.turn = InlineLaneHold(self._links.handling)
        rest = turn.begin(self._carry_out(job))
        if rest is not None:
            turn.lend()
            if (task := asyncio.current_task()) is not None:
                task.set_name(self._name_of(job))
            await rest

    def _start(self, job: RunningJob) -> None:
        task = self._links.spawn(self._work_aside(job), self._name_of(job))
        if job.has_place:
            task.add_done_callback(lambda _: self._release(job))

    async def _work_aside(self, job: RunningJob) -> None:
        """Carry out a job in a task of its own."""
        if job.is_cancelled:
            job.is_handled = True
            return
        turn = job.turn = InlineLaneHold(self._links.handling, has_lane=False)
        rest = turn.begin(self._carry_out(job))
        if rest is not None:
            await rest

    def _name_of(self, job: RunningJob) -> str:
        return f"{self._links.name} job {job.request.job_name}"

    async def _carry_out(self, job: RunningJob) -> None:
        order, task = job.order, asyncio.current_task()
        try:
            result = await order.handler(job.request)
        except asyncio.CancelledError:
            if not job.is_cancelled:
                reason = {"reason": "something its handler awaited was cancelled"}
                await self.replies.answer_quietly(job, JobStatus.CANCELLED, reason)
        except BaseException as raised:
            where = f"the handler of job {job.request.job_name!r}"
            error = as_handler_error(raised, where, task)
            if error is None:
                raise
            bear = functools.partial(self._bear_error, job, error)
            await self._conclude(job, bear)
        else:
            is_pending = result is PENDING or (order.stays_open and result is None)
            if not is_pending and not job.is_cancelled:
                self._warn_of_late_value(job, result)
                answer = functools.partial(self.replies.answer_result, job, result)
                await self._conclude(job, answer)
        finally:
            job.is_handled = True

    def _warn_of_late_value(self, job: RunningJob, result: Any) -> None:
        if result is not None and not self.replies.has(job):
            logger.warning(
                "%s: job %s (%s) was answered before its handler returned: the value is dropped",
                self._links.name, job.request.job_id, job.request.job_name,
            )  # fmt: skip

    async def _conclude(
        self, job: RunningJob, answer: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Answer a job, also if a cancellation of its handler comes too late for that.

        Such a cancellation ends here: a stored request that is answered goes to no other.
        """
        try:
            await answer()
        except asyncio.CancelledError:
            if job.is_cancelled or not self.replies.has(job):
                raise
            self._links.spawn(answer())

    async def _bear_error(self, job: RunningJob, error: BaseException) -> None:
        if job.is_cancelled:
            logger.debug("%s: cancelled %s raised", self._links.name, job.request, exc_info=error)
            return
        logger.error(
            "%s: the handler of job %s (%s) raised",
            self._links.name, job.request.job_id, job.request.job_name, exc_info=error,
        )  # fmt: skip
        await self.replies.answer_error(job, error)

    def _release(self, job: RunningJob) -> None:
        """Give a job's place to the next, once its handler is over and it is answered."""
        if job.has_place and job.is_handled and not self.replies.has(job):
            job.has_place = False
            heir = self._line.leave(job)
            if heir is not None:
                heir.has_place = True
                self._start(heir)

    # Cancelling

    def cancel(self, message: BusJobCancelMessage) -> None:
        """Cancel a job for its requester, or have it cancelled when it comes."""
        job = self.replies.get(message.job_id)
        if job is None:
            self._early.note(message)
        elif job.request.source != message.source:
            logger.warning("%s: %s is not from the job's requester", self._links.name, message)
        else:
            self._cancel(job, message)

    def take_loss(self, data: WorkerLostData) -> None:
        """A life of a worker is over: nobody waits for the answers to what it asked for.

        Stored jobs are done all the same.
        """
        for job in self.replies.all():
            if not self._was_asked_by(job, data):
                continue
            if job.outflow is not None:
                job.outflow.lose()
            if job.delivery is None:
                self._give_up(job, f"its requester was lost: {data.reason}")

    def take_credit(self, message: BusJobCreditMessage) -> None:
        """A requester has read updates and pieces of a job."""
        job = self.replies.get(message.job_id)
        if job is not None and job.outflow is not None and job.request.source == message.source:
            job.outflow.note(message)

    def _was_asked_by(self, job: RunningJob, data: WorkerLostData) -> bool:
        _, at, runner = job.request.source.partition("@")
        if not at:
            return job.requester == data.incarnation != ""
        # Children have no leases: they are lost when nobody of their runner is left.
        registry = self._links.registry
        return runner == data.runner and not any(
            other is not None and other.runner == runner
            for other in map(registry.get, registry.remote_workers)
        )

    def _look_around(self) -> None:
        """Give up jobs whose requester should have done so, and has not: it may be gone."""
        loop = asyncio.get_running_loop()
        overdue = loop.time() - OVERDUE_S
        jobs = self.replies.all()
        for job in jobs:
            if job.due is not None and job.due < overdue:
                self._give_up(job, "its time is up, and nobody cancelled it")
        self._sweep = loop.call_later(_SWEEP_S, self._look_around) if jobs else None

    def _give_up(self, job: RunningJob, reason: str) -> None:
        request = job.request
        self._cancel(
            job,
            BusJobCancelMessage(
                source=request.source,
                target=self._links.address,
                job_id=request.job_id,
                reason=reason,
            ),
        )

    def _cancel(self, job: RunningJob, message: BusJobCancelMessage) -> None:
        if not job.is_cancelled:
            job.is_cancelled = True
            self._line.withdraw(job)
            self._links.spawn(self._see_off(job, message))

    async def _see_off(self, job: RunningJob, message: BusJobCancelMessage) -> None:
        await self._stop_handler(job)
        await self._links.call_hook("on_job_cancelled", message)
        data: dict[str, Any] = {"reason": message.reason}
        await self.replies.answer_quietly(job, JobStatus.CANCELLED, data)

    async def _stop_handler(self, job: RunningJob) -> None:
        """Cancel the handler and wait a while; it may clean up, or answer itself."""
        turn = job.turn
        if turn is None or job.is_handled or turn.task in {None, asyncio.current_task()}:
            return
        _, late = await asyncio.wait({turn.cut_off()}, timeout=CANCEL_GRACE_S)
        if late:
            logger.warning(
                "%s: the handler of job %s goes on after its cancellation; its answer is dropped",
                self._links.name, job.request.job_id,
            )  # fmt: skip

    async def close(self, reason: str) -> None:
        """Cancel and answer everything in hand; stored jobs go to whoever takes them next."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._line.clear()
        jobs = self.replies.all()
        for job in jobs:
            job.is_cancelled = True
        await asyncio.gather(*map(self._stop_handler, jobs))
        for job in jobs:
            if not self.replies.give_back(job):
                data = {"error": reason, "type": STOPPED}
                await self.replies.answer_quietly(job, JobStatus.CANCELLED, data)
        await self.refusals.sent(CANCEL_GRACE_S)
