"""`pbus cancel`: has a job cancelled by whoever asked for it."""

from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli import console
from pbus_cli.options import ProjectName, TopologyFile

if TYPE_CHECKING:
    from pbus.jobs.listing import CancelOutcome
    from pbus_cli.attach import Attachment


def cancel(
    job_id: Annotated[
        str,
        typer.Argument(metavar="JOB_ID", help="From `pbus jobs`."),
    ],
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="What the worker is told.")
    ] = None,
    project: ProjectName = None,
    file: TopologyFile = None,
) -> None:
    """Cancel an open job: asks its requester, who tells the workers.

    Fails with 1 when there is no such job, or its requester does not let it be cancelled.
    """
    from pbus_cli.attach import choose, while_running
    from pbus_cli.running import run

    attachment = choose(project, file)
    why = reason or "pbus cancel"
    outcome = run(while_running(attachment, _cancel(attachment, job_id, why)))
    if outcome == "cancelled":
        console.note(f"job {job_id} is cancelled")
        return
    problem = "is over" if outcome == "unknown" else "was asked for as one that is not cancellable"
    console.fail(f"job {job_id} {problem}")
    raise typer.Exit(console.FAILED)


async def _cancel(attachment: "Attachment", job_id: str, reason: str) -> "CancelOutcome":
    from pbus_cli.attach import open_bus
    from pbus_cli.census import Census, find_job

    async with open_bus(attachment) as bus:
        census = Census(bus)
        await bus.subscribe(census)
        return await census.cancel(find_job(job_id, await census.take()), reason)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(cancel)
