"""`pbus down`: stops a project from any terminal."""

from typing import Annotated

import typer

from pbus_cli import console
from pbus_cli.options import ProjectName, TopologyFile


def down(
    project: ProjectName = None,
    file: TopologyFile = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="S", min=0, help="Seconds for an orderly stop, then kill."
        ),
    ] = 30.0,
) -> None:
    """Stop the project: its workers, its broker, its supervisor."""
    from pathlib import Path

    from pbus.process.projects import choose_project, stop_project
    from pbus_cli.running import run

    record = choose_project(project, file, Path.cwd())
    console.note(f"stopping {record.name} in {record.folder} (pid {record.pid}) ...")
    if run(stop_project(record, timeout)):
        console.note(f"stopped {record.name}: nothing of it runs any more")
    else:
        console.warn(f"{record.name} did not stop within {timeout:g} s and was killed")


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(down)
