"""Which event loop a process runs on: as the topology says, never as happens to be installed."""

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pbus.errors import LoopMissingError
from pbus.topology.model import Loop

T = TypeVar("T")


def require(loop: Loop) -> None:
    """See that a loop is installed, before somebody is started who needs it.

    Raises:
        LoopMissingError: It is not.
    """
    if loop != "asyncio" and importlib.util.find_spec(loop) is None:
        raise LoopMissingError(loop)


def run_on(loop: Loop, main: Coroutine[Any, Any, T]) -> T:
    """asyncio.run() on this kind of loop.

    Raises:
        LoopMissingError: It is not installed.
    """
    try:
        factory = _factory(loop)
    except BaseException:
        main.close()
        raise
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _factory(loop: Loop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "asyncio":
        return None
    require(loop)
    make: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(loop).new_event_loop
    return make
