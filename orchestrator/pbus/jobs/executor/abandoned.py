"""Accepted jobs whose requester is gone, or should have cancelled them and has not."""

import asyncio
from collections.abc import Callable

from pbus.bus.local.delivery import Delivery
from pbus.jobs.context import WorkerContext
from pbus.jobs.executor.responder import JobResponder
from pbus.jobs.executor.running import RunningJob
from pbus.messages import BusJobCancelMessage, BusJobRequestMessage
from pbus.registry import WorkerLostData
from pbus.trace_context import traceparent_after

OVERDUE_S = 5.0  # a requester cancels at its deadline; one that cannot is waited for so long
_SWEEP_S = 1.0

Cancel = Callable[[RunningJob, BusJobCancelMessage], None]


class AbandonedJobs:
    """Cancels jobs that no requester waits for.

    Args:
        context: The worker's.
        responder: Has the accepted jobs.
        cancel: Cancels a job as its requester would.

    Attributes:
        is_watching: Whether deadlines are checked.
    """

    def __init__(self, context: WorkerContext, responder: JobResponder, cancel: Cancel) -> None:
        self._context = context
        self._responder = responder
        self._cancel = cancel
        self.is_watching = False
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Check deadlines once a second for as long as there are jobs."""
        self.is_watching = True
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep_overdue)

    def close(self) -> None:
        """Stop checking deadlines."""
        self.is_watching = False
        if self._timer is not None:
            self._timer.cancel()

    def on_worker_lost(self, data: WorkerLostData) -> None:
        """Cancel the jobs that a lost incarnation requested; stored jobs are done all the same."""
        for job in self._responder.all():
            if not self._was_requested_by(job, data):
                continue
            if (window := self._responder.send_window(job)) is not None:
                window.on_reader_lost()
            if job.delivery is None:
                self._cancel_for_requester(job, f"its requester was lost: {data.reason}")

    def _was_requested_by(self, job: RunningJob, data: WorkerLostData) -> bool:
        _, at, runner = job.request.source.partition("@")
        if not at:
            return job.requester == data.incarnation != ""
        # Children have no leases: they are lost with the last root worker of their runner.
        registry = self._context.registry
        return runner == data.runner and not any(
            other is not None and other.runner == runner
            for other in map(registry.get, registry.remote_workers)
        )

    def _sweep_overdue(self) -> None:
        overdue = asyncio.get_running_loop().time() - OVERDUE_S
        jobs = self._responder.all()
        self.is_watching = False
        for job in jobs:
            if job.due is not None and job.due < overdue:
                self._cancel_for_requester(
                    job, "its time is up, and its requester did not cancel it"
                )
        if jobs:
            self.watch()

    def _cancel_for_requester(self, job: RunningJob, reason: str) -> None:
        request = job.request
        message = BusJobCancelMessage(
            source=request.source,
            target=self._context.address,
            job_id=request.job_id,
            reason=reason,
            traceparent=traceparent_after(request),
        )
        self._cancel(job, message)


def is_expired(request: BusJobRequestMessage, delivery: Delivery) -> bool:
    """Whether a stored request is so old that even its requester has given it up."""
    if request.deadline is None:
        return False
    age_s = asyncio.get_running_loop().time() - delivery.stored_at
    return age_s > request.deadline - request.time + OVERDUE_S
