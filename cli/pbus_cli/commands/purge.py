"""`pbus purge`: drops what waits for a worker."""

from typing import Annotated

import typer

from pbus_cli import console
from pbus_cli.options import AsJson, ProjectName, TopologyFile


def purge(
    worker: Annotated[
        str, typer.Argument(metavar="WORKER", help="Whose; the name of replicas means all of them.")
    ],
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFile = None,
) -> None:
    """Drop the messages that wait for a worker; what is in its hands, and dead letters, stay."""
    from pbus.names import stands_for
    from pbus_cli.attach import Attachment, choose, mail_of, open_bus
    from pbus_cli.names import unknown_name
    from pbus_cli.running import run

    attachment = choose(project, file)

    async def empty(at: Attachment) -> int:
        async with open_bus(at) as bus:
            mail = mail_of(bus, at)
            names = [report.name for report in await mail.stats()]
            meant = [name for name in names if stands_for(worker, name)]
            if not meant:
                message = unknown_name("mailbox", worker, names)
                raise typer.BadParameter(message, param_hint="WORKER")
            return sum([await mail.purge(name) for name in meant])

    count = run(empty(attachment))
    if as_json:
        console.say_json({"worker": worker, "dropped": count})
    else:
        console.note(f"{count:,} messages for {worker} dropped")


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(purge)
