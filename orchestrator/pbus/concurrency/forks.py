"""Forks of this process: the child drops the parent's connections, loops and signal handlers.

It shares all descriptors. Its socket to a broker would keep the subscriptions of a dead parent; its
signals would be written to the parent's wake-up descriptor, and its copy of the loop would change
the parent's selector.
"""

import asyncio
import contextlib
import os
import selectors
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

TransportOf: TypeAlias = Callable[[Any], asyncio.BaseTransport | None]

_connections: weakref.WeakKeyDictionary[Any, TransportOf] = weakref.WeakKeyDictionary()
_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_signals: dict[int, Any] = {}  # the handlers before pbus' own
_mask = threading.local()  # of the thread that forks
_CAME_BACK = "pbus: a forked child came back into its parent's loop and ends: end it by os._exit()"


def hold_connection(owner: object, transport_of: TransportOf) -> None:
    """Drop a connection in forked children, as long as its owner exists.

    Args:
        owner: Has the connection.
        transport_of: Returns the transport of the owner it is given; must not refer to it.
    """
    _connections[owner] = transport_of


def hold_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Drop a loop in forked children: they cannot continue in it."""
    _loops.add(loop)


def hold_signal(number: int, before: Any) -> None:
    """Restore the handler of a signal in forked children."""
    _signals[number] = before


def drop_signal(number: int) -> None:
    """Forget a signal that pbus no longer handles."""
    _signals.pop(number, None)


class _Ended(selectors.SelectSelector):
    """The selector of a copied loop: a child that returns into the loop ends here.

    Otherwise running handlers and the end of the program would run twice.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        del timeout
        error = sys.exc_info()[1]
        code = error.code if isinstance(error, SystemExit) else _CAME_BACK
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _hold_signals() -> None:
    """Before a fork: block signals until the child has dropped the handlers."""
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals) if _signals else None


def _release_signals() -> None:
    before, _mask.before = _mask.before, None
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _drop_all() -> None:
    """Run in the child right after the fork."""
    for number, before in _signals.items():
        with contextlib.suppress(ValueError, TypeError, OSError):
            signal.signal(number, signal.SIG_DFL if before is None else before)
    if _loops:
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
    for loop in list(_loops):
        if hasattr(loop, "_selector"):  # asyncio's; it has no public access
            loop._selector = _Ended()  # noqa: SLF001 - likewise
    # Not closed: their owners would close the same numbers again, then of other files.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in _descriptors():
        with contextlib.suppress(OSError):
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)
    _signals.clear()
    _loops.clear()
    _connections.clear()
    _release_signals()


def _descriptors() -> Iterator[int]:
    for owner, transport_of in list(_connections.items()):
        transport = transport_of(owner)
        sock = None if transport is None else transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            yield sock.fileno()


os.register_at_fork(
    before=_hold_signals, after_in_parent=_release_signals, after_in_child=_drop_all
)
