"""`backend: memory`: the command's own process hosts the workers, and its terminal stays theirs."""

import asyncio
import contextlib
import os
import pdb  # noqa: T100 - it is what this is for
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Final

from pbus.concurrency.forks import drop_signal, hold_signal
from pbus.errors import WorkerLoadError
from pbus.process.in_process import InProcessRunner
from pbus.process.project.project import Project
from pbus.process.system.event_loop import run_on
from pbus.topology import Topology
from pbus.topology.selection import Selection
from pbus_cli.terminal import console, logging_setup

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def host(topology: Topology, selection: Selection) -> int:
    """Run all workers here until they have ended; returns the exit code.

    Raises:
        PbusError: It cannot begin.
    """
    logging_setup.show_everything()
    if "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _stop_here
    runner = InProcessRunner(topology, Project.of(topology), selection=selection, report=_tell)
    try:
        return run_on(topology.loop, _host(runner))
    except WorkerLoadError as error:
        if error.__cause__ is not None:  # the worker's author needs the traceback
            console.note("".join(traceback.format_exception(error.__cause__)).rstrip())
        raise


def _tell(worker: str, what: str) -> None:
    console.note(f"{worker} | {what}")


def _stop_here(*_args: Any, **_options: Any) -> None:
    """breakpoint() without pdb's own Ctrl-C, which would keep the project from ending by it."""
    pdb.Pdb(nosigint=True).set_trace(sys._getframe(1))  # noqa: SLF001 - as pdb itself does


async def _host(runner: InProcessRunner) -> int:
    with _signals(runner) as received:
        code = await runner.run()
    return 128 + received[0] if received else code


@contextlib.contextmanager
def _signals(runner: InProcessRunner) -> Iterator[list[int]]:
    """Have signals end the workers, or interrupt one that keeps the loop to itself."""
    loop = asyncio.get_running_loop()
    received: list[int] = []
    obeyed: list[int] = []

    def stop(number: int) -> None:
        obeyed.append(number)
        again = "" if len(obeyed) > 1 else "; Ctrl-C again stops at once"
        console.note(f"stopping{again}")
        runner.request_stop(signal.Signals(number).name)

    def receive(number: int, _frame: Any) -> None:
        if len(obeyed) < len(received):  # the loop has not come to the last one
            raise KeyboardInterrupt
        received.append(number)
        loop.call_soon_threadsafe(stop, number)

    heeded = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, receive) for number in heeded}  # ignored: by nohup
    for number, handler in before.items():
        hold_signal(number, handler)
    try:
        yield received
    finally:
        for number, handler in before.items():
            drop_signal(number)
            signal.signal(number, handler)
