"""`pbus ps`: the workers of a project, process truth and registry truth in one table."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pbus.bus.queues.store import QueueStats
    from pbus.client import Attachment, Client
    from pbus.observe import WorkerRow

_WATCH_S = 1.0


def ps(
    project: ProjectName = None,
    file: TopologyFiles = None,
    ready: Annotated[bool, typer.Option("--ready", help="Only workers that are ready.")] = False,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it live until Ctrl-C.")] = False,
) -> None:
    """List the workers: state, process, messages."""
    from pbus.errors import BusUnavailableError, NothingRunningError
    from pbus_cli.call.attach import call, choose

    attachment = choose(project, file)
    try:
        if watch and not as_json and console.is_terminal():
            from pbus_cli.call.look_on import show
            from pbus_cli.views.board.arrangement import Focus

            show(attachment, Focus("workers", is_zoomed=True, wanted="ready" if ready else ""))
        else:
            call(
                attachment,
                lambda client: _print(client, only_ready=ready, as_json=as_json, again=watch),
                ends_with_project=watch,
            )
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")
    except BusUnavailableError:
        if as_json:
            console.say_json({
                "project": attachment.project,
                "bus": attachment.shown_url,
                "workers": [],
            })
        elif attachment.record is not None:
            console.say(_without_broker(attachment))
        raise


async def _print(client: "Client", *, only_ready: bool, as_json: bool, again: bool) -> None:
    import asyncio

    from pbus.errors import BusUnavailableError

    while True:
        try:
            status = await client.status()
        except BusUnavailableError:
            if not again:
                raise
            await asyncio.sleep(_WATCH_S)  # the broker is restarted, or the project ends
            continue
        rows = _chosen(status.rows, only_ready=only_ready)
        if as_json:
            from pbus_cli.views.tables.queue_table import status_fields

            console.say_json(status_fields(status, rows))
        else:
            _print_table(rows, status.queues)
        for remark in status.remarks:
            console.note(remark)
        if not again:
            return
        console.flush()
        await asyncio.sleep(_WATCH_S)


def _chosen(rows: "list[WorkerRow]", *, only_ready: bool) -> "list[WorkerRow]":
    return [row for row in rows if row.ready] if only_ready else rows


def _print_table(rows: "list[WorkerRow]", queues: "Mapping[str, QueueStats] | None" = None) -> None:
    from pbus_cli.views.tables.queue_table import shared_lines
    from pbus_cli.views.tables.worker_table import error_lines, registry_lines

    if not rows:
        console.note("no workers")
        return
    if not console.is_terminal():
        table = [
            *registry_lines(rows, queues=queues),
            *shared_lines(rows, queues),
            *error_lines(rows),
        ]
        console.say("\n".join(line.plain.rstrip() for line in table))
        return
    from pbus_cli.live.terminal_console import terminal_console

    screen = terminal_console()
    table = registry_lines(rows, screen.width, queues=queues)
    for line in (*table, *shared_lines(rows, queues), *error_lines(rows, screen.width)):
        screen.print(line, end="\n", soft_wrap=True)


def _without_broker(attachment: "Attachment") -> str:
    record = attachment.record
    if record is None:
        return attachment.project
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started_at))
    return f"{record.name} in {record.folder}: supervisor pid {record.pid}, started {since}"


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(ps)
