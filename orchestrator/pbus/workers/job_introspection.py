"""Telling others which of a worker's jobs are open, and cancelling one for them."""

import asyncio
from typing import ClassVar

from pbus.jobs.executor.running import RunningJob
from pbus.jobs.listing import BusJobCancelRequestMessage, JobEntry, OpenJobs, progress_of, short
from pbus.jobs.requester.requested_jobs import cancel_for_another, requested_jobs
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
            asked=requested_jobs(self._job_desk, self.address),
            in_hand=tuple(self._in_hand_entry(job, now) for job in self._workbench.replies.all()),
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
        await self._transmit_quietly(cancel_for_another(self._desk, self.address, message))
