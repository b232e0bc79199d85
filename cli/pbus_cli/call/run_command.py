"""Runs a command's coroutine until it is done or a signal ends it."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from pbus.process.system.event_loop import run_patiently
from pbus_cli.terminal import logging_setup
from pbus_cli.terminal.console import TerminatedError

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], *, shows_warnings: bool = True) -> T:
    """Run a command's coroutine; SIGTERM cancels it as Ctrl-C does.

    Args:
        main: The coroutine.
        shows_warnings: What the library warns of goes to stderr; not under a full-screen display.

    Raises:
        TerminatedError: SIGTERM came.
        KeyboardInterrupt: Ctrl-C came.
    """
    if shows_warnings:
        logging_setup.show_on_stderr()
    else:
        logging_setup.hide()
    return run_patiently(_until_terminated(main))


async def _until_terminated(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(main)
    loop = asyncio.get_running_loop()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await task
    except asyncio.CancelledError:
        if terminated:
            raise TerminatedError from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
