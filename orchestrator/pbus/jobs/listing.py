"""Listing of open jobs: queries, answers of runners, and the merge of the answers.

A job is listed by its requester and by its worker; either may not answer.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import msgspec

from pbus.messages import BusJobMessage, BusSystemMessage, Lane

JobState = Literal["waiting", "sent", "queued", "running", "pending"]
CancelOutcome = Literal["cancelled", "unknown", "not cancellable"]

MAX_TEXT = 200  # characters of a name or a label: people read it
_WHOLE = 100.0  # percent


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a job, from its last update."""

    done: int | float | None = None
    total: int | float | None = None
    percent: int | float | None = None


class JobEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One worker's part of an open job.

    Attributes:
        job_id: The requester's id.
        wire_id: The worker's id; another one for each repeated request.
        worker: The worker that does it, or is to do it.
        age_s: Seconds since it was requested.
        state: "waiting" for its worker to be ready, "sent", "queued" for a slot, "running", or
            "pending": its handler has ended without an answer.
    """

    job_id: str
    wire_id: str
    name: str | None
    requester: str
    worker: str
    age_s: float
    state: JobState
    label: str | None = None
    progress: JobProgress | None = None


class OpenJobs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The open jobs of some workers.

    Attributes:
        requested: Those that they requested.
        accepted: Those that they accepted.
    """

    requested: tuple[JobEntry, ...] = ()
    accepted: tuple[JobEntry, ...] = ()


class BusJobsRequestMessage(BusSystemMessage):
    """Asks every runner for the open jobs of its workers."""


class BusJobsResponseMessage(BusSystemMessage):
    """A runner's answer, or a part of it.

    Attributes:
        parts: The number of messages of the whole answer.
    """

    runner: str
    jobs: OpenJobs
    parts: int = 1


class BusJobCancelRequestMessage(BusJobMessage):
    """Asks the requester of a job to cancel it."""

    lane: ClassVar[Lane] = Lane.SYSTEM
    is_stored: ClassVar[bool] = False  # it is about now

    reason: str | None = None


class BusJobCancelResponseMessage(BusJobMessage):
    """The requester's answer to a BusJobCancelRequestMessage."""

    lane: ClassVar[Lane] = Lane.SYSTEM
    is_stored: ClassVar[bool] = False

    outcome: CancelOutcome


def progress_of(update: dict[str, Any] | None) -> JobProgress | None:
    """The numbers in an update: done and total, or percent; None when it has neither."""
    if not update:
        return None
    done, total, percent = (_number(update.get(key)) for key in ("done", "total", "percent"))
    if percent is None and done is not None and total:
        percent = round(_WHOLE * done / total, 1)
    if percent is None and (done is None or total is None):
        return None
    return JobProgress(done=done, total=total, percent=percent)


def _number(value: Any) -> int | float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def short(text: str | None) -> str | None:
    """A text cut to MAX_TEXT characters."""
    return text if text is None or len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def merge_jobs(answers: Iterable[OpenJobs]) -> list[JobEntry]:
    """Merge answers: each part of a job once, oldest first; the worker knows its progress best."""
    requested: dict[tuple[str, str], JobEntry] = {}
    done: dict[tuple[str, str], JobEntry] = {}
    for answer in answers:
        requested.update({_key(entry): entry for entry in answer.requested})
        done.update({_key(entry): entry for entry in answer.accepted})
    merged = [_merge(requested.pop(key, None), entry) for key, entry in done.items()]
    return sorted([*merged, *requested.values()], key=lambda entry: -entry.age_s)


def _key(entry: JobEntry) -> tuple[str, str]:
    return entry.wire_id, entry.worker.partition("@")[0]  # a child's name@runner


def _merge(requested: JobEntry | None, done: JobEntry) -> JobEntry:
    if requested is None:
        return done
    return msgspec.structs.replace(
        done,
        job_id=requested.job_id,
        label=requested.label,
        age_s=max(requested.age_s, done.age_s),
        progress=done.progress or requested.progress,
    )
