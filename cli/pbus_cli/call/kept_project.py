"""From the options -p and -f to what is kept of a project, running or not."""

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pbus.client.attachment import is_in_worker, refuse_unseen
from pbus.errors import AmbiguousProjectError, NothingRunningError
from pbus.process.project.discovery import choose_project, stopped_record
from pbus.process.project.history.log_filter import LogFilter
from pbus.process.project.history.run_history import Marks, Run, read_runs
from pbus.process.project.project import Project
from pbus.topology import load_topology
from pbus.topology.paths import working_folder
from pbus_cli.input.options import DEFAULT_FILE
from pbus_cli.terminal import console
from pbus_cli.views.run_lines import mark_text

if TYPE_CHECKING:
    from pbus.process.project.record import ProjectRecord


def kept_project(
    name: str | None, files: Sequence[Path] | None
) -> "tuple[Project, ProjectRecord | None]":
    """Find the project and its record; one that is stopped is found by its file or its name.

    Raises:
        NothingRunningError: There is none.
    """
    file = next(iter(files or ()), None)
    try:
        record = choose_project(name, file, working_folder(), os.environ)
        refuse_unseen(record)
        return Project.of_record(record), record
    except NothingRunningError:
        if not files and is_in_worker():
            raise
        stopped = None
        with contextlib.suppress(AmbiguousProjectError):  # what runs is asked for first
            stopped = stopped_record(name, file, working_folder())
        if stopped is not None:
            return Project.of_record(stopped), None
        found = files or [DEFAULT_FILE]
        if name is not None or not found[0].exists():
            raise
    return Project.of(load_topology(found, os.environ)), None


def kept_runs(project: Project) -> list[Run]:
    """The runs of a project; a file that cannot be read is said."""
    try:
        return read_runs(project)
    except OSError as error:
        console.warn(f"the runs of {project.name} cannot be read: {error}")
        return []


def log_filter(
    runs: Sequence[Run], since: float | None, until: float | None, grep: str | None, run: int | None
) -> LogFilter:
    """The conditions of a command.

    Raises:
        typer.BadParameter: The pattern is none, or there is no such run.
    """
    try:
        pattern = None if grep is None else re.compile(grep)
    except re.error as error:
        raise typer.BadParameter(f"{grep!r} is no pattern: {error}", param_hint="--grep") from None
    numbers = [one.number for one in runs]
    if run is not None and run not in numbers:
        kept = f"kept are {numbers[0]} to {numbers[-1]}" if numbers else "no run is kept"
        raise typer.BadParameter(f"there is no run {run}: {kept}", param_hint="--run")
    return LogFilter(since=since, until=until, pattern=pattern, run=run)


class RunMarks:
    """Tells the runs of lines, also of runs that begin meanwhile.

    Args:
        project: Whose lines.
        runs: Its runs so far.
    """

    def __init__(self, project: Project, runs: Sequence[Run]) -> None:
        self._project = project
        self._path = project.service_log_path("runs")
        self._size = _size(self._path)
        self._marks = Marks(runs)
        self._last: tuple[Run | None] | None = None

    def run_at(self, at: float) -> int | None:
        """The number of the run of a line; None where it is not kept."""
        run = self._marks.run_at(at)
        return None if run is None else run.number

    def refresh(self) -> None:
        """Take in runs that have begun or ended meanwhile."""
        size = _size(self._path)
        if size != self._size:
            self._size = size
            self._marks = Marks(kept_runs(self._project))

    def before(self, at: float) -> str:
        """The mark that goes before a line, where a run begins between it and the last; or "".

        The first line of all has none: where it stands in its run is not known.
        """
        run, last = self._marks.run_at(at), self._last
        self._last = (run,)
        if last is None or run is None or (last[0] and last[0].number >= run.number):
            return ""
        ended = last[0] and self._marks.run_at(last[0].began)  # as it is known now
        return mark_text(run, ended, has_colors=console.has_colors(sys.stdout)) + "\n"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
