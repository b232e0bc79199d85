"""`pbus restart`: stops workers and starts them again."""

import typer

from pbus_cli.input.options import OrderTimeout, ProjectName, TopologyFiles, WorkerNames


def restart(
    workers: WorkerNames,
    timeout: OrderTimeout = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Stop workers and start them again; returns when they are ready."""
    from pbus_cli.call.control_workers import control

    control("restart", workers, project, file, timeout_s=timeout)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(restart)
