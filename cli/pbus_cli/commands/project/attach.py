"""`pbus attach`: the live display of a project that runs in the background."""

from typing import TYPE_CHECKING, Annotated

import typer

from pbus_cli.input.options import ProjectName, TopologyFiles
from pbus_cli.terminal import console

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pbus.client import Attachment
    from pbus.process.project.record import ProjectRecord
    from pbus_cli.launch.foreground import Display


def attach(
    project: ProjectName = None,
    file: TopologyFiles = None,
    lines: Annotated[
        int,
        typer.Option("-n", "--lines", metavar="N", min=0, help="Log lines that are shown first."),
    ] = 100,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print log lines instead of the live display.")
    ] = False,
) -> None:
    """Show what `pbus up` shows of a project that runs already, in the background or elsewhere here.

    Leaving it (Ctrl-C) leaves the project running; it ends when the project does. Any number may be
    attached at once.

    Example: pbus up -d && pbus attach
    """
    from pbus.errors import NothingRunningError
    from pbus_cli.call.attach import choose

    attachment = choose(project, file)
    if attachment.record is None:
        raise NothingRunningError(f"is named {attachment.project!r}, with logs on this machine,")
    try:
        _show(attachment, attachment.record, lines, is_plain=plain or not console.is_terminal())
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


def _show(attachment: "Attachment", record: "ProjectRecord", lines: int, *, is_plain: bool) -> None:
    from pbus.client.attachment import while_running
    from pbus_cli.call.run_command import run

    async def main() -> None:
        import asyncio

        closed = asyncio.Event()
        loop = asyncio.get_running_loop()
        await _feed(
            attachment,
            record,
            lines,
            closed,
            _display(attachment, record, lambda: _set(loop, closed), is_plain=is_plain),
        )

    run(while_running(attachment, main()), shows_warnings=is_plain)


def _set(loop: "asyncio.AbstractEventLoop", closed: "asyncio.Event") -> None:
    import contextlib

    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(closed.set)


def _display(
    attachment: "Attachment",
    record: "ProjectRecord",
    on_closed: "Callable[[], None]",
    *,
    is_plain: bool,
) -> "Display":
    from pbus.process.project.project import Project
    from pbus_cli.live.live_display import LiveDisplay
    from pbus_cli.live.plain import PlainDisplay

    if is_plain:
        names = Project.of_record(record).log_paths()
        return PlainDisplay(names, on_closed=on_closed)
    display = LiveDisplay(
        attachment.project, attachment.new_bus, on_closed=on_closed, record=record
    )
    display.tell("Ctrl-C leaves; the workers run on")
    return display


async def _feed(
    attachment: "Attachment",
    record: "ProjectRecord",
    lines: int,
    closed: "asyncio.Event",
    display: "Display",
) -> None:
    from pbus.client import Client
    from pbus.concurrency.waiting import first_of
    from pbus_cli.live.attached import AttachedFeed
    from pbus_cli.live.suspending import suspendable

    try:
        async with Client.at(attachment) as client:
            feed = AttachedFeed(client, record, display, lines)
            with suspendable(display.suspend, display.resume):
                done, _ = await first_of(feed.run(), closed.wait())
                if not done.cancelled():
                    done.result()
    finally:
        display.close()


def register(app: typer.Typer) -> None:
    """Add the command to the tree."""
    app.command()(attach)
