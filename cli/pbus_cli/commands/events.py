"""`pbus events`: the state changes of workers as they happen."""

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli import console
from pbus_cli.options import AsJson, ProjectName, TopologyFile, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from pbus.messages import BusWorkerStateMessage
    from pbus_cli.attach import Attachment
    from pbus_cli.live.printer import LinePrinter
    from pbus_cli.states import StateFollower


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
    file: TopologyFile = None,
) -> None:
    """Follow the state changes of the workers, on all hosts of the channel.

    JSON, one object a line: time, project, worker, state, previous, pid, detail.
    """
    from pbus.errors import NothingRunningError
    from pbus_cli.attach import choose, while_running
    from pbus_cli.running import run

    attachment = choose(project, file)
    following = _follow(attachment, count, duration, _formatter(as_json=as_json))
    try:
        run(while_running(attachment, following))
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


async def _follow(
    attachment: "Attachment",
    count: int | None,
    duration_s: float | None,
    text: "Callable[[BusWorkerStateMessage], str]",
) -> None:
    from pbus_cli.attach import open_bus
    from pbus_cli.live.printer import LinePrinter, feed, stream_writer
    from pbus_cli.states import StateFollower

    printer = LinePrinter(stream_writer(sys.stdout))
    follower = StateFollower()
    async with open_bus(attachment) as bus:
        await bus.subscribe(follower)
        if sys.stderr.isatty():
            console.note(f"following {attachment.project} (Ctrl-C ends it)")
        await feed(printer, _print(follower, printer, count, duration_s, text))


async def _print(
    follower: "StateFollower",
    printer: "LinePrinter",
    count: int | None,
    duration_s: float | None,
    text: "Callable[[BusWorkerStateMessage], str]",
) -> None:
    import asyncio

    printed = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(duration_s):
            while count is None or printed < count:
                await printer.put_all(text(await follower.next_change()))
                printed += 1


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
