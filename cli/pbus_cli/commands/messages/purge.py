"""`pbus purge`: drops the messages that wait for a worker."""

from typing import Annotated

import typer

from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles
from pbus_cli.terminal import console


def purge(
    worker: Annotated[
        str, typer.Argument(metavar="WORKER", help="Whose; the name of replicas means all of them.")
    ],
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Drop the messages that wait for a worker; those in flight and dead letters stay."""
    from pbus_cli.call.attach import call, choose, names_as

    attachment = choose(project, file)
    with names_as("WORKER"):
        count = call(attachment, lambda client: client.purge(worker), ends_with_project=False)
    if as_json:
        console.say_json({"worker": worker, "dropped": count})
    else:
        console.note(f"{count:,} messages for {worker} dropped")


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(purge)
