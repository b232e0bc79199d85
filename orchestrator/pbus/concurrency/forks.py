"""Forks of this process: the child is no second life of it, and lets go of what is the parent's.

It shares all descriptors. Its socket to a broker would keep the parent's subscriptions when the
parent is dead; a signal that it gets would be noted on the parent's wake-up descriptor, and its copy
of the loop would change what the parent's selector waits for.
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
_signals: dict[int, Any] = {}  # what was there before our handlers
_mask = threading.local()  # of the thread that forks
_CAME_BACK = "pbus: a forked child came back into its parent's loop and ends: end it by os._exit()"


def hold_connection(owner: object, transport_of: TransportOf) -> None:
    """Have a child let go of a connection, as long as its owner lives.

    Args:
        owner: Has the connection.
        transport_of: Tells the transport of the owner that it is given; must not hold it.
    """
    _connections[owner] = transport_of


def hold_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have a child let go of a loop: it cannot go on in it."""
    _loops.add(loop)


def hold_signal(number: int, before: Any) -> None:
    """Have a child do at a signal what was done before we handled it."""
    _signals[number] = before


def drop_signal(number: int) -> None:
    """A signal is not ours any more."""
    _signals.pop(number, None)


class _Ended(selectors.SelectSelector):
    """What a copied loop waits with: a child that comes back into it ends here.

    All else would run twice: the handlers of what is under way, and the end of the program.
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
    """Before a fork: what the child gets before it has let go of our handlers has to wait."""
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals) if _signals else None


def _release_signals() -> None:
    before, _mask.before = _mask.before, None
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _let_go() -> None:
    """In the child, right after the fork."""
    for number, before in _signals.items():
        with contextlib.suppress(ValueError, TypeError, OSError):
            signal.signal(number, signal.SIG_DFL if before is None else before)
    if _loops:
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
    for loop in list(_loops):
        if hasattr(loop, "_selector"):  # asyncio's; there is no other way to it
            loop._selector = _Ended()  # noqa: SLF001 - likewise
    # Not closed: their owners would close the numbers again, when others have them.
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


os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_let_go)
