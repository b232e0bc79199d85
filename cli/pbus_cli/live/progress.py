"""The progress of a job: a bar on a terminal, text otherwise."""

import sys
from typing import Any, Final, Self

import msgspec
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pbus.jobs.job_events import EventType
from pbus.jobs.listing import JobProgress, progress_of
from pbus_cli.live.terminal_console import CleanConsole
from pbus_cli.terminal import console
from pbus_cli.views.tables.job_table import progress_text

_COUNTED: Final = ("done", "total", "percent")
_REST_WIDTH: Final = 48
_WHOLE: Final = 100


class JobDisplay:
    """Shows a job's progress on stderr; pieces of its stream go to stdout, a line each.

    Args:
        what: The job, for people.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def suspend(self) -> None:
        """Give the terminal back for a while."""
        if self._bar is not None:
            self._bar.stop()

    def resume(self) -> None:
        """Show the bar again."""
        if self._bar is not None:
            self._bar.start()

    def show(self, kind: EventType, data: dict[str, Any]) -> None:
        """Show an update or a stream message."""
        if kind == "stream_data":
            console.say_json(data)
            console.flush()
        elif kind == "stream_start":
            console.note(f"stream: {_json(data)}")
        elif (progress := progress_of(data)) is not None and _is_live():
            self._advance(progress, data)
        else:
            console.note(f"update: {_json(data)}")

    def _advance(self, progress: JobProgress, update: dict[str, Any]) -> None:
        done, total = progress.done, progress.total
        if done is None or not total:
            done, total = progress.percent or 0, _WHOLE
        rest = {name: value for name, value in update.items() if name not in _COUNTED}
        bar, task = self._opened()
        bar.update(
            task,
            completed=done,
            total=total,
            figures=progress_text(progress),
            rest=_json(rest)[:_REST_WIDTH] if rest else "",
        )
        bar.start()  # not before there is something to show; later it does nothing

    def _opened(self) -> tuple[Progress, TaskID]:
        if self._bar is None or self._task is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("{task.fields[rest]}", markup=False, style="dim"),
                console=CleanConsole(
                    file=sys.stderr,
                    soft_wrap=True,
                    highlight=False,
                    no_color=not console.has_colors(sys.stderr),
                ),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # then lines of data push the bar down
            )
            self._task = self._bar.add_task(self._what, total=None, figures="", rest="")
        return self._bar, self._task


def _is_live() -> bool:
    return sys.stderr.isatty() and not console.is_dumb()


def _json(data: dict[str, Any]) -> str:
    return msgspec.json.encode(data).decode()
