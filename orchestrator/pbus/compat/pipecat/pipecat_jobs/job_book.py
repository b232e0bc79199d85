"""The open jobs of a Pipecat runner's workers, as `pbus jobs` lists and cancels them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from pbus.compat.pipecat import theirs
from pbus.compat.pipecat.conversion import WireMessage
from pbus.jobs.listing import (
    BusJobCancelResponseMessage,
    JobEntry,
    JobProgress,
    OpenJobs,
    progress_of,
    short,
)

_MOST = 10_000  # jobs whose age is known


class JobBook:
    """Knows since when jobs are open, and how far they are.

    Args:
        runner: Hosts the workers.
        address_of: Returns the address of a worker by its name.
    """

    def __init__(self, runner: theirs.WorkerRunner, address_of: Callable[[str], str]) -> None:
        self._runner = runner
        self._address_of = address_of
        self._since: OrderedDict[str, float] = OrderedDict()
        self._progress: dict[str, JobProgress] = {}

    def note(self, message: Any) -> None:
        """Take note of a message about a job, whichever way it goes."""
        if isinstance(message, theirs.BusJobRequestMessage):
            self._since.setdefault(message.job_id, asyncio.get_running_loop().time())
            if len(self._since) > _MOST:
                oldest, _ = self._since.popitem(last=False)
                self._progress.pop(oldest, None)
        elif message_is_update(message):
            progress = progress_of(message.update if isinstance(message.update, dict) else None)
            if progress is not None and message.job_id in self._since:
                self._progress[message.job_id] = progress

    def open_jobs(self) -> OpenJobs:
        """All open jobs: those that workers here asked for, and those that they do."""
        workers = [self._runner.get_worker(name) for name in theirs.started_names(self._runner)]
        return OpenJobs(
            requested=tuple(one for worker in workers for one in self._requested(worker)),
            accepted=tuple(one for worker in workers for one in self._accepted(worker)),
        )

    def _requested(self, worker: Any) -> Iterator[JobEntry]:
        for job_id, group in worker.job_groups.items():
            for name in group.worker_names:
                if name not in group.responses:
                    yield self._entry(job_id, None, worker.name, name, label=short(group.label))

    def _accepted(self, worker: Any) -> Iterator[JobEntry]:
        for job_id, request in worker.active_jobs.items():
            yield self._entry(job_id, request.job_name, request.source, worker.name)

    def _entry(
        self,
        job_id: str,
        name: str | None,
        requester: str,
        worker: str,
        *,
        label: str | None = None,
    ) -> JobEntry:
        now = asyncio.get_running_loop().time()
        return JobEntry(
            job_id=job_id,
            wire_id=job_id,
            name=short(name),
            requester=self._known(requester),
            worker=self._known(worker),
            age_s=now - self._since.get(job_id, now),
            state="running" if label is None and name is not None else "sent",
            label=label,
            progress=self._progress.get(job_id),
        )

    def _known(self, name: str) -> str:
        """The address of a worker here; the name of another one is its address."""
        return name if self._runner.get_worker(name) is None else self._address_of(name)

    async def cancel(
        self, requester: str, wire: WireMessage, *, source: str
    ) -> BusJobCancelResponseMessage:
        """Cancel a job for a client; by its requester, as the workers that do it listen to no other.

        Args:
            requester: The worker's name.
            wire: The client's request.
            source: The worker's address.

        Returns:
            The answer.
        """
        job_id, reason = str(wire.values.get("job_id")), wire.values.get("reason")
        reason = reason if isinstance(reason, str) else None
        worker: Any = self._runner.get_worker(requester)
        is_open = worker is not None and job_id in worker.job_groups
        done = is_open and await worker.request_cancel_job_group(job_id, reason=reason)
        return BusJobCancelResponseMessage(
            source=source,
            target=wire.source,
            job_id=job_id,
            outcome="cancelled" if done else "not cancellable" if is_open else "unknown",
        )


def message_is_update(message: Any) -> bool:
    """Whether a message tells of the progress of a job."""
    return isinstance(message, (theirs.BusJobUpdateMessage, theirs.BusJobUpdateUrgentMessage))
