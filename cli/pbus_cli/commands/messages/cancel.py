"""`pbus cancel`: asks a job's requester to cancel it."""

from typing import Annotated

import typer

from pbus_cli.input.options import ProjectName, TopologyFiles
from pbus_cli.terminal import console


def cancel(
    job_id: Annotated[
        str,
        typer.Argument(metavar="JOB_ID", help="From `pbus jobs`."),
    ],
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="What the worker is told.")
    ] = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Cancel an open job: its requester is asked and tells the workers.

    Fails with 1 when there is no such job, or its requester does not let it be cancelled.
    """
    from pbus_cli.call.attach import call, choose

    attachment, why = choose(project, file), reason or "pbus cancel"
    call(attachment, lambda client: client.cancel_job(job_id, reason=why))
    console.note(f"job {job_id} is cancelled")


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(cancel)
