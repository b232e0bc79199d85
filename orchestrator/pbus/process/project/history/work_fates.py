"""Fate of the work that an ended process had: job by job, message by message, as far as it is known."""

from collections.abc import Collection, Iterable, Iterator
from typing import Final, Literal

import msgspec

from pbus.messages import BusMessage
from pbus.names import names_of
from pbus.process.project.history.capsule import Capsule, OpenJob
from pbus.process.project.history.traffic_history import KeptMessage
from pbus.trace_context import parent_span_id, span_id_of

LOOK_ON_S: Final = 600.0  # after the end; what happens later is of other work
_ATTEMPT: Final = "~"  # between a job's id and the number of a later attempt
_CUT_S: Final = 1.0  # a handler's begin, by another clock, may be so much before its message

Fate = Literal[
    "answered", "asked again", "cancelled", "abandoned", "handled", "interrupted", "lost", "stored",
    "dead-lettered", "unknown",
]  # fmt: skip


class WorkFate(msgspec.Struct, frozen=True, kw_only=True):
    """A job or a message that an ended process had not settled.

    Attributes:
        kind: A job that it was asked for or had asked for, or a message to it.
        id: Of the job, or of the message.
        type: Of the message; "" for a job.
        source: The requester, or the sender.
        target: The worker that was asked, or sent to.
        time: Of the request or the message, Unix seconds.
        fate: "answered", "asked again" or "cancelled" (`by` has whose answer, which worker, who
            cancelled); "abandoned": its requester is gone, its worker cancels it; "handled": a
            handler sent something because of it; "interrupted": its handler was cut off; "lost" with
            the process; "stored": it goes back into its queue; "dead-lettered"; "unknown": it came
            after the last heartbeat, or none was seen.
        by: See `fate`; "" for none.
        status: Of an answer.
    """

    kind: Literal["job", "message"]
    id: str
    type: str = ""
    source: str
    target: str
    time: float
    fate: Fate
    by: str = ""
    status: str = ""


def work_fates(
    capsule: Capsule, later: Iterable[KeptMessage], dead_letters: Collection[str] = ()
) -> list[WorkFate]:
    """The fate of the open jobs and unsettled messages of a capsule.

    Args:
        capsule: Its traffic is bounded, and so is the result.
        later: Messages that passed after the end, in order; those of LOOK_ON_S will do.
        dead_letters: Ids of messages that are dead letters now.
    """
    if capsule.traffic is None:
        return []
    seen = _Later(later)
    jobs = [_job_fate(job, capsule, seen, dead_letters) for job in capsule.traffic.jobs]
    sent = _Later(capsule.traffic.sent)
    open_ = (_message_fate(*one, capsule, (sent, seen), dead_letters) for one in _open(capsule))
    return [*jobs, *(one for one in open_ if one is not None)]


class _Later:
    """Messages that passed, by the job and by the message because of which they were sent."""

    def __init__(self, messages: Iterable[KeptMessage]) -> None:
        self.of_job: dict[str, list[KeptMessage]] = {}
        self.because_of: dict[str, str] = {}
        for one in messages:
            if one.job_id is not None:
                self.of_job.setdefault(one.job_id.partition(_ATTEMPT)[0], []).append(one)
            elif (span := parent_span_id(one)) is not None:
                self.because_of.setdefault(span, one.source)


def _job_fate(
    job: OpenJob, capsule: Capsule, later: _Later, dead_letters: Collection[str]
) -> WorkFate:
    fate = _fate_at_end(job, capsule, dead_letters)
    by = status = ""
    for one in later.of_job.get(job.job_id.partition(_ATTEMPT)[0], ()):
        if one.job_id == job.job_id and not _is_about(one, job.worker):
            continue  # it is of another member of a group, which share the id
        if one.type.startswith("BusJobRequest"):
            fate, by = "asked again", one.target or ""
        elif one.type.startswith("BusJobCancel"):
            fate, by = "cancelled", one.source
        elif one.type.startswith(("BusJobResponse", "BusJobStreamEnd")):
            fate, by, status = "answered", one.source, one.status or "completed"
    return WorkFate(
        kind="job", id=job.job_id, source=job.requester, target=job.worker, time=job.since,
        fate=fate, by=by, status=status,
    )  # fmt: skip


def _is_about(message: KeptMessage, worker: str) -> bool:
    """Whether a worker is either end of a message, or of the group that is."""
    return worker in {*names_of(message.source), *names_of(message.target or "")}


def _fate_at_end(job: OpenJob, capsule: Capsule, dead_letters: Collection[str]) -> Fate:
    if job.requester in capsule.workers and job.worker not in capsule.workers:
        return "abandoned"
    if job.message_id in dead_letters:
        return "dead-lettered"
    return "stored" if capsule.open.is_stored else "lost"


def _open(capsule: Capsule) -> Iterator[tuple[KeptMessage, Fate]]:
    """The messages that may not have been settled, oldest first, with their fate in the process.

    Messages are handled in order: those that waited at the last heartbeat are the newest before it.
    """
    messages, beat = _data_of(capsule), capsule.open.beat
    if beat is None:
        yield from ((one, "unknown") for one in messages)
        return
    before = [one for one in messages if one.time <= beat]
    count = len(before) - min(len(before), capsule.open.queued)
    taken, waiting = before[:count], before[count:]
    yield from ((one, "interrupted") for one in taken if _is_in_handler(one, capsule, taken))
    yield from ((one, "lost") for one in waiting)
    yield from ((one, "unknown") for one in messages if one.time > beat)


def _data_of(capsule: Capsule) -> list[KeptMessage]:
    """The messages that were sent to the process, but for those of jobs and urgent ones."""
    names = {name for worker in capsule.workers for name in names_of(worker)}
    received = () if capsule.traffic is None else capsule.traffic.received
    return [one for one in received if _is_data(one, names)]


def _is_data(message: KeptMessage, names: Collection[str]) -> bool:
    known = BusMessage.catalogue.get(message.type)
    is_job = message.job_id is not None or (known is not None and known.category == "job")
    return message.target in names and not message.is_urgent and not is_job


def _is_in_handler(message: KeptMessage, capsule: Capsule, taken: list[KeptMessage]) -> bool:
    """Whether it is the newest one that a running handler may have been called with."""
    for handler in capsule.open.handlers.values():
        of = [
            one
            for one in taken
            if (one.type, one.source) == (handler.type, handler.source)
            and one.time <= handler.since + _CUT_S
        ]
        if of and of[-1] is message:
            return True
    return False


def _message_fate(
    message: KeptMessage,
    within: Fate,
    capsule: Capsule,
    seen: tuple[_Later, _Later],
    dead_letters: Collection[str],
) -> WorkFate | None:
    """The fate of a message; None where it was handled before the end."""
    sent, later = (one.because_of.get(span_id_of(message)) for one in seen)
    fate, by = within, ""
    if later is not None:
        fate, by = "handled", later
    elif message.id in dead_letters:
        fate = "dead-lettered"
    elif sent is not None and within == "unknown":
        return None
    elif capsule.open.is_stored:
        fate = "stored"
    return WorkFate(
        kind="message", id=message.id, type=message.type, source=message.source,
        target=message.target or "", time=message.time, fate=fate, by=by,
    )  # fmt: skip
