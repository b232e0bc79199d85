"""Looking at a project that another process supervises: the display, or its log lines."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from pbus.client import Attachment, Client
from pbus.client.attachment import while_running
from pbus.concurrency.waiting import first_of
from pbus.errors import NothingRunningError
from pbus.process.project.project import Project
from pbus.process.supervisor_events import BrokerReady, Event
from pbus_cli.call.attach import choose
from pbus_cli.call.run_command import run
from pbus_cli.live.attached import AttachedFeed
from pbus_cli.live.plain import PlainDisplay
from pbus_cli.live.suspending import suspendable
from pbus_cli.terminal import console
from pbus_cli.views.board.arrangement import Focus

_LINES: Final = 100


class _Display(Protocol):
    def hear(self, event: Event) -> None: ...

    def suspend(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


def look_on(
    project: str | None,
    files: Sequence[Path] | None,
    lines: int,
    *,
    is_plain: bool,
    focus: Focus | None = None,
) -> None:
    """Show a project until the person leaves, or it ends.

    Args:
        project: Its name.
        files: Its topology.
        lines: Log lines that are shown first.
        is_plain: Print log lines; so it is where stdout is no terminal.
        focus: What the display shows first.

    Raises:
        NothingRunningError: No project matches; for log lines, none of this machine.
    """
    attachment = choose(project, files)
    if not is_plain and console.is_terminal():
        show(attachment, focus or Focus(), lines)
        return
    if attachment.record is None:
        raise NothingRunningError(f"is named {attachment.project!r}, with logs on this machine,")
    paths = Project.of_record(attachment.record).log_paths()
    _run(attachment, lambda leave: PlainDisplay(paths, on_closed=leave), lines, shows_warnings=True)


def show(attachment: Attachment, focus: Focus, lines: int = _LINES) -> None:
    """Open the display of a project, which may run elsewhere, until the person leaves, or it ends.

    Args:
        attachment: The project.
        focus: What is shown first.
        lines: Log lines that are shown first.

    Raises:
        BusUnavailableError: The broker does not answer.
        UnknownNameError: A name is of no worker that runs or was counted.
    """

    def make(leave: Callable[[], None]) -> _Display:
        from pbus_cli.live.live_display import LiveDisplay  # noqa: PLC0415 - on a terminal only

        display = LiveDisplay(
            attachment.project,
            lambda: attachment,
            on_closed=leave,
            on_left=leave,
            record=attachment.record,
        )
        display.begin_at(focus)
        return display

    _run(attachment, make, lines, shows_warnings=False, names=focus.names)


def _run(
    attachment: Attachment,
    make: Callable[[Callable[[], None]], _Display],
    lines: int,
    *,
    shows_warnings: bool,
    names: tuple[str, ...] = (),
) -> None:
    showing = while_running(attachment, _show(attachment, make, lines, names))
    try:
        run(showing, shows_warnings=shows_warnings)
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


async def _show(
    attachment: Attachment,
    make: Callable[[Callable[[], None]], _Display],
    lines: int,
    names: tuple[str, ...],
) -> None:
    left = asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(left.set)

    async with Client.at(attachment) as client:  # an error now is better than an empty screen
        if names:
            await client.stats(*names)
        display = make(leave)
        try:
            with suspendable(display.suspend, display.resume):
                done, _ = await first_of(_feed(client, display, lines), left.wait())
                if not done.cancelled():
                    done.result()
        finally:
            display.close()


async def _feed(client: Client, display: _Display, lines: int) -> None:
    """Tell a display of events and log lines, as far as they are on this machine."""
    record = None if client.attachment is None else client.attachment.record
    if record is None:
        display.hear(BrokerReady(client.bus.url))
        await asyncio.Event().wait()
    else:
        await AttachedFeed(client, record, display, lines).run()
