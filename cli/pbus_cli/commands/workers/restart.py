"""`pbus restart`: stops workers and starts them again."""

from typing import Annotated

import typer

from pbus_cli.input.options import OptionalWorkerNames, OrderTimeout, ProjectName, TopologyFiles


def restart(
    workers: OptionalWorkerNames = None,
    rolling: Annotated[
        bool,
        typer.Option("--rolling", help="One after the other; the next is ready before one drains."),
    ] = False,
    timeout: OrderTimeout = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Stop workers and start them again, all where none is named; returns when they are ready.

    They take what the topology says of them now. With --rolling a group of replicas gets one more
    meanwhile, and is left as it was where that does not become ready.

    Examples: pbus restart agent · pbus restart --rolling stt
    """
    from pbus_cli.call.control_workers import control

    control("roll" if rolling else "restart", workers or ["*"], project, file, timeout_s=timeout)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(restart)
