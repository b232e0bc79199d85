"""The edges of a project: one line for each source, target and type, and for each kind of jobs."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from rich.text import Text

from pbus.client.traffic.edge_stats import EdgeStats, JobStats, Quantiles
from pbus_cli.views import colors
from pbus_cli.views.columns import Column, lines
from pbus_cli.views.figures import short_bytes, short_count

_TROUBLE: Final = "red"
_GOOD: Final = "completed"

Row = TypeVar("Row")


def edge_lines(edges: Sequence[EdgeStats], width: int | None = None) -> list[Text]:
    """A heading and the edges, none wider than `width` (None: as wide as needed)."""
    return lines(edge_columns(edges), width, colors.HEADING) if edges else []


def edge_columns(edges: Sequence[EdgeStats]) -> list[Column]:
    """The columns of edges."""
    return [
        _column(edges, "SOURCE", lambda edge: Text(edge.source), None),
        _column(edges, "TARGET", lambda edge: Text(edge.target), None),
        _column(edges, "TYPE", lambda edge: Text(edge.type or "?"), 90),
        _column(edges, "RATE", lambda edge: Text(rate_text(edge.rate)), None, right=True),
        _column(edges, "MESSAGES", lambda edge: Text(_messages(edge)), 70, right=True),
        _column(edges, "BYTES", lambda edge: Text(short_bytes(edge.bytes)), 30, right=True),
        _column(edges, "WAIT p50/95/99", lambda edge: Text(_times(edge.wait_s)), 50, right=True),
        _column(edges, "HANDLER", lambda edge: Text(_times(edge.handling_s)), 60, right=True),
        _column(edges, "ERRORS", lambda edge: _trouble(edge.errors), 65, right=True),
        _column(edges, "LOST", lambda edge: _trouble(edge.lost), 64, right=True),
        _column(edges, "UNDELIVERED", lambda edge: _trouble(edge.undelivered), 63, right=True),
    ]


def job_stat_lines(jobs: Sequence[JobStats], width: int | None = None) -> list[Text]:
    """An empty line, a heading and the jobs; nothing without any."""
    if not jobs:
        return []
    columns = [
        _column(jobs, "REQUESTER", lambda job: Text(job.requester), None),
        _column(jobs, "WORKER", lambda job: Text(job.worker), None),
        _column(jobs, "JOB", lambda job: Text(job.name or "-"), 90),
        _column(jobs, "DONE", lambda job: Text(short_count(job.outcomes.get(_GOOD, 0))), 70,
                right=True),
        _column(jobs, "LATENCY p50/95/99", lambda job: Text(_times(job.latency_s)), 50, right=True),
        _column(jobs, "OTHERWISE", _otherwise, 60),
    ]  # fmt: skip
    return [Text(), *lines(columns, width, colors.HEADING)]


def rate_text(rate: float) -> str:
    """Messages a second: "1.2k/s", "12/s", "0.5/s" or "-"."""
    if rate <= 0:
        return "-"
    return f"{rate:.2g}/s" if rate < 10 else f"{short_count(round(rate))}/s"  # noqa: PLR2004


def time_text(seconds: float) -> str:
    """Two digits and a unit: "45us", "1.2ms", "3.0s"."""
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * size:
            value = seconds / size
            return f"{value:.0f}{unit}" if value >= 9.95 else f"{value:.1f}{unit}"  # noqa: PLR2004
    return f"{seconds:.1f}s"


def _column(
    rows: Sequence[Row],
    title: str,
    cell: Callable[[Row], Text],
    weight: int | None,
    *,
    right: bool = False,
) -> Column:
    return Column(
        title, tuple(map(cell, rows)), right=right, gives=title in {"TYPE", "JOB"}, weight=weight
    )


def _messages(edge: EdgeStats) -> str:
    return short_count(edge.sent or edge.handled)


def _times(times: Quantiles | None) -> str:
    if times is None:
        return "-"
    return " ".join(map(time_text, (times.p50, times.p95, times.p99)))


def _trouble(count: int) -> Text:
    return Text(short_count(count), style=_TROUBLE) if count else Text("-")


def _otherwise(job: JobStats) -> Text:
    others = [
        f"{count:,} {name}" for name, count in job.outcomes.items() if name != _GOOD and count
    ]
    return Text(", ".join(others) or "-", style=_TROUBLE if others else "")
