"""The workers: one line each, or the troubled ones first and the rest counted."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from rich.text import Text

from pbus.bus.queues.store import QueueStats
from pbus.observe import State, WorkerRow
from pbus_cli.views import colors
from pbus_cli.views.cells import plain_text
from pbus_cli.views.columns import Column, lines
from pbus_cli.views.figures import short_bytes, short_count, short_duration, short_percent
from pbus_cli.views.tables.queue_table import queue_columns

TROUBLE: Final[tuple[State, ...]] = (
    "failed",
    "backoff",
    "unhealthy",
    "unresponsive",
    "waiting",
    "starting",
    "stopping",
    "ready",
    "exited",
)

_DEEPEST = 10  # children below are shown no further to the right


def registry_lines(
    rows: Sequence[WorkerRow],
    width: int | None = None,
    height: int | None = None,
    *,
    queues: Mapping[str, QueueStats] | None = None,
) -> list[Text]:
    """A heading and the workers.

    Args:
        rows: In the order in which they are shown when all fit; below each its children, if those do.
        width: Cells a line may take; None for no limit.
        height: Lines there are, the heading included; None for no limit.
        queues: Stored messages by worker; None where delivery is at most once.
    """
    listed = [line for row in rows for line in (row, *_children_of(row))]
    room = len(listed) if height is None else max(1, height - 1)
    shown, hidden = (listed, []) if len(listed) <= room else _most_important(rows, room)
    columns = worker_columns(shown, rows)
    if queues is not None:
        columns += queue_columns(shown, queues)
    table = lines(columns, width, colors.HEADING)
    if hidden:
        table.append(_summary(hidden, width))
    return table


def error_lines(rows: Sequence[WorkerRow], width: int | None = None) -> list[Text]:
    """The errors of workers that failed, wait or hang, and handlers that take long, a line each."""
    found = []
    for row in rows:
        if text := row.error or row.doing:
            is_quiet = row.state in {"waiting", "starting"} or not row.error
            style = colors.QUIET if is_quiet else colors.ERROR
            line = Text(f"{row.name}: {plain_text(text)}", style=style, no_wrap=True)
            line.end = ""
            if width is not None:
                line.truncate(width, overflow="ellipsis")
            found.append(line)
    return found


def state_counts(rows: Sequence[WorkerRow]) -> Text:
    """The counts of workers by state: 3/4 ready, 1 failed."""
    counts = Counter(row.state for row in rows)
    is_all_ready = counts["ready"] == len(rows)
    text = Text(f"{counts['ready']}/{len(rows)} ready", style="green" if is_all_ready else "")
    for state in TROUBLE:
        if counts[state] and state != "ready":
            text.append(", ")
            text.append(f"{counts[state]} {state}", style=colors.STATES[state])
    return text


def _children_of(row: WorkerRow) -> list[WorkerRow]:
    """A row for each child, which shares the process of its root."""
    return [
        msgspec.structs.replace(
            row,
            name=f"{'  ' * (min(child.depth, _DEEPEST) - 1)}└ {child.name}",
            active=row.ready and child.active,
            pid=None,
            uptime_s=child.uptime_s,
            cpu_percent=None,
            rss_bytes=None,
            received=child.received,
            sent=child.sent,
            lost=0,
            queued=0,
            restarts=0,
            children=(),
        )
        for child in row.children
    ]


def _most_important(
    rows: Sequence[WorkerRow], room: int
) -> tuple[list[WorkerRow], list[WorkerRow]]:
    """Split into what is shown and what is only counted."""
    if len(rows) <= room:
        return list(rows), []
    ranked = sorted(rows, key=lambda row: (row.lost == 0, TROUBLE.index(row.state)))
    ranked.sort(key=lambda row: row.state != "failed")  # failed ones before lost messages
    return ranked[: room - 1], ranked[room - 1 :]


def _summary(hidden: Sequence[WorkerRow], width: int | None) -> Text:
    counts = Counter(row.state for row in hidden)
    parts = [f"{counts[state]} more {state}" for state in TROUBLE if counts[state]]
    text = Text("… " + ", ".join(parts), style=colors.HEADING, no_wrap=True, end="")
    if width is not None:
        text.truncate(width, overflow="ellipsis")
    return text


def worker_columns(
    shown: Sequence[WorkerRow],
    rows: Sequence[WorkerRow],
    *,
    has_all: bool = False,
    state: Callable[[WorkerRow], Text] | None = None,
) -> list[Column]:
    """The columns of these workers.

    Args:
        shown: The rows.
        rows: All workers.
        has_all: Whether there are also the columns for which no worker has a figure.
        state: Makes the cell of a worker's state.
    """

    def column(title: str, cell: Callable[[WorkerRow], Text | str], weight: int | None) -> Column:
        cells = tuple(_text(cell(row)) for row in shown)
        return Column(title, cells, weight=weight)

    def left(title: str, cell: Callable[[WorkerRow], Text | str], weight: int | None) -> Column:
        cells = tuple(_text(cell(row)) for row in shown)
        is_name = title == "NAME"
        return Column(title, cells, right=False, gives=is_name, is_name=is_name, weight=weight)

    columns = [
        left("NAME", lambda row: row.name, None),
        left("STATE", state or worker_state, None),
        column("PID", lambda row: "-" if row.pid is None else str(row.pid), 60),
        column("UPTIME", lambda row: short_duration(row.uptime_s), 70),
        column("CPU", lambda row: short_percent(row.cpu_percent), 50),
        column("MEMORY", lambda row: short_bytes(row.rss_bytes), 40),
        column("IN", lambda row: short_count(row.received), 80),
        column("OUT", lambda row: short_count(row.sent), 75),
    ]
    optional = [
        column("LOST", _lost, None),
        column("QUEUED", lambda row: short_count(row.queued), 30),
        column("RESTARTS", lambda row: str(row.restarts), 35),
        left("HOST", lambda row: row.host or "-", 10),
    ]
    return [*columns, *(made for made in optional if has_all or _is_needed(made.title, rows))]


def _is_needed(title: str, rows: Sequence[WorkerRow]) -> bool:
    """Whether a worker has a figure for a column."""
    if title == "HOST":
        return len({row.host for row in rows}) > 1
    return any(getattr(row, title.lower()) for row in rows)


def _text(cell: Text | str) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def worker_state(row: WorkerRow) -> Text:
    """The state of a worker, as a cell."""
    text = Text(row.state, style=colors.STATES[row.state])
    if row.ready and not row.active:
        return Text.assemble(text, ", inactive")
    return text


def _lost(row: WorkerRow) -> Text:
    return Text(short_count(row.lost), style=colors.LOST if row.lost else "")
