"""The screen of `pbus up`: workers, newest messages and newest log lines, always on one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group
from rich.text import Text

from pbus.bus.queues.store import QueueStats
from pbus.observe import WorkerRow
from pbus_cli.views import colors
from pbus_cli.views.figures import short_count, short_duration
from pbus_cli.views.log_lines import LogEntry, log_lines
from pbus_cli.views.tables.queue_table import shared_lines
from pbus_cli.views.tables.worker_table import error_lines, registry_lines, state_counts
from pbus_cli.views.traffic import Passed, traffic_lines

_FIXED_LINES: Final = 4  # title, two headings, foot
_TABLE_SHARE: Final = 0.45
_TRAFFIC_SHARE: Final = 0.45
_LEAST_TABLE: Final = 3
_LEAST_TRAFFIC: Final = 3
_MOST_FAILURES: Final = 3  # each with its reason; of more the names
_SHARED_SHARE: Final = 0.1  # of the page, for queues that replicas share
_REASONS_SHARE: Final = 0.15  # likewise, for the reasons why workers are not ready


@dataclass(frozen=True)
class Failure:
    """A worker that was given up, and its last word."""

    worker: str
    reason: str


@dataclass(frozen=True)
class Snapshot:
    """All that the screen shows, as of one moment.

    Attributes:
        bus: Where the broker is, password masked; None before it is up.
        messages: Newest last, as many as are kept.
        passed: How many messages passed since the start.
        missed: Messages the screen did not see.
        logs: Newest last, as many as are kept.
        queues: Stored messages by worker; None where delivery is at most once.
        foot: What the person can do now, or what is going on.
        is_bus_lost: The broker is away.
    """

    project: str
    bus: str | None
    uptime_s: float
    rows: tuple[WorkerRow, ...] = ()
    messages: tuple[Passed, ...] = ()
    passed: int = 0
    per_second: float = 0.0
    missed: int = 0
    logs: tuple[LogEntry, ...] = ()
    failures: tuple[Failure, ...] = ()
    queues: Mapping[str, QueueStats] | None = None
    foot: str = ""
    is_bus_lost: bool = False


def dashboard(snapshot: Snapshot, width: int, height: int) -> Group:
    """The whole screen: exactly `height` lines, none wider than `width`."""
    alarms = _alarms(snapshot, width)
    room = max(0, height - _FIXED_LINES - len(alarms))
    table_room = min(len(snapshot.rows) + 1, max(_LEAST_TABLE, int(room * _TABLE_SHARE)))
    table = [
        *registry_lines(snapshot.rows, width, table_room, queues=snapshot.queues),
        *_shared_queues(snapshot, width, int(room * _SHARED_SHARE)),
        *_reasons(snapshot, width, int(room * _REASONS_SHARE)),
    ]
    traffic_room = _traffic_room(len(snapshot.messages), room - len(table))
    log_room = room - len(table) - traffic_room
    page = [
        _title(snapshot, width),
        *alarms,
        *table,
        _heading("messages", _traffic_summary(snapshot), width),
        *_padded(traffic_lines(snapshot.messages, width, traffic_room), traffic_room),
        _heading("logs", "", width),
        *_padded(log_lines(snapshot.logs, width, log_room), log_room),
    ]
    page = [*page[: max(0, height - 1)], _cut(Text(snapshot.foot, style=colors.HEADING), width)]
    return Group(*_ended(page))


def _shared_queues(snapshot: Snapshot, width: int, room: int) -> list[Text]:
    queues = {name: one for name, one in (snapshot.queues or {}).items() if one.backlog or one.dead}
    return [_cut(line, width) for line in shared_lines(snapshot.rows, queues)[:room]]


def _reasons(snapshot: Snapshot, width: int, room: int) -> list[Text]:
    """Why workers wait, or are not healthy, as far as there is room; failures are alarms."""
    alarmed = {one.worker for one in snapshot.failures}
    rows = [row for row in snapshot.rows if row.state != "failed" or row.name not in alarmed]
    return error_lines(rows, width)[:room]


def _traffic_room(count: int, room: int) -> int:
    """Lines for messages: where there are few, the logs have the better use for the room."""
    return min(int(room * _TRAFFIC_SHARE), max(count, _LEAST_TRAFFIC))


def _title(snapshot: Snapshot, width: int) -> Text:
    """Project and health first: on a narrow screen the address is what is cut."""
    title = Text.assemble(
        ("pbus ", colors.HEADING),
        (snapshot.project, "bold"),
        "  ",
        state_counts(snapshot.rows),
        f"  up {short_duration(snapshot.uptime_s)}",
        f"  {snapshot.bus or 'starting the broker'}",
    )
    return _cut(title, width)


def _alarms(snapshot: Snapshot, width: int) -> list[Text]:
    """Warnings under the title, a line each; at most six."""
    texts = [*_failures(snapshot), *_lost(snapshot), *_dead_letters(snapshot)]
    if snapshot.is_bus_lost:
        texts.append(" the broker is away; workers keep running and reconnect ")
    return [_cut(Text(text, style=colors.ALARM), width) for text in texts]


def _failures(snapshot: Snapshot) -> list[str]:
    failures = snapshot.failures
    if len(failures) <= _MOST_FAILURES:
        return [f" {one.worker} failed: {one.reason} " for one in failures]
    return [f" {len(failures)} workers failed: {', '.join(one.worker for one in failures)} "]


def _lost(snapshot: Snapshot) -> list[str]:
    lost = sum(row.lost for row in snapshot.rows)
    noun = "message was" if lost == 1 else "messages were"
    return [f" {lost:,} {noun} lost on the way "] if lost else []


def _dead_letters(snapshot: Snapshot) -> list[str]:
    dead = sum(report.dead for report in (snapshot.queues or {}).values())
    noun = "dead message" if dead == 1 else "dead letters"
    return [f" {dead:,} {noun}: `pbus dlq ls` shows why "] if dead else []


def _traffic_summary(snapshot: Snapshot) -> str:
    rate = f"{short_count(round(snapshot.per_second))}/s"
    text = f"{short_count(snapshot.passed)} seen, {rate}"
    return f"{text}, {short_count(snapshot.missed)} not shown" if snapshot.missed else text


def _heading(title: str, summary: str, width: int) -> Text:
    line = Text.assemble((f"── {title} ", colors.HEADING))
    if summary:
        line.append(f"({summary}) ")
    line.append("─" * max(0, width - line.cell_len))
    return _cut(line, width)


def _padded(lines: Sequence[Text], height: int) -> list[Text]:
    return [*lines, *(Text() for _ in range(height - len(lines)))]


def _cut(line: Text, width: int) -> Text:
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line


def _ended(page: Sequence[Text]) -> list[Text]:
    """Every line but the last ends its line: one more would scroll the screen."""
    for line in page:
        line.end = "\n"
    return list(page)
