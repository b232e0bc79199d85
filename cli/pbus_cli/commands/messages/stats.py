"""`pbus stats`: messages and jobs by edge: rates, times, errors and losses."""

from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.completing import worker_names
from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from pbus.client import Client, ProjectStats

_WATCH_S = 1.0


def stats(
    workers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORKER...]",
            help="Only edges from or to these.",
            show_default=False,
            autocompletion=worker_names,
        ),
    ] = None,
    project: ProjectName = None,
    file: TopologyFiles = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it live until Ctrl-C.")] = False,
) -> None:
    """Show messages and jobs by edge: rate, bytes, waiting, handling, errors, losses.

    As the workers counted them since `pbus up`; nothing is followed or decoded for it.
    """
    from pbus_cli.call.attach import call, choose, names_as

    attachment, names = choose(project, file), tuple(workers or ())
    with names_as("WORKER"):
        if watch and not as_json and console.is_terminal():
            from pbus_cli.call.look_on import show
            from pbus_cli.views.board.arrangement import Focus

            show(attachment, Focus("edges", is_zoomed=True, names=names))
            return
        call(
            attachment,
            lambda client: _print(client, names, as_json=as_json, again=watch),
            ends_with_project=watch,
        )


async def _print(client: "Client", names: tuple[str, ...], *, as_json: bool, again: bool) -> None:
    import asyncio

    while True:
        found = await client.stats(*names)
        if as_json:
            console.say_json({
                "project": found.project,
                "edges": found.edges,
                "jobs": found.jobs,
            })
        else:
            _print_table(found)
        for remark in found.remarks:
            console.note(remark)
        if not again:
            return
        console.flush()
        await asyncio.sleep(_WATCH_S)


def _print_table(found: "ProjectStats") -> None:
    from pbus_cli.views.tables.edge_lines import edge_lines, job_stat_lines

    if not found.edges and not found.jobs:
        console.note("no messages were counted")
        return
    width, screen = None, None
    if console.is_terminal():
        from pbus_cli.live.terminal_console import terminal_console

        screen = terminal_console()
        width = screen.width
    table = [*edge_lines(found.edges, width), *job_stat_lines(found.jobs, width)]
    if screen is None:
        console.say("\n".join(line.plain.rstrip() for line in table))
        return
    for line in table:
        screen.print(line, end="\n", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(stats)
