"""The last messages of each worker in memory, and the jobs that wait for an answer."""

import collections
from collections.abc import Collection, Iterable
from typing import Final

from pbus.names import names_of
from pbus.process.project.history.capsule import OpenJob, Traffic
from pbus.process.project.history.traffic_history import KeptMessage

_OF_NAME: Final = 20
_MAX_NAMES: Final = 2_000  # some 15 MB; the one that was silent for longest is forgotten
_MAX_JOBS: Final = 1_000
_TOLD_JOBS: Final = 100  # in a capsule

_Asked = tuple[str, str]  # the job's id, which a group's members share, and the worker
_Messages = collections.OrderedDict[str, collections.deque[KeptMessage]]


class RecentTraffic:
    """Keeps the last messages from and to each name, bounded."""

    def __init__(self) -> None:
        self._received: _Messages = collections.OrderedDict()
        self._sent: _Messages = collections.OrderedDict()
        self._to_all: collections.deque[KeptMessage] = collections.deque(maxlen=_OF_NAME)
        self._jobs: dict[_Asked, OpenJob] = {}
        self._ended: dict[_Asked, bool] = {}  # whose request passes later than their end
        self.missed = 0

    def add(self, message: KeptMessage) -> None:
        """Add a message that passed."""
        if message.target is None:
            self._to_all.append(message)
        else:
            _add(self._received, message.target, message)
        _add(self._sent, message.source, message)
        if message.job_id is not None:
            self._follow_job(message, message.job_id)

    def of(self, workers: Iterable[str]) -> Traffic:
        """Return the last messages of workers of one process that has ended, and its open jobs."""
        workers = list(workers)
        names = {name for worker in workers for name in names_of(worker)}
        jobs = self._take_jobs(workers, names)
        received = [one for name in names for one in self._received.get(name, ())]
        sent = [one for name in names for one in self._sent.get(name, ())]
        return Traffic(
            received=_newest([*received, *self._to_all]),
            sent=_newest(sent),
            jobs=tuple(jobs[-_TOLD_JOBS:]),
            missed=self.missed,
        )

    def _take_jobs(self, workers: list[str], names: set[str]) -> list[OpenJob]:
        """The open jobs of either side; those that a worker was asked for end with it."""
        jobs = [job for job in self._jobs.values() if names & {job.worker, job.requester}]
        for job in jobs:
            if job.worker in workers:  # no later capsule has it
                del self._jobs[job.job_id, job.worker]
        return jobs

    def _follow_job(self, message: KeptMessage, job_id: str) -> None:
        if message.type.startswith("BusJobRequest") and message.target is not None:
            self._begin_job(message, job_id, message.target)
        elif message.type.startswith(("BusJobResponse", "BusJobStreamEnd")):
            self._end_job(job_id, names_of(message.source))
        elif message.type.startswith("BusJobCancel") and message.target is not None:
            self._end_job(job_id, names_of(message.target))

    def _begin_job(self, request: KeptMessage, job_id: str, worker: str) -> None:
        if self._ended.pop((job_id, worker), False):
            return
        self._jobs[job_id, worker] = OpenJob(
            job_id=job_id, requester=request.source, worker=worker, since=request.time,
            message_id=request.id,
        )  # fmt: skip
        if len(self._jobs) > _MAX_JOBS:
            del self._jobs[next(iter(self._jobs))]

    def _end_job(self, job_id: str, workers: Collection[str]) -> None:
        """End a job; where its request has not passed yet, it will not begin one."""
        found = [self._jobs.pop((job_id, worker), None) for worker in workers]
        if any(found):
            return
        for worker in workers:
            self._ended[job_id, worker] = True
            if len(self._ended) > _MAX_JOBS:
                del self._ended[next(iter(self._ended))]


def _add(messages: _Messages, name: str, message: KeptMessage) -> None:
    found = messages.get(name)
    if found is None:
        found = messages[name] = collections.deque(maxlen=_OF_NAME)
        if len(messages) > _MAX_NAMES:
            messages.popitem(last=False)
    else:
        messages.move_to_end(name)
    found.append(message)


def _newest(messages: Iterable[KeptMessage]) -> tuple[KeptMessage, ...]:
    return tuple(sorted(messages, key=lambda one: one.time)[-_OF_NAME:])
