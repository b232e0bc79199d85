"""The lines above all panes: the project's health, and alarms pinned under it."""

from typing import Final

from rich.text import Text

from pbus_cli.views import colors
from pbus_cli.views.board.board_snapshot import Snapshot
from pbus_cli.views.figures import short_duration
from pbus_cli.views.tables.worker_table import error_lines, state_counts

_MOST_FAILURES: Final = 3  # each with its reason; of more the names
_MOST_REASONS: Final = 2


def top_lines(snapshot: Snapshot, width: int) -> list[Text]:
    """The title and the alarms, a line each."""
    alarms = [_cut(Text(text, style=colors.ALARM), width) for text in _alarms(snapshot)]
    return [_title(snapshot, width), *alarms, *_reasons(snapshot, width)]


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


def _alarms(snapshot: Snapshot) -> list[str]:
    """At most six."""
    texts = [*_failures(snapshot), *_lost(snapshot), *_dead_letters(snapshot)]
    if snapshot.is_bus_lost:
        texts.append(" the broker is away; workers keep running and reconnect ")
    return texts


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
    noun = "dead letter" if dead == 1 else "dead letters"
    return [f" {dead:,} {noun}: key 6 shows why "] if dead else []


def _reasons(snapshot: Snapshot, width: int) -> list[Text]:
    """Reasons of workers that wait, are not healthy, or take long; failures are alarms."""
    alarmed = {one.worker for one in snapshot.failures}
    rows = [row for row in snapshot.rows if row.state != "failed" or row.name not in alarmed]
    return error_lines(rows, width)[:_MOST_REASONS]


def _cut(line: Text, width: int) -> Text:
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line
