"""The panes of edges, jobs and dead letters."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
from rich.text import Text

from pbus.client.traffic.edge_stats import EdgeStats, JobStats
from pbus.client.traffic.type_names import short_type
from pbus.jobs.listing import JobEntry, JobProgress
from pbus_cli.views.board.board_snapshot import DeadItem, Edge
from pbus_cli.views.board.pane_view import Item, PaneView, SteadyColumns, table
from pbus_cli.views.board.sparkline import bar, sparkline
from pbus_cli.views.columns import Column
from pbus_cli.views.tables.edge_lines import edge_columns, job_stat_lines
from pbus_cli.views.tables.job_table import job_columns, progress_text
from pbus_cli.views.tables.queue_table import dead_columns

_SPARK_WIDTH: Final = 20
_SPARK_TITLE: Final = "RATE OVER TIME"
_AFTER: Final = "RATE"
_BAR_WIDTH: Final = 10
_FIRST_EDGE_WIDTHS: Final = {
    "RATE": 7, "MESSAGES": 8, "BYTES": 6, "WAIT p50/95/99": 17, "HANDLER": 17,
}  # fmt: skip
_WHOLE: Final = 100.0


def steady_edge_columns() -> SteadyColumns:
    """The widths to begin with."""
    return SteadyColumns(dict(_FIRST_EDGE_WIDTHS))


def edge_pane(
    edges: Sequence[Edge], jobs: Sequence[JobStats], columns: SteadyColumns, width: int
) -> PaneView:
    """The table of edges, with their rates over time, and below it the jobs that were counted."""
    edges = sorted(edges, key=_count, reverse=True)
    made = edge_columns([_in_short(edge.stats) for edge in edges])
    sparks = tuple(Text(sparkline(edge.rates, _SPARK_WIDTH)) for edge in edges)
    at = next(index for index, column in enumerate(made) if column.title == _AFTER) + 1
    made.insert(at, Column(_SPARK_TITLE, sparks, right=False, weight=75))
    rows: list[tuple[object, Edge, str]] = [
        ((one.stats.source, one.stats.target, one.stats.type), one, _edge_words(one))
        for one in edges
    ]
    drawn = columns.lines(made, width)
    view = table("edges", rows, drawn, empty="no messages were counted yet")
    return replace(view, items=[*view.items, *_job_items(jobs, width)]) if jobs else view


def _job_items(jobs: Sequence[JobStats], width: int) -> list[Item]:
    """An empty line, a heading, and a line for each kind of jobs."""
    values = [None, None, *jobs]
    return [
        _job_item(at, value, line)
        for at, (value, line) in enumerate(zip(values, job_stat_lines(jobs, width), strict=True))
    ]


def _job_item(at: int, job: JobStats | None, line: Text) -> Item:
    key = ("job", at) if job is None else (job.requester, job.worker, job.name)
    words = line.plain if job is None else f"{job.requester} {job.worker} {job.name}"
    return Item(key, job, lambda: line, lambda: words)


def _count(edge: Edge) -> int:
    """The number of its messages: busy edges stand first, and seldom change places."""
    return max(edge.stats.sent, edge.stats.handled)


def _in_short(stats: EdgeStats) -> EdgeStats:
    return msgspec.structs.replace(stats, type=short_type(stats.type))


def _edge_words(edge: Edge) -> str:
    return f"{edge.stats.source} {edge.stats.target} {edge.stats.type}"


def job_pane(jobs: Sequence[JobEntry] | None, columns: SteadyColumns, width: int) -> PaneView:
    """The table of open jobs, with bars of their progress."""
    entries = jobs or ()
    rows: list[tuple[object, JobEntry, str]] = [
        ((entry.wire_id, entry.worker), entry, _job_words(entry)) for entry in entries
    ]
    made = job_columns(entries, has_all=True, progress=progress_bar)
    empty = "asking the workers" if jobs is None else "no open jobs"
    summary = f"{len(entries)} open" if entries else ""
    return table("jobs", rows, columns.lines(made, width), summary=summary, empty=empty)


def _job_words(entry: JobEntry) -> str:
    return f"{entry.job_id} {entry.name or ''} {entry.requester} {entry.worker} {entry.state} {entry.label or ''}"


def progress_bar(progress: JobProgress | None) -> str:
    """The progress of a job as a bar and text; "-" for none."""
    text = progress_text(progress)
    share = _share(progress)
    return text if share is None else f"{bar(share, _BAR_WIDTH)} {text}"


def _share(progress: JobProgress | None) -> float | None:
    if progress is None:
        return None
    if progress.percent is not None:
        return progress.percent / _WHOLE
    if progress.done is not None and progress.total:
        return progress.done / progress.total
    return None


def dead_pane(dead: Sequence[DeadItem] | None, columns: SteadyColumns, width: int) -> PaneView:
    """The table of dead letters."""
    found = dead or ()
    rows: list[tuple[object, DeadItem, str]] = [
        (one.row.key, one, _dead_words(one)) for one in found
    ]
    drawn = columns.lines(dead_columns([one.row for one in found]), width)
    empty = "looking" if dead is None else "no dead letters"
    summary = f"{len(found)} shown" if found else ""
    return table("dead letters", rows, drawn, summary=summary, empty=empty)


def _dead_words(dead: DeadItem) -> str:
    row = dead.row
    return f"{row.key} {row.worker} {row.type or ''} {row.source or ''} {row.reason}"
