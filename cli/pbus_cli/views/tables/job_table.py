"""The open jobs: one line for each worker's part of one."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.text import Text

from pbus.jobs.listing import JobEntry, JobProgress, JobState
from pbus_cli.views import colors
from pbus_cli.views.columns import Column, lines
from pbus_cli.views.figures import short_duration

_STATES: Final[dict[JobState, str]] = {
    "waiting": "magenta",
    "sent": "cyan",
    "queued": "cyan",
    "running": "green",
    "pending": "green",
}


def job_fields(entry: JobEntry) -> dict[str, Any]:
    """The JSON of a job, as of `pbus jobs --json`."""
    return {
        "id": entry.job_id,
        "name": entry.name,
        "requester": entry.requester,
        "worker": entry.worker,
        "state": entry.state,
        "age_s": round(entry.age_s, 3),
        "progress": entry.progress,
        "label": entry.label,
    }


def job_lines(entries: Sequence[JobEntry], width: int | None = None) -> list[Text]:
    """A heading and the jobs, none wider than `width` (None: as wide as needed)."""
    return lines(job_columns(entries), width, colors.HEADING)


def job_columns(
    entries: Sequence[JobEntry],
    *,
    has_all: bool = False,
    progress: Callable[[JobProgress | None], str] | None = None,
) -> list[Column]:
    """The columns of jobs.

    Args:
        entries: The jobs.
        has_all: Whether there is also the column of labels where no job has one.
        progress: Makes the text of a job's progress.
    """
    shown = progress or progress_text

    def column(
        title: str, cell: Callable[[JobEntry], Text], weight: int | None, *, right: bool = False
    ) -> Column:
        cells = tuple(cell(entry) for entry in entries)
        return Column(title, cells, right=right, gives=title == "NAME", weight=weight)

    columns = [
        column("JOB", lambda entry: Text(entry.job_id), None),
        column("NAME", lambda entry: Text(entry.name or "-"), None),
        column("REQUESTER", lambda entry: Text(entry.requester), 40),
        column("WORKER", lambda entry: Text(entry.worker), 60),
        column("STATE", lambda entry: Text(entry.state, style=_STATES[entry.state]), 50),
        column("AGE", lambda entry: Text(short_duration(entry.age_s)), 30, right=True),
        column("PROGRESS", lambda entry: Text(shown(entry.progress)), 70, right=True),
    ]
    if has_all or any(entry.label for entry in entries):
        columns.append(column("LABEL", lambda entry: Text(entry.label or ""), 20))
    return columns


def progress_text(progress: JobProgress | None) -> str:
    """The progress of a job: "12/40 30%", "30%", or "-"."""
    if progress is None:
        return "-"
    parts = []
    if progress.done is not None and progress.total is not None:
        parts.append(f"{progress.done:g}/{progress.total:g}")
    if progress.percent is not None:
        parts.append(f"{progress.percent:.0f}%")
    return " ".join(parts) or "-"
