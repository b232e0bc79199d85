"""Listing the jobs of a requester for other processes, and cancelling one for them."""

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
    """List the open jobs of a client.

    Args:
        client: The requester's.
        address: The requester's.

    Returns:
        An entry for each worker that has not answered.
    """
    now = asyncio.get_running_loop().time()
    return tuple(
        _requested_entry(job, member, address, now)
        for job in client.pending_jobs()
        if not job.group.is_done
        for member in job.group.open_members()
    )


def _requested_entry(job: PendingJob, member: JobMember, address: str, now: float) -> JobEntry:
    group = job.group
    state: JobState = "sent" if member.is_asked else "waiting"
    return JobEntry(
        job_id=group.job_id,
        wire_id=member.wire_id,
        name=short(group.params.name),
        requester=address,
        worker=member.worker,
        age_s=now - job.since,
        state=state,
        label=short(group.label),
        progress=progress_of(member.progress),
    )


def cancel_for_another(
    client: JobClient, address: str, message: BusJobCancelRequestMessage
) -> BusJobCancelResponseMessage:
    """Cancel a job for another process.

    Args:
        client: The requester's.
        address: The requester's.
        message: The other process' request.

    Returns:
        The answer to that process.
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
