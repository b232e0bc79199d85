"""What other processes may know and do about the jobs of a requester: list them, cancel one."""

import asyncio

from pbus.jobs.group import JobMember
from pbus.jobs.listing import (
    BusJobCancelRequestMessage,
    BusJobCancelResponseMessage,
    CancelOutcome,
    JobEntry,
    JobState,
    progress_of,
    short,
)
from pbus.jobs.requester.client import JobClient
from pbus.jobs.requester.pending import PendingJob


def requested_jobs(client: JobClient, address: str) -> tuple[JobEntry, ...]:
    """The open jobs that were asked for at a client, an entry for each worker at work.

    Args:
        client: The requester's.
        address: The requester.
    """
    now = asyncio.get_running_loop().time()
    return tuple(
        _requested_entry(case, member, address, now)
        for case in client.open_cases()
        if not case.group.is_done
        for member in case.group.open_members()
    )


def _requested_entry(case: PendingJob, member: JobMember, address: str, now: float) -> JobEntry:
    group = case.group
    state: JobState = "sent" if member.is_asked else "waiting"
    return JobEntry(
        job_id=group.job_id,
        wire_id=member.wire_id,
        name=short(group.params.name),
        requester=address,
        worker=member.worker,
        age_s=now - case.since,
        state=state,
        label=short(group.label),
        progress=progress_of(member.progress),
    )


def cancel_for_another(
    client: JobClient, address: str, message: BusJobCancelRequestMessage
) -> BusJobCancelResponseMessage:
    """Cancel a job because another process asks for it; the answer to that process.

    Args:
        client: The requester's.
        address: The requester.
        message: The other's request.
    """
    group = client.groups.get(message.job_id)
    outcome: CancelOutcome = "unknown"
    if group is not None and not group.is_done:
        reason = message.reason or f"asked by {message.source}"
        is_cancelled = group.cancellable and client.cancel(message.job_id, reason)
        outcome = "cancelled" if is_cancelled else "not cancellable"
    return BusJobCancelResponseMessage(
        source=address, target=message.source, job_id=message.job_id, outcome=outcome
    )
