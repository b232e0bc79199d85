r"""Ctrl-Z and Ctrl-\: the terminal is given back before the process is stopped or ends by them."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def suspendable(suspend: Callable[[], None], resume: Callable[[], None]) -> Iterator[None]:
    r"""Have Ctrl-Z and Ctrl-\ leave a terminal that is usable. Needs the main thread's running loop.

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

    def end() -> None:
        suspend()
        loop.remove_signal_handler(signal.SIGQUIT)
        signal.raise_signal(signal.SIGQUIT)  # at once; the guard sees to the rest

    is_ignored = signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
    if not is_ignored:
        loop.add_signal_handler(signal.SIGTSTP, stop)
    loop.add_signal_handler(signal.SIGCONT, resume)
    loop.add_signal_handler(signal.SIGQUIT, end)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        loop.remove_signal_handler(signal.SIGQUIT)
        if not is_ignored:
            loop.remove_signal_handler(signal.SIGTSTP)
