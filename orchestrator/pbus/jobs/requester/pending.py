"""The open jobs of a requester: which group and which worker a message is about."""

import asyncio

from pbus.jobs.group import JobGroup, JobMember
from pbus.names import group_of

Key = tuple[str, str]  # job id on the wire, worker


class PendingJob:
    """One group and what is kept about it while it is open.

    Attributes:
        since: When it was asked for, by the loop's clock.
        deadline: When its time is up, by the same clock; None means never.
        timer: Ends it then.
        grace: Ends the wait for events that an urgent answer overtook.
        cancels: Sends its workers their cancels.
        is_concluded: Whether its end has been dealt with.
    """

    def __init__(self, group: JobGroup) -> None:
        self.group = group
        self.since = asyncio.get_running_loop().time()
        self.deadline: float | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.grace: asyncio.TimerHandle | None = None
        self.cancels: asyncio.Task[None] | None = None
        self.is_concluded = False
        self._asked: set[Key] = set()

    def wire_id(self, worker: str) -> str:
        """The id to ask this worker by: the job's own, but never the same twice.

        Else a late answer to an earlier request would pass for the answer to this one.
        """
        wire_id, attempt = self.group.job_id, 1
        while (wire_id, worker) in self._asked:
            attempt += 1
            wire_id = f"{self.group.job_id}~{attempt}"
        self._asked.add((wire_id, worker))
        return wire_id

    def stop_timers(self) -> None:
        """Let nothing happen to it later."""
        for handle in (self.timer, self.grace):
            if handle is not None:
                handle.cancel()
        self.timer = self.grace = None


class PendingJobs:
    """All open cases, found by job id, or by what a message says."""

    def __init__(self) -> None:
        self._by_id: dict[str, PendingJob] = {}
        self._by_key: dict[Key, tuple[PendingJob, JobMember]] = {}

    def add(self, group: JobGroup) -> PendingJob:
        """Open a case."""
        case = self._by_id[group.job_id] = PendingJob(group)
        return case

    def get(self, job_id: str) -> PendingJob | None:
        """The case of a job."""
        return self._by_id.get(job_id)

    def all(self) -> list[PendingJob]:
        """All cases, oldest first."""
        return list(self._by_id.values())

    def groups(self) -> dict[str, JobGroup]:
        """All groups by job id."""
        return {job_id: case.group for job_id, case in self._by_id.items()}

    def expect(self, case: PendingJob, member: JobMember) -> None:
        """From now on messages of whom was asked about this job belong to it."""
        self._by_key[member.wire_id, member.address] = (case, member)

    def unexpect(self, member: JobMember) -> bool:
        """From now on they do not; whether they did."""
        return self._by_key.pop((member.wire_id, member.address), None) is not None

    def find(self, job_id: str, source: str) -> tuple[PendingJob, JobMember] | None:
        """Whom a message is about; None when the job is over or its sender was never asked."""
        name = source.partition("@")[0]  # a child's is name@runner
        found = self._by_key.get((job_id, name))
        if found is None and (group := group_of(name)) is not None:
            found = self._by_key.get((job_id, group))
            if found is not None:
                found[1].worker = name  # now we know which of the replicas it is
        return found

    def asked_of(self, worker: str, incarnation: str) -> list[tuple[PendingJob, JobMember]]:
        """What one life of a worker has not answered yet, and never will."""
        return [
            (case, member)
            for case, member in self._by_key.values()
            if member.is_open
            and not member.is_kept
            and (member.worker, member.incarnation) == (worker, incarnation)
        ]

    def remove(self, case: PendingJob) -> None:
        """Close a case: nothing of it is kept."""
        case.stop_timers()
        self._by_id.pop(case.group.job_id, None)
        for member in case.group.members.values():
            self.unexpect(member)
