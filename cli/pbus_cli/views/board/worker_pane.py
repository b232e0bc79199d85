"""The pane of workers: replicas folded into a line each group, failures first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from rich.text import Text

from pbus.bus.queues.store import QueueStats
from pbus.names import group_of
from pbus.observe import State, WorkerRow
from pbus_cli.views import colors
from pbus_cli.views.board.pane_view import PaneView, SteadyColumns, table
from pbus_cli.views.tables.queue_table import queue_columns
from pbus_cli.views.tables.worker_table import TROUBLE, worker_columns, worker_state

_FIRST_WIDTHS: Final = {
    "PID": 7, "UPTIME": 6, "CPU": 5, "MEMORY": 6, "IN": 6, "OUT": 6, "STATE": 12,
}  # fmt: skip
_SUMS: Final = ("restarts", "received", "sent", "lost", "queued", "refused")
_QUEUE_SUMS: Final = ("backlog", "in_flight", "retries", "dead")
_INDENT: Final = "  "


@dataclass(frozen=True)
class WorkerItem:
    """A worker, or the replicas of one group.

    Attributes:
        name: The worker's, or the group's.
        rows: The worker, or all replicas.
        is_group: Whether it stands for replicas.
        is_folded: Whether the replicas have no lines of their own.
    """

    name: str
    rows: tuple[WorkerRow, ...]
    is_group: bool = False
    is_folded: bool = False

    @property
    def is_stopped(self) -> bool:
        """Whether none of them runs, nor is about to."""
        return all(row.state in {"exited", "failed"} for row in self.rows)


def steady_worker_columns() -> SteadyColumns:
    """The widths to begin with."""
    return SteadyColumns(dict(_FIRST_WIDTHS))


def worker_items(rows: Sequence[WorkerRow], unfolded: frozenset[str]) -> list[WorkerItem]:
    """A worker or group each; below a group that is unfolded its replicas. Failed ones come first.

    Args:
        rows: All workers.
        unfolded: The groups whose replicas are shown.
    """
    groups: dict[str, list[WorkerRow]] = {}
    for row in rows:
        groups.setdefault(group_of(row.name) or row.name, []).append(row)
    ranked = sorted(groups.items(), key=lambda one: all(row.state != "failed" for row in one[1]))
    items = []
    for name, members in ranked:
        if len(members) == 1 and members[0].name == name:
            items.append(WorkerItem(name, (members[0],)))
            continue
        is_folded = name not in unfolded
        items.append(WorkerItem(name, tuple(members), is_group=True, is_folded=is_folded))
        if not is_folded:
            items.extend(WorkerItem(row.name, (row,)) for row in members)
    return items


def worker_pane(
    items: Sequence[WorkerItem],
    queues: Mapping[str, QueueStats] | None,
    columns: SteadyColumns,
    width: int,
) -> PaneView:
    """The table of workers."""
    groups = {item.name for item in items if item.is_group}
    shown = [_shown(item, groups) for item in items]
    states = {id(row): _state(item) for row, item in zip(shown, items, strict=True)}
    made = worker_columns(shown, shown, has_all=True, state=lambda row: states[id(row)])
    if queues is not None:
        by_label = {
            row.name: _queue_of(item, queues) for row, item in zip(shown, items, strict=True)
        }
        made += queue_columns(shown, by_label, has_all=True)
    rows: list[tuple[object, WorkerItem, str]] = [(item.name, item, _words(item)) for item in items]
    return table("workers", rows, columns.lines(made, width), empty="no workers yet")


def _shown(item: WorkerItem, groups: set[str]) -> WorkerRow:
    """The row of a worker; that of a group has the sums of its replicas."""
    rows = item.rows
    if not item.is_group:
        label = _INDENT + item.name if group_of(item.name) in groups else item.name
        return msgspec.structs.replace(rows[0], name=label)
    return msgspec.structs.replace(_summed(rows), name=_group_label(item))


def _group_label(item: WorkerItem) -> str:
    return f"{'▸' if item.is_folded else '▾'} {item.name} x{len(item.rows)}"


def _summed(rows: Sequence[WorkerRow]) -> WorkerRow:
    def total(field: str) -> int:
        return sum(getattr(row, field) for row in rows)

    hosts = {row.host for row in rows}
    uptimes = [row.uptime_s for row in rows if row.uptime_s is not None]
    return msgspec.structs.replace(
        rows[0],
        state=_worst(rows),
        ready=all(row.ready for row in rows),
        active=True,
        host=rows[0].host if len(hosts) == 1 else None,
        pid=None,
        uptime_s=min(uptimes, default=None),
        cpu_percent=_sum([row.cpu_percent for row in rows]),
        rss_bytes=_int(_sum([row.rss_bytes for row in rows])),
        **{field: total(field) for field in _SUMS},
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _int(value: float | None) -> int | None:
    return None if value is None else int(value)


def _worst(rows: Sequence[WorkerRow]) -> State:
    return min((row.state for row in rows), key=TROUBLE.index)


def _state(item: WorkerItem) -> Text:
    if not item.is_group:
        return worker_state(item.rows[0])
    counts = Counter(row.state for row in item.rows)
    if len(counts) == 1:
        return Text(f"{len(item.rows)} {_worst(item.rows)}", colors.STATES[_worst(item.rows)])
    text = Text(f"{counts['ready']}/{len(item.rows)} ready")
    worst = _worst(item.rows)
    if worst != "ready":
        text.append(f", {counts[worst]} {worst}", style=colors.STATES[worst])
    return text


def _queue_of(item: WorkerItem, queues: Mapping[str, QueueStats]) -> QueueStats:
    """The queue of a worker; of a group what waits for any replica, or for one of them."""
    names = [row.name for row in item.rows] + [item.name] * item.is_group
    found = [queues[name] for name in names if name in queues]
    if not found:
        return QueueStats(name=item.name)
    ages = [one.oldest_s for one in found if one.oldest_s is not None]
    sums = {field: sum(getattr(one, field) for one in found) for field in _QUEUE_SUMS}
    oldest_s = max(ages, default=None)
    return msgspec.structs.replace(found[0], name=item.name, oldest_s=oldest_s, **sums)


def _words(item: WorkerItem) -> str:
    return " ".join(
        f"{row.name} {row.state} {row.host or ''} {row.error or ''}" for row in item.rows
    )
