"""The event loop of a process: given by the topology, not by what is installed."""

import asyncio
import contextlib
import errno
import importlib
import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pbus.errors import LoopMissingError
from pbus.topology.model import Loop

T = TypeVar("T")


def require(loop: Loop) -> None:
    """Make sure that a loop is installed, before a process is started that needs it.

    Raises:
        LoopMissingError: It is not.
    """
    if loop != "asyncio" and importlib.util.find_spec(loop) is None:
        raise LoopMissingError(loop)


def run_on(loop: Loop, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on this kind of loop, as asyncio.run().

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


def run_patiently(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of a pbus process: its end does not wait for a name server."""
    with asyncio.Runner(loop_factory=_non_joining_loop) as runner:
        return runner.run(main)


class _NonJoiningResolverLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, but the process can end while a name server does not answer.

    asyncio resolves names in threads that it joins at its end, and so does the interpreter.
    """

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - likewise
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Resolve a name, as socket.getaddrinfo()."""
        found: asyncio.Future[Any] = self.create_future()
        wanted = (host, port, family, type, proto, flags)
        try:
            threading.Thread(
                target=self._resolve, args=(found, wanted), name="pbus resolve", daemon=True
            ).start()
        except RuntimeError as error:  # no room for another thread
            raise OSError(errno.EAGAIN, str(error)) from error
        return await found

    def _resolve(self, found: "asyncio.Future[Any]", wanted: tuple[Any, ...]) -> None:
        settle: Callable[[Any], object] = found.set_result
        try:
            outcome: Any = socket.getaddrinfo(*wanted)
        except Exception as error:  # noqa: BLE001 - raised by the waiting task
            settle, outcome = found.set_exception, error

        def set_outcome() -> None:
            if not found.done():
                settle(outcome)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.call_soon_threadsafe(set_outcome)


def _non_joining_loop() -> _NonJoiningResolverLoop:
    """Return a loop that waits for children without a thread for each, on Python 3.11, too."""
    loop = _NonJoiningResolverLoop()
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # an old kernel, a sandbox
            os.close(os.pidfd_open(os.getpid()))
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(loop)
            asyncio.set_child_watcher(watcher)
    return loop


def _factory(loop: Loop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "asyncio":
        return None
    require(loop)
    make: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(loop).new_event_loop
    return make
