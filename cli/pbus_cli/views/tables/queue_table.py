"""Stored messages: backlogs by worker, and the dead letters."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.text import Text

from pbus.bus.queues.store import DeadLetter, QueueStats
from pbus.codec import as_json, decode_header
from pbus.errors import MessageDecodeError
from pbus.names import group_of
from pbus.observe import WorkerRow
from pbus_cli.views import colors
from pbus_cli.views.columns import Column, lines
from pbus_cli.views.figures import short_count, short_duration

if TYPE_CHECKING:
    from pbus.client import ProjectStatus

_FIELDS = ("backlog", "backlog_bytes", "in_flight", "oldest_s", "retries", "dead", "dead_fell")


class DeadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `pbus dlq ls`; its fields are the keys of the JSON output.

    Attributes:
        key: Its name for show, requeue and drop.
        worker: The worker whose queue it was in.
        attempts: The number of times that its handler was started.
        crashes: The number of processes that ended while handling it.
        dead_since: Unix seconds, by the broker's clock.
        age_s: Seconds since then, by the broker's clock.
    """

    key: str
    worker: str
    id: str
    type: str | None
    source: str | None
    reason: str
    attempts: int
    crashes: int
    dead_since: float
    age_s: float


def queue_fields(report: QueueStats) -> dict[str, Any]:
    """The stats of a queue as `pbus ps --json` shows them."""
    fields = {key: getattr(report, key) for key in _FIELDS}
    oldest_s = report.oldest_s
    return {**fields, "oldest_s": None if oldest_s is None else round(oldest_s, 1)}


def with_queue(row: WorkerRow, queues: Mapping[str, QueueStats]) -> dict[str, Any]:
    """A worker with the stats of its queue."""
    report = queues.get(row.name) or QueueStats(name=row.name)
    return {**msgspec.structs.asdict(row), **queue_fields(report)}


def shared_queues(rows: Sequence[WorkerRow], queues: Mapping[str, QueueStats]) -> list[QueueStats]:
    """The queues that replicas share."""
    groups = dict.fromkeys(group_of(row.name) for row in rows)
    return [queues[group] for group in groups if group is not None and group in queues]


def status_fields(status: "ProjectStatus", rows: Sequence[WorkerRow]) -> dict[str, Any]:
    """The JSON of `pbus ps --json`.

    Args:
        status: Of the project.
        rows: The workers of it that are shown.
    """
    said: dict[str, Any] = {"project": status.project, "bus": status.bus}
    queues = status.queues
    if queues is None:
        return {**said, "workers": rows}
    shared = [{"name": one.name, **queue_fields(one)} for one in shared_queues(rows, queues)]
    return {**said, "workers": [with_queue(row, queues) for row in rows], "shared": shared}


def queue_columns(
    shown: Sequence[WorkerRow], queues: Mapping[str, QueueStats], *, has_all: bool = False
) -> list[Column]:
    """The columns of the workers' queues; some only where a queue has a figure, or with `has_all`."""
    reports = [queues.get(row.name) or QueueStats(name=row.name) for row in shown]

    def column(title: str, cell: Callable[[QueueStats], str], weight: int | None) -> Column:
        return Column(title, tuple(Text(cell(one)) for one in reports), weight=weight)

    columns = [
        column("BACKLOG", lambda one: short_count(one.backlog), None),
        column("IN FLIGHT", lambda one: short_count(one.in_flight), 45),
        column("OLDEST", lambda one: short_duration(one.oldest_s), 55),
    ]
    if has_all or any(one.retries for one in queues.values()):
        columns.append(column("RETRIES", lambda one: short_count(one.retries), 56))
    if has_all or any(one.dead for one in queues.values()):
        columns.append(column("DEAD", lambda one: short_count(one.dead), None))
    return columns


def shared_lines(rows: Sequence[WorkerRow], queues: Mapping[str, QueueStats] | None) -> list[Text]:
    """A line for each queue that replicas share."""
    return [_shared_line(one) for one in shared_queues(rows, queues or {})]


def _shared_line(one: QueueStats) -> Text:
    oldest = "" if one.oldest_s is None else f", the oldest for {short_duration(one.oldest_s)}"
    return Text(
        f"{one.name}: {one.backlog:,} messages wait for its replicas{oldest};"
        f" {one.in_flight:,} in flight, {one.retries:,} tried before, {one.dead:,} dead",
        end="",
    )


def dead_row(message: DeadLetter) -> DeadRow:
    """A dead message in short."""
    try:
        header = decode_header(message.body)
        kind, source = header.type, header.source
    except MessageDecodeError:
        kind, source = None, None
    return DeadRow(
        key=message.key,
        worker=message.queue,
        id=message.id,
        type=kind,
        source=source,
        reason=message.reason,
        attempts=message.attempt,
        crashes=message.crashes,
        dead_since=message.dead_since,
        age_s=round(message.age_s, 1),
    )


def dead_body(message: DeadLetter) -> Any:
    """The message itself, as JSON values where it is readable at all."""
    try:
        return msgspec.json.decode(as_json(message.body))
    except (MessageDecodeError, msgspec.DecodeError):
        return {"unreadable": message.body.hex()}


def dead_lines(rows: Sequence[DeadRow], width: int | None = None) -> list[Text]:
    """A heading and the dead letters, none wider than `width` (None: as wide as needed)."""
    return lines(dead_columns(rows), width, colors.HEADING)


def dead_columns(rows: Sequence[DeadRow]) -> list[Column]:
    """The columns of dead letters."""

    def column(title: str, cell: Callable[[DeadRow], str], weight: int | None) -> Column:
        cells = tuple(Text(cell(row)) for row in rows)
        return Column(title, cells, right=False, gives=title == "REASON", weight=weight)

    return [
        column("KEY", lambda row: row.key, None),
        column("WORKER", lambda row: row.worker, None),
        column("TYPE", lambda row: row.type or "?", 40),
        column("FROM", lambda row: row.source or "?", 20),
        column("AGE", lambda row: short_duration(row.age_s), 30),
        column("TRIES", lambda row: str(row.attempts), 10),
        column("REASON", lambda row: " ".join(row.reason.split()), None),
    ]
