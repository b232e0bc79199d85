"""Runs a command's coroutine until it is done or a signal ends it."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from pbus_cli.console import TerminatedError

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; SIGTERM cancels it as Ctrl-C does.

    Raises:
        TerminatedError: SIGTERM came.
        KeyboardInterrupt: Ctrl-C came.
    """
    return asyncio.run(_until_terminated(main))


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
