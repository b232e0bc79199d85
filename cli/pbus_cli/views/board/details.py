"""All that is known of one item of the display, as lines of text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from pbus.client.traffic.edge_stats import JobStats, Quantiles
from pbus.jobs.listing import JobEntry
from pbus.observe import WorkerRow
from pbus.process.supervisor_events import Line
from pbus_cli.views.board.board_snapshot import DeadItem, Edge, Folded
from pbus_cli.views.board.worker_pane import WorkerItem
from pbus_cli.views.cells import plain_text
from pbus_cli.views.figures import clock_time, short_bytes, short_duration, short_percent
from pbus_cli.views.tables.edge_lines import rate_text, time_text
from pbus_cli.views.tables.job_table import progress_text
from pbus_cli.views.traffic import Passed

_LONGEST: Final = 64 * 1024  # characters of a message
_MOST_LINES: Final = 2_000
_LABEL_WIDTH: Final = 12


def details(value: Any, last_words: Mapping[str, Sequence[str]]) -> tuple[str, list[str]]:
    """A title and lines.

    Args:
        value: Of an item of any pane.
        last_words: The last lines of workers that were given up.
    """
    if isinstance(value, WorkerItem):
        return value.name, _worker_lines(value, last_words)
    for kind, make in _MAKERS.items():
        if isinstance(value, kind):
            title, lines = make(value)
            return title, lines[:_MOST_LINES]
    return "?", [str(value)]


def _fields(pairs: Sequence[tuple[str, object]]) -> list[str]:
    return [f"{name:<{_LABEL_WIDTH}}  {text}" for name, text in pairs if text not in {None, ""}]


def _worker_lines(item: WorkerItem, last_words: Mapping[str, Sequence[str]]) -> list[str]:
    lines: list[str] = []
    for row in item.rows:
        lines += _row_lines(row)
        lines += [f"  | {plain_text(line)}" for line in last_words.get(row.name, ())]
        lines.append("")
    return lines[:-1]


def _row_lines(row: WorkerRow) -> list[str]:
    return _fields([
        ("worker", row.name),
        ("state", row.state if row.active or not row.ready else f"{row.state}, inactive"),
        ("error", row.error and plain_text(row.error)),
        ("doing", row.handler and str(row.handler)),
        ("pid", row.pid),
        ("host", row.host),
        ("uptime", short_duration(row.uptime_s)),
        ("restarts", row.restarts),
        ("cpu", short_percent(row.cpu_percent)),
        ("memory", short_bytes(row.rss_bytes)),
        ("messages", f"{row.received:,} in, {row.sent:,} out, {row.queued:,} wait, {row.lost:,} lost"),
        ("refused", row.refused and f"{row.refused:,} payloads: its log says why"),
        ("runner", row.runner),
    ])  # fmt: skip


def _message(passed: Passed) -> tuple[str, list[str]]:
    reached = "" if passed.is_reached else "no process received it"
    lane = "system (before data)" if passed.is_urgent else "data"
    header = _fields([
        ("type", passed.type),
        ("from", passed.source),
        ("to", passed.target or "* (everyone)"),
        ("made at", clock_time(passed.time)),
        ("size", f"{passed.size:,} bytes"),
        ("lane", lane),
        ("key", passed.key),
        ("trace", passed.seen and f"{passed.seen.trace_id} (t shows all of it)"),
        ("local", "it stayed in its process; this is a copy" if passed.is_local else ""),
        ("undelivered", reached),
    ])
    return passed.type, [*header, "", *json_lines(passed.body, passed.size)]


def json_lines(body: bytes, size: int) -> list[str]:
    """A message as indented JSON, or as it is where it is none or was cut."""
    try:
        text = msgspec.json.format(body, indent=2).decode("utf-8", "replace")
    except (msgspec.MsgspecError, RecursionError):
        text = body.decode("utf-8", "replace")
    cut = (
        "" if len(body) >= size and len(text) <= _LONGEST else "… (of a long message the beginning)"
    )
    return [*text[:_LONGEST].splitlines(), *([cut] if cut else [])]


def _folded(folded: Folded) -> tuple[str, list[str]]:
    lines = _fields([
        ("type", folded.type),
        ("from", folded.source),
        ("to", folded.target or "* (everyone)"),
        ("rate", rate_text(folded.rate)),
        ("bytes", f"{short_bytes(folded.bytes_rate)}/s"),
        ("messages", f"{folded.count:,}"),
    ])
    newest = [line for passed in reversed(folded.latest) for line in ["", *_message(passed)[1]]]
    return f"{folded.type}, folded", [*lines, "", "the newest of them:", *newest]


def _log(line: Line) -> tuple[str, list[str]]:
    stream = {"out": "stdout", "err": "stderr"}.get(line.stream, "pbus, about it")
    fields = _fields([("worker", line.worker), ("at", clock_time(line.time)), ("from", stream)])
    return line.worker, [*fields, "", plain_text(line.text)]


def _edge(edge: Edge) -> tuple[str, list[str]]:
    stats = edge.stats
    pairs: list[tuple[str, object]] = [
        ("type", stats.type),
        ("from", stats.source),
        ("to", stats.target),
        ("rate", f"{rate_text(stats.rate)}, {short_bytes(stats.bytes_rate)}/s"),
        ("sent", f"{stats.sent:,} messages, {short_bytes(stats.bytes)}"),
        ("handled", f"{stats.handled:,}, {stats.errors:,} with an error"),
        ("lost", f"{stats.lost:,}"),
        ("undelivered", f"{stats.undelivered:,}"),
    ]
    for name, times in (("wait", stats.wait_s), ("handler", stats.handling_s)):
        if times is not None:
            pairs.append((name, _quantiles(times)))
    return f"{stats.source} → {stats.target}", _fields(pairs)


def _job_stats(job: JobStats) -> tuple[str, list[str]]:
    return job.name or "jobs", _fields([
        ("job", job.name),
        ("requester", job.requester),
        ("worker", job.worker),
        *((name, f"{count:,}") for name, count in job.outcomes.items() if count),
        ("latency", job.latency_s and _quantiles(job.latency_s)),
    ])  # fmt: skip


def _quantiles(times: Quantiles) -> str:
    shares = (("p50", times.p50), ("p95", times.p95), ("p99", times.p99))
    return ", ".join(f"{name} {time_text(seconds)}" for name, seconds in shares)


def _job(entry: JobEntry) -> tuple[str, list[str]]:
    return entry.job_id, _fields([
        ("job", entry.job_id),
        ("name", entry.name),
        ("label", entry.label),
        ("requester", entry.requester),
        ("worker", entry.worker),
        ("state", entry.state),
        ("age", short_duration(entry.age_s)),
        ("progress", progress_text(entry.progress)),
    ])  # fmt: skip


def _dead(dead: DeadItem) -> tuple[str, list[str]]:
    row = dead.row
    header = _fields([
        ("key", row.key),
        ("worker", row.worker),
        ("type", row.type),
        ("from", row.source),
        ("dead for", short_duration(row.age_s)),
        ("attempts", row.attempts),
        ("crashes", row.crashes),
    ])
    lines = ["", *row.reason.splitlines(), "", *dead.text.splitlines()]
    return row.key, [*header, *lines]


_MAKERS: Final[dict[type, Callable[[Any], tuple[str, list[str]]]]] = {
    Passed: _message,
    Folded: _folded,
    Line: _log,
    Edge: _edge,
    JobEntry: _job,
    JobStats: _job_stats,
    DeadItem: _dead,
}
