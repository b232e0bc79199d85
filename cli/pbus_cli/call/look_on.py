"""Looking at a project that another process supervises: the display, or its log lines."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pbus.client import Attachment, Client
from pbus.client.attachment import while_running
from pbus.concurrency.waiting import first_of
from pbus.errors import NothingRunningError
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus.process.supervisor_events import Event
from pbus_cli.call.attach import choose
from pbus_cli.call.run_command import run
from pbus_cli.live.attached import AttachedFeed
from pbus_cli.live.plain import PlainDisplay
from pbus_cli.live.suspending import suspendable
from pbus_cli.terminal import console
from pbus_cli.views.board.arrangement import Pane


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
    focused: Pane = "traffic",
) -> None:
    """Show a project until the person leaves, or it ends.

    Args:
        project: Its name.
        files: Its topology.
        lines: Log lines that are shown first.
        is_plain: Print log lines; so it is where stdout is no terminal.
        focused: The pane that has the focus at first.

    Raises:
        NothingRunningError: No project of this machine matches.
    """
    attachment = choose(project, files)
    record = attachment.record
    if record is None:
        raise NothingRunningError(f"is named {attachment.project!r}, with logs on this machine,")
    plain = is_plain or not console.is_terminal()
    pane = None if plain else focused
    try:
        run(
            while_running(attachment, _show(attachment, record, lines, pane)),
            shows_warnings=plain,
        )
    except NothingRunningError:
        console.note(f"{attachment.project} has stopped")


async def _show(
    attachment: Attachment, record: ProjectRecord, lines: int, focused: Pane | None
) -> None:
    left = asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(left.set)

    display: _Display
    if focused is None:
        display = PlainDisplay(Project.of_record(record).log_paths(), on_closed=leave)
    else:
        from pbus_cli.live.live_display import LiveDisplay  # noqa: PLC0415 - on a terminal only

        board = LiveDisplay(
            attachment.project, lambda: attachment, on_closed=leave, on_left=leave, record=record
        )
        board.begin_at(focused)
        display = board
    try:
        async with Client.at(attachment) as client:
            feed = AttachedFeed(client, record, display, lines)
            with suspendable(display.suspend, display.resume):
                done, _ = await first_of(feed.run(), left.wait())
                if not done.cancelled():
                    done.result()
    finally:
        display.close()
