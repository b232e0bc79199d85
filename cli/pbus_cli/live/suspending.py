"""Ctrl-Z: the terminal is given back before the process is stopped, and taken again afterwards."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def suspendable(suspend: Callable[[], None], resume: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-Z leave a terminal that is usable. Needs the main thread's running loop.

    Args:
        suspend: Gives the terminal back.
        resume: Takes it again; also called when the process was stopped in another way.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        suspend()
        loop.remove_signal_handler(signal.SIGTSTP)
        signal.raise_signal(signal.SIGTSTP)  # goes on here when continued
        loop.add_signal_handler(signal.SIGTSTP, stop)
        resume()

    is_ignored = signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
    if not is_ignored:
        loop.add_signal_handler(signal.SIGTSTP, stop)
    loop.add_signal_handler(signal.SIGCONT, resume)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        if not is_ignored:
            loop.remove_signal_handler(signal.SIGTSTP)
