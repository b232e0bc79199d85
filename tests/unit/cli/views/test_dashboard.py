"""The screen of `pbus up`: one page at every size, with trouble where it is seen."""

import time

import pytest
from msgspec import structs

from pbus.bus.queues.store import QueueStats
from pbus.observe import State, WorkerRow
from pbus.process.supervisor_events import Line
from pbus_cli.views.dashboard import Failure, Snapshot, dashboard
from pbus_cli.views.traffic import Passed
from support.screens import SIZES, colored, picture, widest


def row(name: str, state: State = "ready", lost: int = 0) -> WorkerRow:
    """A worker."""
    return WorkerRow(
        name=name, state=state, ready=state == "ready", active=True, runner="r", host="h",
        pid=1, uptime_s=1.0, restarts=0, cpu_percent=1.0, rss_bytes=1, received=1, sent=1,
        lost=lost, queued=0, refused=0,
    )  # fmt: skip


def queue_stats(dead: int = 0) -> dict[str, QueueStats]:
    """What is kept for a worker alone and for two replicas together."""
    name = "worker-with-a-long-name"
    return {
        name: QueueStats(name=name, backlog=1_234, in_flight=5),
        f"{name}.0": QueueStats(name=f"{name}.0", backlog=77, dead=dead),
    }


def snapshot(
    rows: int = 4,
    messages: int = 100,
    logs: int = 100,
    failures: int = 0,
    lost: int = 0,
    queues: dict[str, QueueStats] | None = None,
) -> Snapshot:
    """A busy project."""
    body = b'{"type":"T","source":"a","text":"' + b"x" * 300 + b'"}'
    passed = Passed(1.0, "BusFrameMessage", "a" * 30, "b", body, 999)
    return Snapshot(
        project="quickstart",
        bus="unix:///run/user/1000/pbus/quickstart-0123abcd/valkey.sock",
        uptime_s=3_723.0,
        rows=tuple(row(f"worker-with-a-long-name.{n}", lost=lost) for n in range(rows)),
        messages=(passed,) * messages,
        passed=12_345,
        per_second=1_234.0,
        missed=3,
        logs=tuple(Line("indexer.1", "out", f"line {n} " + "y" * 300, 0.0) for n in range(logs)),
        failures=tuple(Failure(f"bad.{n}", "exited with code 1: boom") for n in range(failures)),
        queues=queues,
        foot="Ctrl-C stops all workers",
    )


@pytest.mark.parametrize(("width", "height"), [*SIZES, (40, 10), (20, 5)])
@pytest.mark.parametrize(
    "shown",
    [
        Snapshot(project="empty", bus=None, uptime_s=0.0),
        snapshot(),
        snapshot(rows=300, failures=7, lost=2),
        snapshot(rows=300, failures=7, lost=2, queues=queue_stats(dead=3)),
        snapshot(rows=1, messages=0, logs=0),
    ],
)
def test_fills_exactly_one_page(shown: Snapshot, width: int, height: int) -> None:
    """As many lines as the screen has, none wider than it."""
    lines = picture(dashboard(shown, width, height), width, height)

    assert lines.pop() == ""
    assert len(lines) == height
    assert widest(lines) <= width


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_all_panes_are_there(width: int, height: int) -> None:
    """Workers, messages and logs share every size."""
    page = "\n".join(picture(dashboard(snapshot(), width, height), width, height))

    for text in (
        "pbus quickstart",
        "4/4 ready",
        "worker-with",
        "── messages",
        "── logs",
        "line 99",
    ):
        assert text in page
    assert "Ctrl-C stops all workers" in page


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_failure_in_second_line(width: int, height: int) -> None:
    """A failed worker is named right under the title, in reversed red."""
    view = dashboard(snapshot(failures=1), width, height)

    assert "bad.0 failed: exited with code 1: boom" in picture(view, width, height)[1]
    assert "\x1b[1;7;31m bad.0 failed" in colored(view, width, height)


def test_many_failures_in_one() -> None:
    """Seven failed workers take one line, not the page."""
    lines = picture(dashboard(snapshot(failures=7), 120, 40), 120, 40)

    assert lines[1].startswith(" 7 workers failed: bad.0, bad.1, ")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_losses_get_an_alarm(width: int, height: int) -> None:
    """Lost messages are summed up where they are seen, besides their column."""
    page = picture(dashboard(snapshot(rows=3, lost=5), width, height), width, height)

    assert "15 messages were lost on the way" in page[1]
    assert "LOST" in page[2]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_queue_stats_show(width: int, height: int) -> None:
    """What waits is in a column of its own; what replicas share is below, in a line."""
    page = picture(dashboard(snapshot(queues=queue_stats()), width, height), width, height)

    assert "BACKLOG" in page[1]
    assert any(".0 " in line and " 77 " in f"{line} " for line in page)
    assert any(": 1,234 messages wait for its replicas" in line for line in page)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_dead_letters_get_an_alarm(width: int, height: int) -> None:
    """What was given up is said under the title, with the verb that shows it."""
    page = picture(dashboard(snapshot(queues=queue_stats(dead=3)), width, height), width, height)

    assert "3 dead letters: `pbus dlq ls` shows why" in page[1]
    assert (
        "dead"
        not in picture(dashboard(snapshot(queues=queue_stats()), width, height), width, height)[1]
    )


def test_lost_broker_is_said() -> None:
    """While the broker is away that is the first thing to know."""
    gone = Snapshot(project="p", bus="b", uptime_s=1.0, is_bus_lost=True)

    assert "the broker is away" in picture(dashboard(gone, 80, 24), 80)[1]


def test_hundreds_leave_room() -> None:
    """A crowd is summarised; messages and logs keep their place."""
    lines = picture(dashboard(snapshot(rows=500), 80, 24), 80)

    assert sum("worker-with" in line for line in lines) < 10
    assert any("more ready" in line for line in lines)
    assert sum("line 9" in line for line in lines) >= 4


def test_logs_use_free_room() -> None:
    """Where no messages pass, the logs are longer."""
    busy = picture(dashboard(snapshot(), 80, 24), 80)
    quiet = picture(dashboard(snapshot(messages=0), 80, 24), 80)

    assert sum("line" in text for text in quiet) > sum("line" in text for text in busy)


def test_drawing_is_quick() -> None:
    """Eight frames a second of the largest screen cost a small part of one core."""
    shown = snapshot(rows=300, messages=200, logs=200)
    dashboard(shown, 200, 60)
    began = time.process_time()
    for _ in range(5):
        picture(dashboard(shown, 200, 60), 200, 60)

    assert (time.process_time() - began) / 5 < 0.06


def test_failure_of_another_supervisor_says_why() -> None:
    """A failure is an alarm where its event was seen, and a line below the table otherwise; never both."""
    reason = "exited with code 3: boom"
    bad = structs.replace(row("bad", "failed"), error=reason)
    for failures, expected in (((), "bad: "), ((Failure("bad", reason),), "bad failed: ")):
        shown = Snapshot(project="p", bus="b", uptime_s=1.0, rows=(bad,), failures=failures)
        lines = picture(dashboard(shown, 80, 30), 80, 30)
        assert [f"{expected}{reason}"] == [line.strip() for line in lines if reason in line]
