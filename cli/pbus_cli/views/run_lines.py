"""Runs of a project: a table, and the marks between the lines of two."""

import time
from collections.abc import Callable, Sequence

from rich.text import Text

from pbus.process.project.history.run_history import Run
from pbus_cli.views import colors
from pbus_cli.views.cells import rendered
from pbus_cli.views.columns import Column, lines
from pbus_cli.views.figures import short_duration

_STYLES = {"running": "green", "failed": "red", "crashed": "red"}


def date_time(at: float) -> str:
    """A time with its date, by the clock of this place."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return "?"


def mark_text(run: Run, before: Run | None, *, has_colors: bool) -> str:
    """The line that stands where a run begins."""
    end = f" (run {before.number} {before.outcome})" if before is not None else ""
    text = f"--- run {run.number} began {date_time(run.began)}{end} ---"
    return rendered(text, colors.HEADING) if has_colors else text


def run_lines(rows: Sequence[Run], now: float, width: int | None = None) -> list[Text]:
    """A heading and the runs, none wider than `width` (None: as wide as needed)."""

    def column(
        title: str, cell: Callable[[Run], str], weight: int | None, *, right: bool = False
    ) -> Column:
        cells = tuple(Text(cell(row)) for row in rows)
        return Column(title, cells, right=right, gives=title == "REASON", weight=weight)

    outcomes = tuple(Text(row.outcome, style=_STYLES.get(row.outcome, "")) for row in rows)
    columns = [
        column("RUN", lambda row: str(row.number), None, right=True),
        column("BEGAN", lambda row: date_time(row.began), None),
        column("ENDED", lambda row: "-" if row.ended is None else date_time(row.ended), 30),
        column("TIME", lambda row: _duration(row, now), 20, right=True),
        Column("HOW", outcomes, weight=None),
        column("CODE", lambda row: _number(row.code), 15, right=True),
        column("WORKERS", lambda row: _number(row.workers), 20, right=True),
        column("RESTARTS", lambda row: _number(row.restarts), 25, right=True),
        column("REASON", lambda row: row.reason, 10),
    ]
    return lines(columns, width, colors.HEADING)


def _duration(run: Run, now: float) -> str:
    end = now if run.outcome == "running" else run.ended
    return "-" if end is None else short_duration(max(0.0, end - run.began))


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
