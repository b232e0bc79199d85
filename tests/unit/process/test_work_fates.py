"""The fate of open jobs and unsettled messages, job by job and message by message."""

import pytest

from pbus.process.project.history.capsule import Capsule, OpenJob, OpenWork, Sequel, Traffic
from pbus.process.project.history.traffic_history import KeptMessage
from pbus.process.project.history.work_fates import WorkFate, work_fates
from pbus.running_handlers import RunningHandler
from pbus.trace_context import traceparent_after

ENDED = 100.0
JOB = OpenJob(job_id="j1", requester="mic", worker="stt.1", since=90.0, message_id="r1")


def kept(
    number: float, type_name: str = "FateNote", source: str = "mic", target: str = "stt.1",
    *, because_of: KeptMessage | None = None, **fields: str | bool,
) -> KeptMessage:  # fmt: skip
    """A message that passed at a time."""
    return KeptMessage(
        time=number, id=f"m{number:g}", type=type_name, source=source, target=target, size_bytes=9,
        traceparent=None if because_of is None else traceparent_after(because_of), **fields,
    )  # fmt: skip


def capsule(
    *received: KeptMessage, jobs: tuple[OpenJob, ...] = (), sent: tuple[KeptMessage, ...] = (),
    **open_work: object,
) -> Capsule:  # fmt: skip
    """One of stt.1, whose last heartbeat was 2 s before its end."""
    return Capsule(
        project="voice", run=1, session="s", worker="stt.1", workers=("stt.1",), pid=7,
        started=10.0, ready=11.0, ended=ENDED, start=1, reason="was killed by SIGKILL", code=None,
        signal="SIGKILL", is_told=False, error=None, sequel=Sequel("backoff", ""),
        open=OpenWork(**{"beat": 98.0, **open_work}),  # type: ignore[arg-type]
        traffic=Traffic(received=received, sent=sent, jobs=jobs),
    )  # fmt: skip


def short(fates: list[WorkFate]) -> list[str]:
    """Fates in short."""
    return [" ".join(filter(None, (one.id, one.fate, one.by, one.status))) for one in fates]


RESPONSE = kept(103.0, "BusJobResponseMessage", "stt.2", "mic", job_id="j1~2", status="completed")
AGAIN = kept(101.0, "BusJobRequestMessage", "mic", "stt.2", job_id="j1~2")
CANCEL = kept(104.0, "BusJobCancelMessage", "mic", "stt.2", job_id="j1~2")
MEMBER_ASKED = kept(101.0, "BusJobRequestMessage", "mic", "tts", job_id="j1")
MEMBER = kept(102.0, "BusJobResponseMessage", "tts", "mic", job_id="j1", status="completed")
MEMBER_CANCEL = kept(103.0, "BusJobCancelMessage", "mic", "tts", job_id="j1")
OTHER = kept(102.0, "BusJobResponseMessage", "stt.2", "mic", job_id="j11", status="completed")


@pytest.mark.parametrize(
    ("later", "is_stored", "dead", "expected"),
    [
        ([], False, set(), "lost"),
        ([OTHER], False, set(), "lost"),
        ([], True, set(), "stored"),
        ([], True, {"r1"}, "dead-lettered"),
        ([AGAIN], False, set(), "asked again stt.2"),
        ([AGAIN, OTHER, RESPONSE], False, set(), "answered stt.2 completed"),
        ([RESPONSE], True, {"another"}, "answered stt.2 completed"),
        ([AGAIN, CANCEL], False, set(), "cancelled mic"),
        ([MEMBER_ASKED, MEMBER, MEMBER_CANCEL], False, set(), "lost"),
    ],
)
def test_jobs(later: list[KeptMessage], is_stored: bool, dead: set[str], expected: str):
    """What passed later tells it; else it is as the delivery has it."""
    found = work_fates(capsule(jobs=(JOB,), is_stored=is_stored), later, dead)
    assert [f"j1 {expected}"] == short(found)
    assert ("job", "mic", "stt.1", 90.0) == (
        found[0].kind, found[0].source, found[0].target, found[0].time,
    )  # fmt: skip


def test_job_that_the_ended_one_had_asked_for():
    """Its worker goes on, and cancels it."""
    own = OpenJob(job_id="j2", requester="stt.1", worker="tools", since=91.0)
    assert ["j2 abandoned"] == short(work_fates(capsule(jobs=(own,)), []))


def test_messages_at_most_once():
    """The newest that waited at the last heartbeat are lost, one was in hand, later ones are unknown."""
    handled, running, first, second, late, answered = map(kept, (90, 91, 92, 93, 98.5, 99))
    broadcast = kept(93.5, target="*")
    urgent, job = kept(94, is_urgent=True), kept(95, "BusJobRequestMessage", job_id="j9")
    reply = kept(99.5, "Heard", "stt.1", "mic", because_of=answered)
    handler = RunningHandler(name="on_bus_message", type="FateNote", source="mic", since=91.2)
    found = work_fates(
        capsule(
            handled, running, first, second, broadcast, urgent, job, late, answered,
            sent=(reply,), queued=2, handlers={"stt.1": handler},
        ),
        [],
    )  # fmt: skip
    assert ["m91 interrupted", "m92 lost", "m93 lost", "m98.5 unknown"] == short(found)
    assert {"FateNote"} == {one.type for one in found}


def test_messages_at_least_once():
    """Handed back: taken by another replica, a dead letter by now, or not heard of since."""
    taken, poison, waits = map(kept, (92, 93, 94))
    heard = kept(105, "Heard", "stt.2", "mic", because_of=taken)
    found = work_fates(capsule(taken, poison, waits, queued=3, is_stored=True), [heard], {"m93"})
    assert ["m92 handled stt.2", "m93 dead-lettered", "m94 stored"] == short(found)


def test_group_is_asked_and_a_restarted_one_takes_it():
    """What was sent to all replicas counts, and so does the next process of the same name."""
    grouped = kept(92, target="stt")
    heard = kept(105, "Heard", "stt.1", "mic", because_of=grouped)
    work = capsule(grouped, queued=1, is_stored=True)
    assert ["m92 stored"] == short(work_fates(work, []))
    assert ["m92 handled stt.1"] == short(work_fates(work, [heard]))


def test_nothing_is_known_without_a_heartbeat_or_traffic():
    """Then every message is of an unknown fate, or none is told."""
    assert ["m92 unknown"] == short(work_fates(capsule(kept(92), beat=None, queued=5), []))
    assert [] == work_fates(capsule(kept(92)), [])  # handled before the last heartbeat
    without = Capsule(**{
        **{name: getattr(capsule(), name) for name in Capsule.__struct_fields__}, "traffic": None,
    })  # fmt: skip
    assert [] == work_fates(without, [kept(105)])
