"""A project as the interactive display is given it, and a source that notes what is wanted of it."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from pbus.bus.queues.store import QueueStats
from pbus.client.traffic.edge_stats import EdgeStats, JobStats, Quantiles
from pbus.client.traffic.message_tail import TailMessage
from pbus.jobs.listing import JobEntry, JobProgress
from pbus.observe import State, WorkerRow
from pbus.process.supervisor_events import Line
from pbus_cli.live.display.display_app import DisplayApp
from pbus_cli.live.traffic_fold import passed_of
from pbus_cli.views.board.arrangement import Pane
from pbus_cli.views.board.board_snapshot import DeadItem, Edge, Failure, Folded, Snapshot
from pbus_cli.views.tables.queue_table import DeadRow
from pbus_cli.views.traffic import Passed

TIMES = Quantiles(0.0001, 0.002, 0.05)


def worker_row(name: str, state: State = "ready", **fields: Any) -> WorkerRow:
    """A worker."""
    row = WorkerRow(
        name=name, state=state, ready=state == "ready", active=True, runner="r", host="h",
        pid=4242, uptime_s=125.0, restarts=0, cpu_percent=1.0, rss_bytes=50_000_000,
        received=1_200, sent=991, lost=0, queued=0, refused=0,
    )  # fmt: skip
    return msgspec.structs.replace(row, **fields)


def passed(number: int, **fields: Any) -> Passed:
    """A message."""
    data = {"type": "Transcript", "source": "stt.1", "text": f"word {number}"}
    body = msgspec.json.encode(data)
    known = {"type": "Transcript", "source": "stt.1", "target": "agent", "body": body}
    return Passed(**{"time": 1.7e9 + number, "size": len(body), **known, **fields})


def traced(*sent: tuple[str, str, str], trace: str = "ab" * 16) -> tuple[Passed, ...]:
    """Messages of one trace, as they were followed: source, target and type of each."""
    return tuple(
        passed_of(
            TailMessage(
                time=1.7e9 + number, id=str(number), type=kind, category="data", source=source,
                target=target, size_bytes=2, is_urgent=False, body=b"{}",
                traceparent=f"00-{trace}-{number + 1:016x}-01",
            )
        )
        for number, (source, target, kind) in enumerate(sent)
    )  # fmt: skip


def folded(rate: float = 50.0, **fields: Any) -> Folded:
    """An edge that is busy."""
    known = {"source": "mic", "target": "stt", "type": "BusFrameMessage", "count": 12_345}
    return Folded(**{**known, "rate": rate, "bytes_rate": 320_000.0, **fields})


def edge(source: str, target: str, rate: float, **fields: Any) -> Edge:
    """An edge with its rates."""
    stats = EdgeStats(
        source=source, target=target, type="Transcript", rate=rate, bytes_rate=100 * rate, sent=100,
        bytes=10_000, handled=99, errors=1, lost=0, undelivered=0, wait_s=TIMES, handling_s=TIMES,
    )  # fmt: skip
    return Edge(msgspec.structs.replace(stats, **fields), (rate, 2 * rate, rate))


def job(job_id: str = "j1", **fields: Any) -> JobEntry:
    """An open job."""
    known: dict[str, Any] = {"name": "say", "requester": "agent", "worker": "tts", "age_s": 4.0}
    progress = JobProgress(done=12, total=40, percent=30)
    made = {**known, "state": "running", "progress": progress, "wire_id": f"w-{job_id}", **fields}
    return JobEntry(job_id=job_id, **made)


def job_stats() -> JobStats:
    """Jobs that were counted."""
    outcomes = {"completed": 7, "failed": 2, "lost": 0}
    return JobStats(requester="agent", worker="tts", name="say", outcomes=outcomes, latency_s=TIMES)


def dead(key: str = "k1") -> DeadItem:
    """A dead letter."""
    row = DeadRow(
        key=key, worker="tts", id="i1", type="Say", source="agent", reason="ValueError: boom",
        attempts=5, crashes=0, dead_since=1.7e9, age_s=61.0,
    )  # fmt: skip
    return DeadItem(row, '{\n  "text": "spoken"\n}')


def project(**fields: Any) -> Snapshot:
    """A voice project, busy and not all well."""
    known: dict[str, Any] = {
        "project": "voice",
        "bus": "unix:///run/user/1000/pbus/voice-0123abcd/valkey.sock",
        "uptime_s": 3_723.0,
        "rows": (
            worker_row("mic"),
            worker_row("stt.1"),
            worker_row("stt.2", "backoff"),
            worker_row("agent"),
            worker_row("tts", "failed", error="exited with code 1"),
        ),
        "messages": tuple(passed(number) for number in range(40)),
        "folded": (folded(),),
        "passed": 12_385,
        "per_second": 51.0,
        "logs": tuple(Line("agent", "out", f"line {number}", 0.0) for number in range(100)),
        "logged": 100,
        "failures": (Failure("tts", "exited with code 1: boom"),),
        "edges": (edge("mic", "stt", 50.0), edge("stt", "agent", 1.5)),
        "jobs": (job(),),
    }
    return Snapshot(**{**known, **fields})


def queues(**dead_of: int) -> Mapping[str, QueueStats]:
    """Queues with dead letters."""
    return {name: QueueStats(name=name, dead=count) for name, count in dead_of.items()}


class FakeSource:
    """Gives snapshots, and notes orders."""

    def __init__(self, snapshot: Snapshot, parting: str | None = None) -> None:
        self.parting = parting
        self.orders: list[tuple[Any, ...]] = []
        self.wanted: frozenset[Pane] = frozenset()
        self.has_left = False
        self._next: Snapshot | None = snapshot

    def give(self, snapshot: Snapshot) -> None:
        """Show this from now on."""
        self._next = snapshot

    def snapshot(self) -> Snapshot | None:
        """The newest, once."""
        newest, self._next = self._next, None
        return newest

    def want(self, panes: frozenset[Pane]) -> None:
        """Note it."""
        self.wanted = panes

    def order(self, verb: str, name: str, count: int = 0) -> None:
        """Note it."""
        self.orders.append((verb, name, count))

    def leave(self) -> None:
        """Note it."""
        self.has_left = True


def shown(app: DisplayApp) -> list[str]:
    """The lines that a display shows now."""
    width, height = app.size
    strips = app.screen._compositor.render_strips()
    assert len(strips) == height
    lines = [strip.text for strip in strips]
    assert {width} == {strip.cell_length for strip in strips}
    return lines


async def until_shown(app: DisplayApp, pilot: Any, text: str) -> list[str]:
    """Wait until a text is shown; returns all lines."""
    deadline = time.monotonic() + 20
    while text not in "\n".join(lines := shown(app)):
        assert time.monotonic() < deadline, "\n".join(lines)
        await pilot.pause(0.02)
    return lines
