"""`pbus events`: the state changes of workers as they happen."""

import sys
from typing import TYPE_CHECKING

import typer

from pbus_cli.input.options import AsJson, Count, Duration, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from pbus.messages import BusWorkerStateMessage


def events(
    count: Count = None,
    duration: Duration = None,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Follow the state changes of the workers, on all hosts of the channel.

    JSON, one object a line: time, project, worker, state, previous, pid, detail.
    """
    from pbus.errors import NothingRunningError
    from pbus_cli.call.attach import call, choose
    from pbus_cli.live.following import Following

    attachment = choose(project, file)
    text = _formatter(as_json=as_json)
    try:
        following = Following(text, count, duration)
        call(attachment, lambda client: following.run(client, client.events()))
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


def _formatter(*, as_json: bool) -> "Callable[[BusWorkerStateMessage], str]":
    if as_json:
        return _json_line
    from shutil import get_terminal_size

    from pbus_cli.views.states import StateLines

    lines = StateLines(
        has_colors=console.has_colors(sys.stdout),
        width=get_terminal_size().columns if console.is_terminal() else None,
    )

    def line(change: "BusWorkerStateMessage") -> str:
        nonlocal lines
        lines = lines.grown(change)
        return lines.line(change)

    return line


def _json_line(change: "BusWorkerStateMessage") -> str:
    from pbus_cli.views.states import state_fields

    return console.json_text(state_fields(change))


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(events)
