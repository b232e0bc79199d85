"""Supervising in the foreground: this process is the supervisor, a display looks on."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from pbus.concurrency.background import running
from pbus.observe import HostRecord
from pbus.process.supervisor.supervisor import Supervisor
from pbus.process.supervisor_events import Event
from pbus_cli.live import channel_watch
from pbus_cli.live.suspending import suspendable
from pbus_cli.terminal import console, logging_setup

_LOOK_S: Final = 0.25
_CODES: Final = {
    signal.SIGINT: console.INTERRUPTED,
    signal.SIGTERM: console.TERMINATED,
    signal.SIGHUP: 128 + signal.SIGHUP,
}
STOPPING: Final = "stopping; Ctrl-C again kills what is left"
_KILLING: Final = "killing what is left"


class Display(Protocol):
    """Looks on; never waits."""

    def hear(self, event: Event) -> None:
        """Take in an event."""

    def tell(self, text: str) -> None:
        """Show what the command is doing."""

    def warn(self, text: str) -> None:
        """Show a warning of the library; called from any thread."""

    def look(self, record: HostRecord) -> None:
        """Take the newest record."""

    def suspend(self) -> None:
        """This process is about to be stopped: give the terminal back."""

    def resume(self) -> None:
        """It goes on: take the terminal again."""

    def close(self) -> None:
        """Stop showing."""


async def supervise(
    supervisor: Supervisor,
    log: Path,
    make_display: Callable[[Callable[[], None]], Display],
) -> int:
    """Run a supervisor until it is over; signals ask it to stop.

    Args:
        supervisor: Not yet running.
        log: Where what it logs goes.
        make_display: Makes the display, given a callback for the end of its reader.

    Returns:
        The supervisor's code, or that of the signal that ended it.
    """
    loop = asyncio.get_running_loop()
    received: list[signal.Signals] = []

    def stop_unseen() -> None:
        with contextlib.suppress(RuntimeError):  # it is over already
            loop.call_soon_threadsafe(supervisor.request_stop, "the output has no reader")

    display = make_display(stop_unseen)
    logging_setup.write_down(log, display.warn, except_thread=channel_watch.THREAD)

    def stop(number: signal.Signals) -> None:
        display.tell(_KILLING if received else STOPPING)
        received.append(number)
        supervisor.request_stop(number.name)

    heeded = [number for number in _CODES if not _stays_ignored(number)]
    for number in heeded:
        loop.add_signal_handler(number, stop, number)
    supervisor.listen(display.hear)
    try:
        async with running(_look(supervisor, display)):
            with suspendable(display.suspend, display.resume):
                code = await supervisor.run()
    finally:
        display.close()
        for number in heeded:
            loop.remove_signal_handler(number)
    return _CODES[received[0]] if received else code


def _stays_ignored(number: signal.Signals) -> bool:
    """Whether the launcher (nohup, say) had the signal ignored, so that the project outlives its terminal."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


async def _look(supervisor: Supervisor, display: Display) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            display.look(supervisor.record())
            await asyncio.sleep(_LOOK_S)
