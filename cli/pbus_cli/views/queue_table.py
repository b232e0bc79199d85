"""Kept messages: what waits for whom, and the dead letters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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

_FIELDS = ("backlog", "backlog_bytes", "in_flight", "oldest_s", "retries", "dead", "dead_fell")


class DeadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `pbus dlq ls`; its fields are the keys of the JSON output.

    Attributes:
        key: Names it for show, requeue and drop.
        worker: Whose mailbox it was in.
        attempts: How often its handler was started.
        crashes: How many processes ended over it.
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


def mail_fields(report: QueueStats) -> dict[str, Any]:
    """A mailbox as `pbus ps --json` shows it."""
    fields = {key: getattr(report, key) for key in _FIELDS}
    oldest_s = report.oldest_s
    return {**fields, "oldest_s": None if oldest_s is None else round(oldest_s, 1)}


def with_mail(row: WorkerRow, mail: Mapping[str, QueueStats]) -> dict[str, Any]:
    """A worker with what is kept for it."""
    report = mail.get(row.name) or QueueStats(name=row.name)
    return {**msgspec.structs.asdict(row), **mail_fields(report)}


def shared_mailboxes(rows: Sequence[WorkerRow], mail: Mapping[str, QueueStats]) -> list[QueueStats]:
    """Those that replicas take from together."""
    groups = dict.fromkeys(group_of(row.name) for row in rows)
    return [mail[group] for group in groups if group is not None and group in mail]


def mail_columns(shown: Sequence[WorkerRow], mail: Mapping[str, QueueStats]) -> list[Column]:
    """What is kept for each worker, beside what else is known of it."""
    reports = [mail.get(row.name) or QueueStats(name=row.name) for row in shown]

    def column(title: str, cell: Callable[[QueueStats], str], weight: int | None) -> Column:
        return Column(title, tuple(Text(cell(one)) for one in reports), weight=weight)

    columns = [
        column("BACKLOG", lambda one: short_count(one.backlog), None),
        column("IN FLIGHT", lambda one: short_count(one.in_flight), 45),
        column("OLDEST", lambda one: short_duration(one.oldest_s), 55),
    ]
    if any(one.retries for one in mail.values()):
        columns.append(column("RETRIES", lambda one: short_count(one.retries), 56))
    if any(one.dead for one in mail.values()):
        columns.append(column("DEAD", lambda one: short_count(one.dead), None))
    return columns


def shared_lines(rows: Sequence[WorkerRow], mail: Mapping[str, QueueStats] | None) -> list[Text]:
    """A line for each mailbox that replicas share."""
    return [_shared_line(one) for one in shared_mailboxes(rows, mail or {})]


def _shared_line(one: QueueStats) -> Text:
    oldest = "" if one.oldest_s is None else f", the oldest for {short_duration(one.oldest_s)}"
    return Text(
        f"{one.name}: {one.backlog:,} messages wait for its replicas{oldest};"
        f" {one.in_flight:,} in flight, {one.retries:,} tried before, {one.dead:,} dead",
        end="",
    )


def dead_row(letter: DeadLetter) -> DeadRow:
    """A dead letter in short."""
    try:
        header = decode_header(letter.body)
        kind, source = header.type, header.source
    except MessageDecodeError:
        kind, source = None, None
    return DeadRow(
        key=letter.key,
        worker=letter.mailbox,
        id=letter.id,
        type=kind,
        source=source,
        reason=letter.reason,
        attempts=letter.attempt,
        crashes=letter.crashes,
        dead_since=letter.dead_since,
        age_s=round(letter.age_s, 1),
    )


def dead_body(letter: DeadLetter) -> Any:
    """The message itself, as JSON values where it is readable at all."""
    try:
        return msgspec.json.decode(as_json(letter.body))
    except (MessageDecodeError, msgspec.DecodeError):
        return {"unreadable": letter.body.hex()}


def dead_lines(rows: Sequence[DeadRow], width: int | None = None) -> list[Text]:
    """A heading and the dead letters, none wider than `width` (None: as wide as needed)."""

    def column(title: str, cell: Callable[[DeadRow], str], weight: int | None) -> Column:
        cells = tuple(Text(cell(row)) for row in rows)
        return Column(title, cells, right=False, gives=title == "REASON", weight=weight)

    columns = [
        column("KEY", lambda row: row.key, None),
        column("WORKER", lambda row: row.worker, None),
        column("TYPE", lambda row: row.type or "?", 40),
        column("FROM", lambda row: row.source or "?", 20),
        column("AGE", lambda row: short_duration(row.age_s), 30),
        column("TRIES", lambda row: str(row.attempts), 10),
        column("REASON", lambda row: " ".join(row.reason.split()), None),
    ]
    return lines(columns, width, colors.HEADING)
