"""An event loop in a thread of its own, for callers without one."""

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pbus.errors import CallTimeoutError, ClientClosedError

T = TypeVar("T")

_CANCEL_S: Final = 3.0  # what a call that was given up gets to cancel its job


class LoopThread:
    """An event loop in a thread of its own; ends with the interpreter if it is not closed before."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="pbus client", daemon=True)
        self._thread.start()
        self.close = weakref.finalize(self, _end, self._loop, self._thread)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in this thread."""
        return threading.current_thread() is self._thread

    def call(self, name: str, make: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Await something in the loop and wait for its result.

        Args:
            name: Of the method that was called.
            make: Gives what is to be awaited; called in the loop.
            timeout_s: Seconds to wait; then it is cancelled.

        Raises:
            CallTimeoutError: There was no result in time.
            ClientClosedError: The loop has ended, or is the one that calls.
        """
        if self.is_current or not self._thread.is_alive():
            raise ClientClosedError("closed, or called from its own loop")
        ended = threading.Event()
        future = asyncio.run_coroutine_threadsafe(_noting_end(make, ended), self._loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.CancelledError:  # by close(), from another thread
            raise ClientClosedError("closed") from None
        except BaseException as error:
            if future.done():
                raise
            future.cancel()  # Ctrl-C, too: what was asked for is cancelled
            ended.wait(_CANCEL_S)
            if isinstance(error, TimeoutError):
                raise CallTimeoutError(name, timeout_s) from None
            raise


async def _noting_end(make: Callable[[], Awaitable[T]], ended: threading.Event) -> T:
    try:
        return await make()
    finally:
        ended.set()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if not loop.is_closed() and thread.is_alive():
        asyncio.run_coroutine_threadsafe(_wind_down(), loop)
        thread.join(2 * _CANCEL_S)
    if not thread.is_alive():
        loop.close()


async def _wind_down() -> None:
    """Cancel what is still called for, then stop the loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CANCEL_S)
    asyncio.get_running_loop().stop()
