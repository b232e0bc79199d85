"""Jobs whose worker is lost: requested again elsewhere, or ended."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from pbus.errors import PbusError
from pbus.jobs.context import WorkerContext
from pbus.jobs.group import NOT_BEGUN, JobGroup, JobMember
from pbus.jobs.requester.pending import JobCompletion, PendingJob, PendingJobs
from pbus.registry import WorkerLostData, WorkerRegistry

logger = logging.getLogger(__name__)

LOSS_GRACE_S = 0.1  # an answer that was sent before the loss may arrive so much later
CATCH_UP_ROUNDS = 50  # times that, at most, while messages are queued here
_POLL_S = 0.5
_NEWS_S = 0.02
_NEWS_ROUNDS = 150

Request = Callable[[PendingJob, JobMember], Awaitable[None]]


class LostWorkers:
    """Retries or ends the jobs of workers that are lost.

    Args:
        context: The requesting worker's.
        pending: Its open jobs.
        completion: Ends them.
        request: Sends a member's request to a ready worker.
    """

    def __init__(
        self,
        context: WorkerContext,
        pending: PendingJobs,
        completion: JobCompletion,
        request: Request,
    ) -> None:
        self._context = context
        self._pending = pending
        self._completion = completion
        self._request = request

    async def on_worker_lost(self, data: WorkerLostData) -> None:
        """Handle the loss of one incarnation of a worker, in a task per open job."""
        for job, member in self._pending.unanswered_by(data.worker_name, data.incarnation):
            work = self._handle_worker_loss(job, member, data)
            name = f"{self._context.name} job {job.group.job_id} lost its worker"
            self._context.spawn(work, name)

    def is_asked_again(
        self, job: PendingJob, member: JobMember, data: Mapping[str, Any] | None
    ) -> bool:
        """Handle the answer of a worker that stops.

        Args:
            job: The job.
            member: The worker's part.
            data: The answer.

        Returns:
            Whether another worker is asked: after the loss of this one, which follows; or at once for
            a job that was not begun, which is no retry.
        """
        if self.may_retry(job, member):
            return True
        return (data or {}).get("reason") == NOT_BEGUN and self._asks_another(job, member)

    def _asks_another(self, job: PendingJob, member: JobMember) -> bool:
        ready = self._context.registry.ready(member.name)
        if not any(one.incarnation != member.incarnation for one in ready):
            return False
        self._pending.release(member)
        name = f"{self._context.name} job {job.group.job_id} asks another replica"
        self._context.spawn(self._ask_another(job, member, member.incarnation), name)
        return True

    async def _ask_another(self, job: PendingJob, member: JobMember, refused_by: str) -> None:
        """Ask another replica once the news has come that the first one stops: it lags behind."""
        for _ in range(_NEWS_ROUNDS):
            ready = self._context.registry.ready(member.name)
            if all(one.incarnation != refused_by for one in ready):
                break
            await asyncio.sleep(_NEWS_S)
        if not job.group.is_done and member.is_open:
            await self._retry(job, member, "it stops")

    def may_retry(self, job: PendingJob, member: JobMember) -> bool:
        """Whether the job's retries are not used up."""
        return member.workers_lost < job.group.params.retries

    async def _handle_worker_loss(
        self, job: PendingJob, member: JobMember, data: WorkerLostData
    ) -> None:
        await self._catch_up()
        if job.group.is_done or not member.is_open or member.incarnation != data.incarnation:
            return
        self._pending.release(member)
        if self.may_retry(job, member):
            member.workers_lost += 1
            await self._retry(job, member, data.reason)
        else:
            await self._end(job, member, data.reason)

    async def _catch_up(self) -> None:
        """Wait for messages from before the loss: the news of it overtakes data."""
        for _ in range(CATCH_UP_ROUNDS):
            await asyncio.sleep(LOSS_GRACE_S)
            stats = self._context.bus.stats(self._context.name)
            if stats.queued == stats.held:  # no answer is among those held back
                return

    async def _retry(self, job: PendingJob, member: JobMember, reason: str) -> None:
        logger.info(
            "%s: job %s is requested again: %s was lost (%s)",
            self._context.name, job.group.job_id, member.worker, reason,
        )  # fmt: skip
        try:
            await self._request(job, member)
        except PbusError as error:
            self._pending.release(member)
            await self._end(job, member, f"{reason}, and no other worker could be asked: {error}")

    async def _end(self, job: PendingJob, member: JobMember, reason: str) -> None:
        job.group.mark_worker_lost(member, reason)
        await self._completion.call_hooks(job.group, self._completion.conclude(job))


async def until_over(groups: Iterable[JobGroup], registry: WorkerRegistry) -> None:
    """Wait until jobs are over, as far as their workers are there.

    Args:
        groups: The jobs.
        registry: Knows the workers.
    """

    def is_worked_on(group: JobGroup) -> bool:
        members = group.open_members()
        is_there = any(one.is_asked and registry.is_there(one.worker) for one in members)
        return is_there and not group.is_done

    while open_groups := [group for group in groups if is_worked_on(group)]:
        waits = [asyncio.ensure_future(group.until_told()) for group in open_groups]
        try:
            await asyncio.wait(waits, timeout=_POLL_S)
        finally:
            for wait in waits:
                wait.cancel()
        groups = open_groups
