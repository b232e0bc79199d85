"""The answers of a worker to jobs, as they were recorded."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from pbus.client.recordings.replay_plan import ANSWERS, ENDS, REQUESTS, SaidMessage


class RecordedJob(msgspec.Struct):
    """A job, and what its worker sent for it.

    Attributes:
        answers: Updates, pieces and the end, in order.
    """

    request: SaidMessage
    answers: list[SaidMessage] = msgspec.field(default_factory=list)

    @property
    def is_answered(self) -> bool:
        """Whether its end was recorded."""
        return any(said.header.type in ENDS for said in self.answers)


class JobScript:
    """The jobs of a recording, each found once by a request that is like it.

    Args:
        messages: Of the recording, in order.
        workers: Whose answers are needed.
    """

    def __init__(self, messages: Iterable[SaidMessage], workers: Iterable[str]) -> None:
        names = set(workers)
        open_jobs: dict[str, RecordedJob] = {}
        self._jobs: dict[tuple[str, str, str], list[RecordedJob]] = defaultdict(list)
        for said in messages:
            job_id = said.job_id
            if job_id is None:
                continue
            if said.header.type in REQUESTS:
                open_jobs[job_id] = RecordedJob(said)
            elif said.header.type in ANSWERS and said.header.source in names:
                job = open_jobs.get(job_id)
                if job is not None:
                    job.answers.append(said)
                    if len(job.answers) == 1:
                        name = str(job.request.fields.get("job_name"))
                        key = (said.header.source, job.request.header.source, name)
                        self._jobs[key].append(job)

    def take(
        self, worker: str, requester: str, name: str | None, payload: Any
    ) -> RecordedJob | None:
        """Take the recorded job that a request is like: of the same payload, else the next one.

        Returns:
            None where the recording has none left.
        """
        jobs = self._jobs.get((worker, requester, str(name)), [])
        wanted = _canonical(payload)
        like = [job for job in jobs if _canonical(job.request.fields.get("payload")) == wanted]
        found = next(iter(like or jobs), None)
        if found is not None:
            jobs.remove(found)
        return found


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
