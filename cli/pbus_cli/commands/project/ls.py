"""`pbus ls`: all projects that run on this machine."""

from typing import TYPE_CHECKING

import typer

from pbus_cli.input.options import AsJson
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus_cli.views.tables.project_table import ProjectRow


def ls(as_json: AsJson = False) -> None:
    """List the projects that run on this machine: where, since when, how many workers are ready."""
    from pbus.process.project.discovery import running_projects
    from pbus_cli.call.project_summary import summarize
    from pbus_cli.call.run_command import run

    rows = run(summarize(running_projects()))
    if as_json:
        console.say_json({"projects": rows})
    else:
        _print(rows)


def _print(rows: "list[ProjectRow]") -> None:
    from pbus_cli.views.tables.project_table import project_lines

    if not rows:
        console.note("no project runs on this machine")
        return
    if not console.is_terminal():
        console.say("\n".join(line.plain.rstrip() for line in project_lines(rows)))
        return
    from pbus_cli.live.terminal_console import terminal_console

    screen = terminal_console()
    for line in project_lines(rows, screen.width):
        screen.print(line, end="\n", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(ls)
