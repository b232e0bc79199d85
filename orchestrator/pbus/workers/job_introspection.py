"""Telling others which of a worker's jobs are open, and cancelling one for them."""

import asyncio
from typing import ClassVar

from pbus.jobs.executor.running import RunningJob
from pbus.jobs.group import JobMember
from pbus.jobs.listing import (
    BusJobCancelRequestMessage,
    BusJobCancelResponseMessage,
    CancelOutcome,
    JobEntry,
    JobState,
    OpenJobs,
    progress_of,
    short,
)
from pbus.jobs.requester.pending import PendingJob
from pbus.messages import BusMessage
from pbus.workers.job_handling import JobHandlingMixin
from pbus.workers.job_requesting import JobRequestingMixin


class JobListingMixin(JobHandlingMixin, JobRequestingMixin):
    """Lets a worker say which jobs it asked for, and which it does."""

    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusJobCancelRequestMessage: "_take_cancel_request"
    }

    def open_jobs(self) -> OpenJobs:
        """The jobs that are not over, on both sides."""
        if self._workbench is None or self._job_desk is None:
            return OpenJobs()
        now = asyncio.get_running_loop().time()
        return OpenJobs(
            asked=tuple(
                self._asked_entry(case, member, now)
                for case in self._job_desk.open_cases()
                if not case.group.is_done
                for member in case.group.open_members()
            ),
            in_hand=tuple(self._in_hand_entry(job, now) for job in self._workbench.replies.all()),
        )

    def _asked_entry(self, case: PendingJob, member: JobMember, now: float) -> JobEntry:
        group = case.group
        state: JobState = "sent" if member.is_asked else "waiting"
        return JobEntry(
            job_id=group.job_id,
            wire_id=member.wire_id,
            name=short(group.params.name),
            requester=self.address,
            worker=member.worker,
            age_s=now - case.since,
            state=state,
            label=short(group.label),
            progress=progress_of(member.progress),
        )

    def _in_hand_entry(self, job: RunningJob, now: float) -> JobEntry:
        request = job.request
        return JobEntry(
            job_id=request.job_id,
            wire_id=request.job_id,
            name=short(request.job_name),
            requester=request.source,
            worker=self.address,
            age_s=now - job.since,
            state=job.state,
            progress=progress_of(job.progress),
        )

    async def _take_cancel_request(self, message: BusJobCancelRequestMessage) -> None:
        group = self.job_groups.get(message.job_id)
        outcome: CancelOutcome = "unknown"
        if group is not None and not group.is_done:
            reason = message.reason or f"asked by {message.source}"
            done = await self.request_cancel_job_group(message.job_id, reason=reason)
            outcome = "cancelled" if done else "not cancellable"
        await self._transmit_quietly(
            BusJobCancelResponseMessage(
                source=self.address,
                target=message.source,
                job_id=message.job_id,
                outcome=outcome,
            )
        )
