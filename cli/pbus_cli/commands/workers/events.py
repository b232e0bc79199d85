"""`pbus events`: the state changes of workers as they happen."""

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.options import AsJson, ProjectName, TopologyFiles, parse_duration
from pbus_cli.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from pbus.client import Client
    from pbus.client.traffic.state_tail import StateTail
    from pbus.messages import BusWorkerStateMessage
    from pbus_cli.live.printer import LinePrinter


def events(
    count: Annotated[
        int | None,
        typer.Option("-n", "--count", metavar="N", min=1, help="End after so many."),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option("--for", metavar="TIME", parser=parse_duration, help="End then: 10s, 2m, 1h."),
    ] = None,
    as_json: AsJson = False,
    project: ProjectName = None,
    file: TopologyFiles = None,
) -> None:
    """Follow the state changes of the workers, on all hosts of the channel.

    JSON, one object a line: time, project, worker, state, previous, pid, detail.
    """
    from pbus.errors import NothingRunningError
    from pbus_cli.call.attach import call, choose

    attachment = choose(project, file)
    text = _formatter(as_json=as_json)
    try:
        call(attachment, lambda client: _print_all(client, client.events(), count, duration, text))
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


async def _print_all(
    client: "Client",
    changes: "StateTail",
    count: int | None,
    duration_s: float | None,
    text: "Callable[[BusWorkerStateMessage], str]",
) -> None:
    from pbus_cli.live.printer import LinePrinter, feed, stream_writer

    printer = LinePrinter(stream_writer(sys.stdout))
    async with changes:
        if sys.stderr.isatty():
            console.note(f"following {client.project} (Ctrl-C ends it)")
        await feed(printer, _print(changes, printer, count, duration_s, text))


async def _print(
    changes: "StateTail",
    printer: "LinePrinter",
    count: int | None,
    duration_s: float | None,
    text: "Callable[[BusWorkerStateMessage], str]",
) -> None:
    import asyncio

    printed = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(duration_s):
            async for change in changes:
                await printer.put_all(text(change))
                printed += 1
                if count is not None and printed >= count:
                    return


def _formatter(*, as_json: bool) -> "Callable[[BusWorkerStateMessage], str]":
    if as_json:
        return _json_line
    from shutil import get_terminal_size

    from pbus_cli.views.states import StateLines

    lines = StateLines(
        has_colors=console.has_colors(sys.stdout),
        width=get_terminal_size().columns if console.is_terminal() else None,
    )

    def line(change: "BusWorkerStateMessage") -> str:
        nonlocal lines
        lines = lines.grown(change)
        return lines.line(change)

    return line


def _json_line(change: "BusWorkerStateMessage") -> str:
    from pbus_cli.views.states import state_fields

    return console.json_text(state_fields(change))


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(events)
