"""Which jobs are open: what runners answer to those who ask, and folding the answers together.

A job is known twice, to whoever asked for it and to whoever does it; either may be silent.
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
    """How far a job is, as its last update said."""

    done: int | float | None = None
    total: int | float | None = None
    percent: int | float | None = None


class JobEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One worker's part of an open job.

    Attributes:
        job_id: What its requester calls it.
        wire_id: What its worker calls it; another after it was asked again.
        worker: Who does it, or is to do it.
        age_s: Since it was asked for, seconds.
        state: "waiting" for its worker to be ready, "sent", "queued" until it is its turn, "running",
            or "pending": to be answered later.
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
        asked: Those they asked for.
        in_hand: Those they do.
    """

    asked: tuple[JobEntry, ...] = ()
    in_hand: tuple[JobEntry, ...] = ()


class BusJobsRequestMessage(BusSystemMessage):
    """Asks every runner for the open jobs of its workers."""


class BusJobsResponseMessage(BusSystemMessage):
    """A runner's answer, or a part of it.

    Attributes:
        parts: How many messages the whole answer has.
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
    """What a requester did about it."""

    lane: ClassVar[Lane] = Lane.SYSTEM
    is_stored: ClassVar[bool] = False

    outcome: CancelOutcome


def progress_of(update: dict[str, Any] | None) -> JobProgress | None:
    """What an update says in numbers: done and total, or percent; None when it says neither."""
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
    """A text of people's length."""
    return text if text is None or len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def merge_jobs(answers: Iterable[OpenJobs]) -> list[JobEntry]:
    """Each part of a job once, oldest first: the worker knows best how far it is."""
    asked: dict[tuple[str, str], JobEntry] = {}
    done: dict[tuple[str, str], JobEntry] = {}
    for answer in answers:
        asked.update({_key(entry): entry for entry in answer.asked})
        done.update({_key(entry): entry for entry in answer.in_hand})
    merged = [_merge(asked.pop(key, None), entry) for key, entry in done.items()]
    return sorted([*merged, *asked.values()], key=lambda entry: -entry.age_s)


def _key(entry: JobEntry) -> tuple[str, str]:
    return entry.wire_id, entry.worker.partition("@")[0]  # a child's name@runner


def _merge(asked: JobEntry | None, done: JobEntry) -> JobEntry:
    if asked is None:
        return done
    return msgspec.structs.replace(
        done,
        job_id=asked.job_id,
        label=asked.label,
        age_s=max(asked.age_s, done.age_s),
        progress=done.progress or asked.progress,
    )
