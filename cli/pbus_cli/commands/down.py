"""`pbus down`: stops a project from any terminal."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli import console
from pbus_cli.names import kept_text
from pbus_cli.options import ProjectName, TopologyFile

if TYPE_CHECKING:
    from pbus.process.ledger import Ledger


def down(
    project: ProjectName = None,
    file: TopologyFile = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="S", min=0, help="Seconds that jobs in hand get to end."),
    ] = 30.0,
    purge: Annotated[
        bool, typer.Option("--purge", help="Drop the messages that are kept, dead letters, too.")
    ] = False,
) -> None:
    """Stop the project: its workers, its broker, its supervisor. Unhandled messages are kept."""
    from pbus.errors import OrphanedProjectError
    from pbus.process.ledger import Ledger
    from pbus.process.project import Project
    from pbus.process.projects import choose_project, end_orphans, stop_project
    from pbus.topology.paths import working_folder
    from pbus_cli.running import run

    try:
        record = choose_project(project, file, working_folder(), os.environ)
    except OrphanedProjectError as error:
        console.warn(error.message)
        run(end_orphans(error.record))
        console.note(f"ended what was left of {error.record.name}")
        return
    console.note(f"stopping {record.name} in {record.folder} (pid {record.pid}) ...")
    ledger = Ledger(Project.of_record(record).state_dir)
    if purge:
        ledger.ask_for_purge()
    if run(stop_project(record, timeout)):
        console.note(f"stopped {record.name}: nothing of it runs any more{_kept(ledger)}")
    else:
        console.warn(f"{record.name} did not stop within {timeout:g} s and was killed")


def _kept(ledger: "Ledger") -> str:
    count = ledger.kept()
    return f"; {kept_text(count)}" if count else ""


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(down)
