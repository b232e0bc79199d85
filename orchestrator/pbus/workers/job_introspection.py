"""Listing the open jobs of a worker, and cancelling its requests for other processes."""

import asyncio
from typing import ClassVar

from pbus.jobs.executor.running import RunningJob
from pbus.jobs.listing import BusJobCancelRequestMessage, JobEntry, OpenJobs, progress_of, short
from pbus.jobs.requester.requested_jobs import cancel_for_another, requested_jobs
from pbus.messages import BusMessage
from pbus.workers.job_handling import JobHandlingMixin
from pbus.workers.job_requesting import JobRequestingMixin


class JobListingMixin(JobHandlingMixin, JobRequestingMixin):
    """Adds the list of open jobs, requested and accepted ones."""

    RECEIVES: ClassVar[dict[type[BusMessage], str]] = {
        BusJobCancelRequestMessage: "_receive_cancel_request"
    }

    def open_jobs(self) -> OpenJobs:
        """The open jobs on both sides; none before the worker is attached."""
        now = asyncio.get_running_loop().time()
        client, executor = self._made_job_client, self._made_job_executor
        jobs = [] if executor is None else executor.responder.all()
        return OpenJobs(
            requested=() if client is None else requested_jobs(client, self.address),
            accepted=tuple(self._accepted_entry(job, now) for job in jobs),
        )

    def _accepted_entry(self, job: RunningJob, now: float) -> JobEntry:
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

    async def _receive_cancel_request(self, message: BusJobCancelRequestMessage) -> None:
        answer = cancel_for_another(self._job_client, self.address, message)
        await self._bus_send_best_effort(answer)
