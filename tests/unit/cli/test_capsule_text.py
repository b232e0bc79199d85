"""Crash capsules as text: one line for one thing, whatever a worker wrote."""

from typing import get_args

from pbus.process.project.history.capsule import (
    Capsule,
    LogEntry,
    OpenJob,
    OpenWork,
    Sequel,
    Traffic,
    UsageSample,
)
from pbus.process.project.history.traffic_history import KeptMessage
from pbus.process.project.history.work_fates import Fate, WorkFate
from pbus.running_handlers import RunningHandler
from pbus.stack_values import ProcessStacks, StackFrame, TaskStack, ThreadStack
from pbus_cli.views.tables.capsule_text import capsule_lines, list_lines

ODD = "a\x1b[2J\nb\x07\u202ec"


def capsule(**changes: object) -> Capsule:
    """A capsule with usual values."""
    usual = {
        "project": "shop", "run": 1, "session": "s", "worker": "a", "workers": ("a",), "pid": 7,
        "started": 1000.0, "ready": None, "ended": 1075.0, "start": 2, "reason": "exited with code 1",
        "code": 1, "signal": None, "is_told": False, "error": None, "sequel": Sequel("failed", ""),
    }  # fmt: skip
    return Capsule(**{**usual, **changes})  # type: ignore[arg-type]


def odd_capsule() -> Capsule:
    """A capsule all of whose texts are hostile."""
    message = KeptMessage(
        time=1e308, id=ODD, type=ODD, source=ODD, target=ODD, size_bytes=1 << 80, job_id=ODD
    )
    return capsule(
        worker=ODD, workers=(ODD, ODD + "2"), reason=ODD, error=ODD, sequel=Sequel(ODD, ODD),
        started=-1e300, ready=1e300, ended=1e300,
        open=OpenWork(fate=ODD, beat=-1.0, handlers={ODD: RunningHandler(name="h", since=1e300)}),
        traffic=Traffic(
            received=(message,), sent=(message,), missed=3,
            jobs=(OpenJob(job_id=ODD, requester=ODD, worker=ODD, since=1.0),),
        ),
        log=(LogEntry(1e308, ODD, ODD),), log_left_out=9,
        usage=(UsageSample(1.0, -5.0, -1), UsageSample(2.0, 1e300, 1 << 90)),
        stacks=ProcessStacks(
            pid=7,
            threads=(ThreadStack(name=ODD, frames=(StackFrame(ODD, 1, ODD),)),),
            tasks=(TaskStack(name=ODD, is_running=False, waits_for=ODD, frames=()),),
        ),
    )  # fmt: skip


def test_texts_of_workers_stay_in_their_lines() -> None:
    """No control character, no line end and no mark that turns the text around gets through."""
    fates = [
        WorkFate(
            kind=kind, id=ODD, type=ODD, source=ODD, target=ODD, time=1e308, fate=fate, by=ODD, status=ODD
        )
        for kind in ("job", "message")
        for fate in get_args(Fate)
    ]  # fmt: skip
    texts = [
        *capsule_lines(odd_capsule(), fates),
        *(one.plain for one in list_lines([odd_capsule()])),
    ]
    for text in texts:
        assert text.isprintable(), text
    assert any("\\u202e" in text for text in texts)


def test_all_that_is_known_is_told() -> None:
    """Reason, cause, times, open work, curves and the last messages, each in a line."""
    message = KeptMessage(
        time=1.0, id="i", type="BusJobRequestMessage", source="b", target="a", size_bytes=2048,
        job_id="j1",
    )  # fmt: skip
    shown = list(
        capsule_lines(
            capsule(
                error="ValueError: bad", workers=("a", "x"), ready=1015.0, is_told=True,
                sequel=Sequel("backoff", "restarts in 1 s"),
                open=OpenWork(
                    fate="1 message in flight requeued", beat=1073.0, queued=1234, working=2,
                    handlers={"a": RunningHandler(name="on_bus_message", type="T", source="b", since=1034.0)},
                ),
                usage=(UsageSample(1.0, 0.0, 1 << 20), UsageSample(2.0, 50.0, 4 << 20), UsageSample(3.0, 100.0, 2 << 20)),
                traffic=Traffic(received=(message,)),
                stacks_error="no stacks of process 7: it is stopped",
            )
        )
    )  # fmt: skip
    head = shown[0]
    assert head.startswith("a exited with code 1 at 1970-")
    assert head.endswith(", run 1")
    assert [
        "with it    x, in one process",
        "error      ValueError: bad",
        "told       a command had told it to end",
        "process    pid 7, start 2 of the run, ran 1m15s, ready for 1m00s",
        "then       backoff: restarts in 1 s",
        "open work  1 message in flight requeued",
        "           at its last heartbeat, 2s before: messages that waited 1,234, accepted jobs 2",
        "           a: in on_bus_message of T from b, 41s",
        "cpu        ▁▅█ 100%, at most 100%",
        "memory     ▃█▅ 2.0 MB, at most 4.0 MB",
        "",
        "last messages to it",
    ] == shown[1:13]
    assert shown[13].endswith(" BusJobRequestMessage from b, job j1, 2.0 KB")
    assert ["", "last messages from it: none seen", "", "log: empty", "", "stacks: no stacks of process 7: it is stopped"] == shown[14:]  # fmt: skip


def test_process_that_never_was() -> None:
    """Without a process there is no line about one, and no curve."""
    shown = list(capsule_lines(capsule(pid=None, started=None, run=None, code=None)))
    assert not [line for line in shown if line.startswith(("process", "cpu", "memory"))]
    assert ", run" not in shown[0]
    assert "messages   not kept: the supervisor does not follow them" in shown


def test_list_fits_into_a_terminal() -> None:
    """A heading and one line each; the reason gives way first."""
    rows = list_lines([capsule(error="x" * 200), capsule(pid=None, run=None)], 80)
    assert 3 == len(rows)
    assert all(len(row.plain) <= 80 for row in rows)
    assert rows[0].plain.split() == ["ENDED", "RUN", "WORKER", "PID", "THEN", "REASON"]
    assert "exited with code 1" in rows[2].plain
