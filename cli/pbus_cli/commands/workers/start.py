"""`pbus start`: starts workers that were stopped, have ended or failed."""

import typer

from pbus_cli.input.options import OrderTimeout, ProjectName, TopologyFiles, WorkerNames


def start(
    workers: WorkerNames,
    timeout: OrderTimeout = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Start workers that were stopped, have ended or failed; returns when they are ready."""
    from pbus_cli.call.control_workers import control

    control("start", workers, project, file, timeout_s=timeout)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(start)
