"""`pbus down`: stops a project from any terminal."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.name_hints import kept_text
from pbus_cli.input.options import ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.process.project.record import ProjectRecord
    from pbus.process.project.recovery_log import RecoveryLog
    from pbus.process.purge import Leftovers


def down(
    project: ProjectName = None,
    file: TopologyFiles = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="S",
            min=0,
            help="Seconds that jobs in hand get to end.",
            show_default="`grace` of each worker, or 30",
        ),
    ] = None,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Remove its messages, data and logs; also when it is down."),
    ] = False,
) -> None:
    """Stop the project: its workers, its broker, its supervisor. Unhandled messages are kept."""
    from pbus.errors import NothingRunningError, OrphanedProjectError
    from pbus.process.project.discovery import choose_project
    from pbus.process.project.stopping import end_orphans
    from pbus.topology.paths import working_folder
    from pbus_cli.call.run_command import run

    try:
        named = next(iter(file or ()), None)
        record = choose_project(project, named, working_folder(), os.environ)
    except OrphanedProjectError as error:
        console.warn(error.message)
        left = _leftovers(error.record) if purge else None
        run(end_orphans(error.record))
        console.note(f"ended what was left of {error.record.name}")
    except NothingRunningError:
        if not purge:
            raise
        from pbus.process.purge import stopped_leftovers

        left = stopped_leftovers(project, file or (), working_folder(), os.environ)
    else:
        left = _leftovers(record) if purge else None
        _stop(record, timeout, purge=purge)
    if left is not None:
        _purge(left)


def _leftovers(record: "ProjectRecord") -> "Leftovers":
    from pbus.process.purge import leftovers_of

    return leftovers_of(record, os.environ)


def _stop(record: "ProjectRecord", timeout: float | None, *, purge: bool) -> None:
    from pbus.process.project.project import Project
    from pbus.process.project.recovery_log import RecoveryLog
    from pbus.process.project.stopping import refuse_foreign, stop_project
    from pbus_cli.call.run_command import run

    refuse_foreign(record)
    console.note(f"stopping {record.name} in {record.folder} (pid {record.pid}) ...")
    recovery_log = RecoveryLog(Project.of_record(record).state_dir)
    if purge:
        recovery_log.request_purge()
    if run(stop_project(record, timeout)):
        console.note(f"stopped {record.name}: nothing of it runs any more{_kept(recovery_log)}")
    else:
        within = "in time" if timeout is None else f"within {timeout:g} s"
        console.warn(f"{record.name} did not stop {within} and was killed")


def _purge(left: "Leftovers") -> None:
    from pbus.process import purge
    from pbus_cli.call.run_command import run

    if not run(purge.purge(left)):
        console.warn(
            f"others use the channel {left.bus.channel}: only the messages kept for the workers of"
            f" {left.project.name} were removed from the broker"
        )
    console.note(f"purged {left.project.name}: its messages, data and logs are gone")


def _kept(recovery_log: "RecoveryLog") -> str:
    count = recovery_log.stored_count()
    return f"; {kept_text(count)}" if count else ""


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(down)
