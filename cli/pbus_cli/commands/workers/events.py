"""`pbus events`: the state changes of workers as they happen."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pbus_cli.input.options import (
    AsJson,
    Count,
    Duration,
    Grep,
    ProjectName,
    RunNumber,
    Since,
    TopologyFiles,
    Until,
)
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from pbus.process.project.history.log_filter import LogFilter
    from pbus.process.project.history.run_history import Run, StateEvent
    from pbus.process.project.project import Project
    from pbus_cli.views.states import Change


def events(
    count: Count = None,
    duration: Duration = None,
    since: Since = None,
    until: Until = None,
    grep: Grep = None,
    run: RunNumber = None,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Follow the state changes of the workers, on all hosts of the channel.

    With --since, --until, --grep or --run, and where nothing runs: those that this project's
    supervisor has kept, of all runs. JSON, one object a line: time, project, worker, state, previous, pid, detail.
    """
    from pbus.errors import NothingRunningError
    from pbus.process.project.history.log_filter import LogFilter
    from pbus_cli.call.attach import call, choose
    from pbus_cli.call.kept_project import log_filter
    from pbus_cli.live.following import Following

    if not (since is None and until is None and grep is None and run is None):
        kept, runs = _kept(project, file)
        chosen = log_filter(runs, since, until, grep, run)
        _show_kept(kept, runs, chosen, count, as_json=as_json)
        return
    try:
        attachment = choose(project, file)
    except NothingRunningError:
        kept, runs = _kept(project, file)
        if not runs:
            raise
        _show_kept(kept, runs, LogFilter(), count, as_json=as_json)
        console.note(f"{kept.name} is not running: these are of its runs")
        return
    text = _formatter(as_json=as_json)
    try:
        following = Following(text, count, duration)
        call(attachment, lambda client: following.run(client, client.events()))
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


def _kept(name: str | None, files: list[Path] | None) -> "tuple[Project, list[Run]]":
    from pbus_cli.call.kept_project import kept_project, kept_runs

    project, _ = kept_project(name, files)
    return project, kept_runs(project)


def _show_kept(
    project: "Project",
    runs: "list[Run]",
    chosen: "LogFilter",
    count: int | None,
    *,
    as_json: bool,
) -> None:
    """Print the events that are kept."""
    from pbus.process.project.history.log_filter import newest
    from pbus.process.project.history.run_history import read_events
    from pbus_cli.call.kept_project import RunMarks

    marks, text = RunMarks(project, runs), _formatter(as_json=as_json)

    def takes(event: "StateEvent") -> bool:
        words = f"{event.worker} {event.state} {event.detail}"
        return chosen.takes(event.time, words, marks.run_at(event.time))

    damaged: list[None] = []
    events = read_events(project, on_damage=lambda: damaged.append(None))
    for event in newest(filter(takes, events), count):
        console.say(text(event) if as_json else f"{marks.before(event.time)}{text(event)}")
    if damaged:
        path = project.service_log_path("events")
        console.warn(f"damaged lines of {path} were left out: {len(damaged)}")


def _formatter(*, as_json: bool) -> "Callable[[Change], str]":
    if as_json:
        return _json_line
    from shutil import get_terminal_size

    from pbus_cli.views.states import StateLines

    lines = StateLines(
        has_colors=console.has_colors(sys.stdout),
        width=get_terminal_size().columns if console.is_terminal() else None,
    )

    def line(change: "Change") -> str:
        nonlocal lines
        lines = lines.grown(change)
        return lines.line(change)

    return line


def _json_line(change: "Change") -> str:
    from pbus_cli.views.states import state_fields

    return console.json_text(state_fields(change))


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(events)
