"""`pbus stop`: stops workers and leaves them so."""

import typer

from pbus_cli.input.options import OrderTimeout, ProjectName, TopologyFiles, WorkerNames


def stop(
    workers: WorkerNames,
    timeout: OrderTimeout = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Stop workers and leave them so; the others go on."""
    from pbus_cli.call.control_workers import control

    control("stop", workers, project, file, timeout_s=timeout)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(stop)
