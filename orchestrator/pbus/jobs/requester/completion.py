"""How a worker's jobs at others end: once, with everybody told, and nothing left behind."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from pbus.errors import JobCancelledError, JobError, JobTimeoutError
from pbus.jobs.context import WorkerContext
from pbus.jobs.group import JobGroup, JobGroupResponse, JobMember
from pbus.jobs.replicas import Replicas
from pbus.jobs.requester.pending import PendingJob, PendingJobs
from pbus.messages import BusJobCancelMessage, BusJobResponseMessage, JobStatus
from pbus.registry import WorkerRegistry

logger = logging.getLogger(__name__)

EVENT_GRACE_S = 5.0  # without news for so long, events that an urgent answer overtook are lost
_LOOK_S = 0.5  # how often it is seen whether a worker is still there to answer

HookCall = tuple[str, Any]  # a hook, and what it is told


class JobCompletion:
    """Concludes cases: cancels workers that are still at it, waits for late events, forgets."""

    def __init__(self, links: WorkerContext, cases: PendingJobs, replicas: Replicas) -> None:
        self._links = links
        self._cases = cases
        self._replicas = replicas

    def conclude(
        self, case: PendingJob, cause: BusJobResponseMessage | None = None
    ) -> list[HookCall]:
        """Deal with the end of a group, once it is over; who is to be told what."""
        group = case.group
        if not group.is_done or case.is_concluded:
            return []
        case.is_concluded = True
        if case.timer is not None:
            case.timer.cancel()
        late = [member for member in group.open_members() if self.release(member)]
        if late:
            work, name = self._send_cancels(late, _reason(group)), f"{self._links.name} job cancels"
            case.cancels = self._links.spawn(work, name)
        self.settle(case)
        if group.error is None:
            return [("on_job_completed", JobGroupResponse(group.job_id, group.responses))]
        return [("on_job_error", cause or self._error_message(group.error))]

    def release(self, member: JobMember) -> bool:
        """Expect nothing more of a worker that has not answered; whether something was."""
        if not self._cases.unexpect(member):
            return False
        self._replicas.end(member.address)
        return True

    def settle(self, case: PendingJob) -> None:
        """Close the group's events and forget it, unless events are still on their way."""
        if case.group.is_settled:
            self._close(case)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + EVENT_GRACE_S
        if case.deadline is not None:
            due = min(due, case.deadline)
        self.stop_grace(case)
        case.grace = loop.call_at(due, self._end_grace, case)

    def stop_grace(self, case: PendingJob) -> None:
        """Wait for late events without a limit, until settle() is called again."""
        if case.grace is not None:
            case.grace.cancel()
            case.grace = None

    def tell_soon(self, notices: Sequence[HookCall]) -> None:
        """Tell hooks without having anybody wait for them."""
        if notices:
            self._links.spawn(self.tell(notices), f"{self._links.name} job hooks")

    async def tell(self, notices: Sequence[HookCall]) -> None:
        """Tell hooks."""
        for hook, value in notices:
            await self._links.call_hook(hook, value)

    def _end_grace(self, case: PendingJob) -> None:
        is_late = case.deadline is not None and asyncio.get_running_loop().time() >= case.deadline
        stats = self._links.bus.stats(self._links.name)
        if not is_late and stats.queued > stats.held:
            self.settle(case)  # they may wait behind something slow
            return
        logger.warning(
            "%s: %d events of job %s were lost on the way",
            self._links.name, case.group.missing_events, case.group.job_id,
        )  # fmt: skip
        self._close(case)

    def _close(self, case: PendingJob) -> None:
        if case.group.events is not None:
            case.group.events.close()
        if case.cancels is None or case.cancels.done():
            self._cases.remove(case)
        else:  # kept until then: whoever leaves the job waits for it
            case.stop_timers()
            case.cancels.add_done_callback(lambda _: self._cases.remove(case))

    async def _send_cancels(self, members: Sequence[JobMember], reason: str | None) -> None:
        """Tell workers that nobody waits any more."""
        cancels = [
            BusJobCancelMessage(
                source=self._links.address,
                target=worker,
                job_id=member.wire_id,
                reason=reason,
            )
            for member in members
            for worker in self._replicas.working_on(member)
        ]
        results = await asyncio.gather(*map(self._links.send, cancels), return_exceptions=True)
        for cancel, result in zip(cancels, results, strict=True):
            if isinstance(result, BaseException):
                logger.warning("%s could not send %s: %s", self._links.name, cancel, result)

    def _error_message(self, error: JobError) -> BusJobResponseMessage:
        """What stands for the answer that never came, so that one hook learns of every end."""
        was_cancelled = isinstance(error, JobCancelledError)
        return BusJobResponseMessage(
            source=error.worker,
            target=self._links.address,
            job_id=error.job_id,
            status=JobStatus.CANCELLED if was_cancelled else JobStatus.ERROR,
            response={"error": error.message, "type": type(error).__name__},
        )


async def until_over(groups: Iterable[JobGroup], registry: WorkerRegistry) -> None:
    """Wait until these jobs are over, as far as there are workers to do them."""

    def is_worked_on(group: JobGroup) -> bool:
        members = group.open_members()
        is_there = any(one.is_asked and registry.is_there(one.worker) for one in members)
        return is_there and not group.is_done

    while open_groups := [group for group in groups if is_worked_on(group)]:
        waits = [asyncio.ensure_future(group.wait()) for group in open_groups]
        try:
            await asyncio.wait(waits, timeout=_LOOK_S)
        finally:
            for wait in waits:
                wait.cancel()
        groups = open_groups


def _reason(group: JobGroup) -> str | None:
    """Why workers are cancelled."""
    error = group.error
    if isinstance(error, JobTimeoutError):
        return "timeout"
    if isinstance(error, JobCancelledError):
        return error.reason
    return None if error is None else error.message
