"""Tools that read what is kept of a project, running or not: logs, events."""

import asyncio
import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pbus.process.project.history.log_filter import LogFilter, newest
from pbus.process.project.history.run_history import read_events
from pbus.process.project.log_reader import iter_lines
from pbus.process.project.project import Project
from pbus_cli.call.kept_project import RunMarks, kept_project, kept_runs, log_filter
from pbus_cli.call.log_paths import log_paths
from pbus_cli.tools.tool import ProjectChoice, Tool, ToolArguments
from pbus_cli.views.states import state_fields

_Ago = (
    Annotated[float, Meta(gt=0, le=1e9, description="Only what is not older than so many seconds.")]
    | None
)
_Grep = (
    Annotated[str, Meta(max_length=500, description="Only where this regular expression is found.")]
    | None
)
_Run = Annotated[int, Meta(description="Only of the run of this number.")] | None
_Count = Annotated[int, Meta(ge=1, le=500, description="How many at most: the newest.")]


class _Logs(ToolArguments):
    workers: Annotated[
        list[str], Meta(max_length=100, description="Workers or groups; all where none is given.")
    ] = msgspec.field(default_factory=list)
    count: _Count = 100
    since_s: _Ago = None
    grep: _Grep = None
    run: _Run = None


class _Events(ToolArguments):
    count: _Count = 100
    since_s: _Ago = None
    grep: _Grep = None
    run: _Run = None


async def _logs(choice: ProjectChoice, given: _Logs) -> dict[str, Any]:
    return await asyncio.to_thread(_read_logs, choice, given)


async def _events(choice: ProjectChoice, given: _Events) -> dict[str, Any]:
    return await asyncio.to_thread(_read_events, choice, given)


def _read_logs(choice: ProjectChoice, given: _Logs) -> dict[str, Any]:
    project, marks, chosen = _kept(choice, given)
    lines = iter_lines(log_paths(project, given.workers))
    taken = (one for one in lines if chosen.takes(one.time, one.text, marks.run_at(one.time)))
    return {
        "project": project.name,
        "lines": [
            {
                "time": one.time,
                "run": marks.run_at(one.time),
                "worker": one.worker,
                "stream": one.stream,
                "text": one.text,
            }
            for one in newest(taken, given.count)
        ],
    }


def _read_events(choice: ProjectChoice, given: _Events) -> dict[str, Any]:
    project, marks, chosen = _kept(choice, given)
    taken = (
        one
        for one in read_events(project, on_damage=lambda: None)
        if chosen.takes(one.time, f"{one.worker} {one.state} {one.detail}", marks.run_at(one.time))
    )
    return {
        "project": project.name,
        "events": [
            {**state_fields(one), "run": marks.run_at(one.time)}
            for one in newest(taken, given.count)
        ],
    }


def _kept(choice: ProjectChoice, given: _Logs | _Events) -> tuple[Project, RunMarks, LogFilter]:
    project, _ = kept_project(choice.project, choice.files)
    runs = kept_runs(project)
    since = None if given.since_s is None else time.time() - given.since_s
    return project, RunMarks(project, runs), log_filter(runs, since, None, given.grep, given.run)


KEPT_TOOLS = (
    Tool(
        "logs",
        "What workers wrote to stdout and stderr, of this run and earlier ones, newest last.",
        _Logs, _logs, "lines",
    ),
    Tool(
        "events",
        "State changes of workers that were kept, with reasons (exit codes, signals), newest last.",
        _Events, _events, "events",
    ),
)  # fmt: skip
